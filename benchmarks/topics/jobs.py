"""CPU and memory of whole jobs, as users start them, beside those of a version before.

``GAMMASTAR_BEFORE`` names a checkout of that version; it runs in this environment. With ``--full`` the main
job and the tests run too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from topics.read import seconds_of, write_wide

ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("_job.py")
RECORD = ROOT / "results" / "na60_dimuon"
SLOWEST = 40


def measured(root: Path, *arguments: object) -> dict[str, float]:
    """Return what ``_job.py`` says of a job with the package of a checkout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root / "src")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users' second job finds compiled code
    command = [sys.executable, str(JOB), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside(folder: Path, *arguments: object, rounds: int = 2) -> tuple[dict[str, float], str]:
    """Return the cheapest of some rounds of a job, and what the version before took, in words."""
    said, before = "", os.environ.get("GAMMASTAR_BEFORE")
    runs = [measured(ROOT, *arguments, folder / f"now{k}") for k in range(rounds)]
    now = min(runs, key=lambda found: found["total"])
    if before:
        old = measured(Path(before), *arguments, folder / "before")
        said = f"; before {old['total']:.3g} s of CPU, {old['memory']:.0f} MB, {old['wall']:.3g} s of time"
    return now, f"{now['memory']:.0f} MB, {now['wall']:.3g} s of time{said}"


def row(claim: str, seconds: float, goal: float) -> dict:
    return {"claim": f"{claim}: CPU", "measured": seconds, "goal": goal, "higher": False, "unit": " s"}


def rows(*, full: bool = False) -> Iterator[dict]:
    analysis = ROOT / "analysis" / "na60_dimuon"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now, said = beside(folder / "small", "run", analysis / "small.toml")
        yield row(f"`small.toml` from the start to the last figure ({said})", now["total"], 15)
        if (RECORD / "flow_pairs.json").is_file():
            detector = ROOT / "data" / "detectors" / "na62_dump.toml"
            now, said = beside(folder / "again", "reinterpret", RECORD, detector)
            yield row(f"reinterpretation with one detector, all bands ({said})", now["total"], 8)
        else:
            print("reinterpretation: left out, python3 analysis/run.py makes its record", file=sys.stderr)
        path = folder / "wide.root"
        write_wide(path, "RNTuple")
        inspected = seconds_of("-m", "gammastar", "inspect", str(path))
        yield row("`gammastar inspect` of an RNTuple of 1600 branches", inspected, 3)
        if full:
            now, said = beside(folder / "main", "run", analysis / "steering.toml")
            yield row(f"main job after installation ({said})", now["total"], 100)
            yield with_two_workers(analysis / "steering.toml", folder)
            seconds, slowest = tests()
            yield row("tests", seconds, 240) | {"more": slowest}


def with_two_workers(steering: Path, folder: Path) -> dict:
    """Return the time of the job with two worker processes over that without; its stages must be the same."""
    times = []
    for k, more in enumerate(((), ("--workers", "2"))):
        start = time.monotonic()
        command = [sys.executable, "-m", "gammastar", "run", str(steering), *more, "--output", f"workers{k}"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        times.append(time.monotonic() - start)
    one, two = (json.loads((folder / f"workers{k}" / "manifest.json").read_text())["stages"] for k in (0, 1))
    one.pop("simulate")  # its ROOT files hold the time at which they were written
    other = [name for name, stage in one.items() if stage["content"] != two[name]["content"]]
    if other:
        msg = f"main job with two workers: other content of {', '.join(other)}"
        raise ValueError(msg)
    return {
        "claim": f"main job, time with `--workers 2` over that without; same digests of {len(one)} stages",
        "measured": times[1] / times[0],
        "goal": 0.8,
        "higher": False,
        "unit": f" of {times[0]:.3g} s",
    }


def tests() -> tuple[float, str]:
    """Return the CPU of the README's command for the tests [s], and a table of the slowest."""
    command = [sys.executable, str(ROOT / "tests" / "run.py"), "-q", f"--durations={SLOWEST}"]
    before = os.times()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-4000:] + done.stderr)
    said = done.stdout
    after = os.times()
    found = re.findall(r"(?m)^([\d.]+)s (setup|call|teardown) +(\S+::.+)$", said)
    lines = "".join(
        f"| {name.strip().replace('|', chr(92) + '|')} | {what} | {time} s |\n" for time, what, name in found
    )
    table = f"The {len(found)} slowest parts of tests, in time:\n\n| test | part | |\n|---|---|---|\n{lines}"
    return sum(after[2:4]) - sum(before[2:4]), table
