"""``kill -9`` of a run and of its workers at random times: what comes out must be what comes out without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from gammastar.core.sampling import stream
from gammastar.pipeline.run import run
from gammastar.store.manifest import digest

ROOT = Path(__file__).resolve().parents[3]
SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"


def steering(path: Path, *, step: str = "300 kB", weights: str = "signed") -> Path:
    """Write the small analysis with the histogram sampler and small samples (seconds)."""
    text = SMALL.read_text().split("[report]")[0]
    text = text.replace("../../", f"{ROOT}/")
    text = text.replace('schema = "schema.toml"', f'schema = "{SMALL.parent}/schema.toml"\nstep = "{step}"')
    text = text.replace("[subtract]", f'[subtract]\nweights = "{weights}"')
    before, _, after = text.partition("[flow]")
    text = before + '[predict]\nsampler = "histogram"' + after.partition("[predict]")[2]
    for old, new in (
        ("n_masses = 20", "n_masses = 8"),
        ("n_sample = 4_000", "n_sample = 1_000"),
        ('detectors = ["na62_dump", "ship_ecn3"]', 'detectors = ["na62_dump"]'),
    ):
        if old not in text:
            message = f"{SMALL} has no {old!r} any more"
            raise ValueError(message)
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def smaller(path: Path) -> Path:
    """Write a steering file on a part of the mock files: a run takes a fraction of a second."""
    text = (
        steering(path, weights="posterior")
        .read_text()
        .replace("n_masses = 8", "masses = [0.3, 0.4, 0.5, 0.6, 0.7, 0.77]")
    )
    for name, every in (("na60_data", 2), ("na60_mc", 5)):
        target = path.parent / f"{name}.root"
        with uproot.open({str(ROOT / "data" / "mock" / f"{name}.root"): None}) as file:
            part = file["events"].arrays()[::every]
        names = [field for field in part.fields if not field.startswith("n")]
        with uproot.recreate(target, compression=uproot.ZLIB(1)) as file:
            kinds = {field: part[field].type.content for field in names}
            file.mktree("events", kinds).extend({field: part[field] for field in names})
        text = re.sub(rf'"[^"]*{name}\.root"', f'"{target}"', text)
    path.write_text(text, encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, str]:
    """Return the content digest of every stage and of the files that hold no time stamp."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {stage: entry["content"] for stage, entry in manifest["stages"].items()}
    return found | {name: sha for name, sha in manifest["files"].items() if not name.endswith(".root")}


def whole(folder: Path) -> list[str]:
    """Return the published files that cannot be read; every one must be whole at every moment."""
    broken = []
    for path in [*folder.glob("*.json"), *folder.glob("stages/*.npz")]:
        if path.name.startswith("."):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            else:
                with np.load(path, allow_pickle=False) as file:
                    digest({name: file[name] for name in file.files})
        except (ValueError, OSError, EOFError) as error:
            broken.append(f"{path.name}: {error}")
    return broken


def forked(path: Path, folder: Path, *, resume: bool) -> int:
    """Start a run in a child that is ready at once; return its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run(path, output=folder, resume=resume)
        code = 0
    finally:
        os._exit(code)


@dataclass
class Killed:
    """What a campaign of kills found."""

    kills: int = 0
    runs: int = 0
    broken: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0


def kill_runs(folder: Path, kills: int, *, portion: int = 0) -> Killed:
    """Kill runs at random times and resume them until they finish; compare with a run without kills."""
    start = time.perf_counter()
    path = smaller(folder / "steering.toml")
    run(path, output=folder / "once")
    at = time.perf_counter()
    run(path, output=folder / "once")
    length = time.perf_counter() - at
    expected, found, rng = contents(folder / "once"), Killed(), stream(11, "kills", portion)
    while found.kills < kills:
        target = folder / "killed"
        shutil.rmtree(target, ignore_errors=True)
        resume = False
        while not _attempt(path, target, resume, float(rng.uniform(0.02, length)), found):
            resume = True
        found.runs += 1
        now = contents(target)
        found.different += [name for name in expected if now.get(name) != expected[name]]
    found.seconds = time.perf_counter() - start
    return found


def _attempt(path: Path, target: Path, resume: bool, wait: float, found: Killed) -> bool:
    """Let a run work for a while and kill it; True when it was faster."""
    child = forked(path, target, resume=resume)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            found.failed += status != 0
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found.kills += 1
    found.broken += whole(target) if target.is_dir() else []
    return False


@contextlib.contextmanager
def killing(pids: Any, every: float, limit: int, log: list[int], portion: int = 0) -> Iterator[None]:
    """Kill a random process of ``pids()`` again and again while the block runs."""
    stop, rng = threading.Event(), stream(13, "workers", portion, len(log))

    def work() -> None:
        while len(log) < limit and not stop.wait(float(rng.uniform(0.5, 1.5)) * every):
            there = pids()
            if there:
                victim = int(rng.choice(there))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    log.append(victim)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
