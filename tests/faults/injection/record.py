"""All campaigns in one go: the numbers for the validation, the benchmark and ``docs/reliability.md``."""

from __future__ import annotations

import platform
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar import facility
from gammastar.core.errors import StoreError
from gammastar.core.rng import stream
from gammastar.store.chunks import read_chunk, write_chunk
from gammastar.store.manifest import digest
from injection import damage, kills, models, steerings, workers
from injection.kills import ROOT

PAGE = ROOT / "docs" / "reliability.md"
HEADING = "## Figures"


@dataclass(frozen=True)
class Result:
    """What was tried how often, and how often it went wrong."""

    what: str
    tried: int
    wrong: float
    allowed: float = 0.0
    note: str = ""
    counted: bool = True


def campaigns(*, quick: bool) -> Iterator[Result]:
    """Yield the results of all campaigns, the short ones or the full counts."""
    yield from _files(1 if quick else 34, 1 if quick else 10)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not quick:
            yield from _runs(folder)  # forks, so before anything has threads
        yield _chunks(folder, 20 if quick else 200)
        yield from _steerings(folder)
        yield from _models(folder, 2 if quick else 20)
        yield _executors(folder)
        if not quick:
            yield _workers(folder)


def _files(n: int, n_bare: int) -> Iterator[Result]:
    found = damage.campaign(n, manifest=True)
    counts = damage.summary(found)
    bad = sum(count for result, count in counts.items() if result not in {"error", "same"})
    yield Result(
        "damaged ROOT files, SHA-256 known: wrong without an error, hung or crashed",
        sum(counts.values()),
        bad,
    )
    found = damage.campaign(n_bare, manifest=False)
    counts = damage.summary(found)
    bad = sum(count for result, count in counts.items() if result not in {"error", "same", "silent"})
    yield Result("damaged ROOT files, SHA-256 unknown: hung or crashed", sum(counts.values()), bad)
    by_codec: Counter[str] = Counter()
    for (codec, _, result), count in found.items():
        by_codec[codec] += count if result == "silent" else 0
    note = ", ".join(f"{codec} {count}" for codec, count in by_codec.items())
    what = "damaged ROOT files, SHA-256 unknown: read back wrong without an error"
    yield Result(what, sum(counts.values()), counts["silent"], note=note, counted=False)


def _chunks(folder: Path, n: int) -> Result:
    """Read kept chunks that were cut off or have a flipped bit."""
    rng = stream(29, "chunks")
    path, arrays = folder / "chunk.parquet", {"mass": rng.random(3000), "event": np.arange(3000)}
    notes = {"entries": 3000, "cutflow": [{"name": "pairs", "weight": 0.1 * i} for i in range(200)]}
    content = write_chunk(path, "key", arrays, notes)
    data, silent = path.read_bytes(), 0
    for position in rng.integers(0, len(data), n):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        for bad in (data[:position], bytes(flipped)):
            path.write_bytes(bad)
            try:
                found = read_chunk(path, "key")
            except StoreError:
                continue
            silent += found.content != content or digest(found.arrays) != content or found.notes != notes
    return Result("damaged Parquet chunks (cut off, one bit): other content without an error", 2 * n, silent)


def _steerings(folder: Path) -> Iterator[Result]:
    found = steerings.refuse(folder)
    wrong = [*found.accepted, *found.unnamed, *found.crashed]
    what = "malformed steering files and schemas: accepted, or refused without the key"
    yield Result(what, found.files, len(wrong), note="; ".join(wrong)[:300])
    yield Result("malformed steering files: slowest refusal [s]", found.files, round(found.slowest, 2), 1.0)


def _models(folder: Path, n: int) -> Iterator[Result]:
    parts = [models.attack_flows(folder, n), models.attack_workspaces(folder, n)]
    files = sum(part.files for part in parts)
    wrong = [what for part in parts for what in (*part.silent, *part.crashed)]
    what = "malformed flow and workspace files: loaded in silence or without a typed error"
    yield Result(what, files, len(wrong), note="; ".join(wrong)[:300])
    ran = sum(len(part.executed) for part in parts)
    yield Result("malformed flow and workspace files: code executed", files, ran)


def _executors(folder: Path) -> Result:
    expected = workers.content(workers.serial()[0])
    different, tried = 0, 0
    for kind in ({}, {"workers": 2}):
        with facility.open_farm(**kind) as farm:
            for step in (3_000, 11_000, "100 MB"):
                found, _ = farm.pairs(workers.job(folder / f"{farm.name} {step}", step=step))
                different += workers.content(found) != expected
                tried += 1
    return Result("executors and chunk sizes: pairs that differ from a run without workers", tried, different)


def _workers(folder: Path) -> Result:
    lost = workers.kill_workers(folder, 50)
    note = f"{lost.jobs} jobs of {lost.chunks} chunks on 4 workers, {lost.seconds:.0f} s"
    note = "; ".join([note, *lost.rounds])
    what = "kills of workers: jobs with lost, doubled or other pairs"
    return Result(what, lost.kills, len(lost.different), note=note)


def _runs(folder: Path) -> Iterator[Result]:
    done = kills.kill_runs(folder, 100)
    note = f"{done.runs} runs finished after kills, {done.seconds:.0f} s"
    bad = len(done.broken) + done.failed
    what = "`kill -9` of a run: published files that were not whole, resumed runs that failed"
    yield Result(what, done.kills, bad)
    what = "`kill -9` of a run: digests that differ from a run without kills"
    yield Result(what, done.kills, len(done.different), note=note)


def write(results: list[Result]) -> None:
    """Replace the figures of the page."""
    lines = ["| what | tried | wrong | |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.tried} | {r.wrong:g} | {r.note} |" for r in results]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    body = (
        f"{HEADING}\n\nWritten by `analysis/validate.py facility` on {machine}.\n\n" + "\n".join(lines) + "\n"
    )
    text = PAGE.read_text() if PAGE.is_file() else "# Reliability\n"
    pattern = re.compile(rf"{HEADING}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: body, text) if pattern.search(text) else f"{text.rstrip()}\n\n{body}"
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(PAGE)
