"""The campaigns, each in portions that can be run one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from gammastar import facility
from gammastar.core.errors import StoreError
from gammastar.core.sampling import stream
from gammastar.store.manifest import digest
from gammastar.store.pairs import Source, read_chunk, write_chunk
from injection import (
    attacks,
    damage,
    foreign_code,
    hangs,
    kills,
    links,
    memory,
    models,
    shared,
    steerings,
    texts,
    unforeseen,
    whole,
    workers,
)


@dataclass(frozen=True)
class Result:
    """What was tried how often, and how often it went wrong.

    `worst` results of several portions are combined by their largest value, others are added; one that is
    not `counted` is a figure, no promise.
    """

    what: str
    tried: int
    wrong: float
    allowed: float = 0.0
    note: str = ""
    counted: bool = True
    worst: bool = False
    when: str = ""

    def __add__(self, other: Result) -> Result:
        wrong = max(self.wrong, other.wrong) if self.worst else self.wrong + other.wrong
        notes = dict.fromkeys(filter(None, (self.note, other.note)))
        return replace(self, tried=self.tried + other.tried, wrong=wrong, note="; ".join(notes))


@dataclass(frozen=True)
class Part:
    """A campaign: its module, number of portions, and the function that runs one of them in a folder."""

    module: ModuleType
    portions: int
    run: Callable[[Path, int], Iterator[Result]]


def _known(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(_: Path, __: int) -> Iterator[Result]:
        counts = damage.summary(damage.campaign(n, manifest=True))
        bad = sum(count for result, count in counts.items() if result not in {"error", "same"})
        what = "damaged ROOT files, SHA-256 known: wrong without an error, hung or crashed"
        yield Result(what, sum(counts.values()), bad)

    return run


def _unknown(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(_: Path, portion: int) -> Iterator[Result]:
        name = tuple(damage.COMPRESSIONS)[portion]
        found = damage.campaign(
            n, manifest=False, codecs=tuple(codec for codec in damage.CODECS if codec.endswith(f" {name}"))
        )
        counts = damage.summary(found)
        fine = {"error", "same", "silent"}
        bad = sum(count for result, count in counts.items() if result not in fine)
        yield Result("damaged ROOT files, SHA-256 unknown: hung or crashed", counts.total(), bad)
        for form in damage.FORMATS:
            tried = n * len(damage.MODES)
            silent = sum(found[f"{form} {name}", mode, "silent"] for mode in damage.MODES)
            what = f"damaged {damage.MEANT[form]}, SHA-256 unknown: read back wrong without an error"
            yield Result(what, tried, silent, note=f"{name} {silent} of {tried}", counted=form == "RNTuple")

    return run


def _chunks(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, _: int) -> Iterator[Result]:
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
        what = "damaged Parquet chunks (cut off, one bit): other content without an error"
        yield Result(what, 2 * n, silent)

    return run


def _texts(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, _: int) -> Iterator[Result]:
        for kind, (tried, silent, crashed) in texts.campaign(folder, n).items():
            what = f"{kind} cut off: other content without an error, or no typed error"
            note = "; ".join([*silent, *crashed])[:200]
            yield Result(what, tried, len(silent) + len(crashed), note=note)

    return run


def _steerings(folder: Path, _: int) -> Iterator[Result]:
    found = steerings.refuse(folder)
    wrong = [*found.accepted, *found.unnamed, *found.crashed]
    what = "malformed steering files and schemas: accepted, or refused without the key"
    yield Result(what, found.files, len(wrong), note="; ".join(wrong)[:300])
    what = "malformed steering files: slowest refusal [s]"
    yield Result(what, found.files, round(found.slowest, 2), 1.0, worst=True)


def _models(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, _: int) -> Iterator[Result]:
        parts = [models.attack_flows(folder, n), models.attack_workspaces(folder, n)]
        files = sum(part.files for part in parts)
        wrong = [what for part in parts for what in (*part.silent, *part.crashed)]
        what = "malformed flow and workspace files: loaded in silence or without a typed error"
        yield Result(what, files, len(wrong), note="; ".join(wrong)[:300])
        ran = sum(len(part.executed) for part in parts)
        yield Result("malformed flow and workspace files: code executed", files, ran)

    return run


def _executors(folder: Path, _: int) -> Iterator[Result]:
    expected = workers.content(workers.serial()[0])
    different, tried = 0, 0
    for kind in ({}, {"workers": 2}, {"workers": 1, "dask": "local"}):
        with facility.open_executor(**kind) as executor:
            for step in (3_000, 11_000, "100 MB"):
                found, _flow = executor.pairs(workers.job(folder / f"{executor.name} {step}", step=step))
                different += workers.content(found) != expected
                tried += 1
    what = "executors and chunk sizes: pairs that differ from a run without workers"
    yield Result(what, tried, different)


def _workers(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        lost = workers.kill_workers(folder, n, portion=portion)
        note = f"jobs of {lost.chunks} chunks on 4 workers, every lost chunk done again and noted"
        what = "kills of workers: jobs with lost, doubled or other pairs"
        yield Result(what, lost.kills, len(lost.different), note=note)

    return run


def _runs(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        done = kills.kill_runs(folder, n, portion=portion)
        bad = len(done.broken) + done.failed
        what = "`kill -9` of a run: published files that were not whole, resumed runs that failed"
        yield Result(what, done.kills, bad, note="; ".join(done.broken)[:200])
        what = "`kill -9` of a run: digests that differ from a run without kills"
        yield Result(what, done.kills, len(done.different), note="; ".join(done.different)[:200])

    return run


def _skips(n_files: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, _: int) -> Iterator[Result]:
        """Read many files of which three cannot be read; everything else must be there, and be counted."""
        bad = tuple(int(i) for i in stream(31, "poison").choice(n_files, 3, replace=False))
        files = workers.poisoned(folder, n_files, bad)
        sources = tuple(Source(str(path)) for path in files)
        job = replace(workers.job(folder / "chunks", step=1000), sources=sources)
        with facility.open_executor(workers=2, retries=1, skip_bad=True) as executor:
            pairs, flow = executor.pairs(job)
            lost, names = executor.lost_fraction(), {Path(entry["file"]).stem for entry in executor.skipped}
        wrong = [names != {f"part{i:03d}" for i in bad}, flow["events"].n != 40 * (n_files - 3)]
        wrong += [not sum(map(len, pairs)), abs(lost - 3 / n_files) > 1e-12]
        what = "unreadable files, skipped when asked: not reported, others lost, or a wrong lost fraction"
        yield Result(what, n_files, sum(wrong), note=f"3 of {n_files} files, lost fraction {lost:.3g}")

    return run


def _memory(gigabytes: float) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        found = memory.streamed(folder, gigabytes, portion=portion)
        what = f"streams of {gigabytes:g} GB of events under a limit of 2 GiB: not finished"
        note = f"largest resident memory {found.peak:.0f} MB" if portion < 1 else ""
        yield Result(what, 1, 1.0 - found.finished, note=note)

    return run


def _adversarial(attack: Callable[[Path, int], attacks.Found]) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        for what, tried in attack(folder, portion):
            yield Result(what, tried.n, len(tried.wrong), note="; ".join(tried.wrong)[:300])

    return run


def _hangs(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        tries = [("dead or stopped scheduler addresses: not refused in time", hangs.dead_addresses(folder))]
        for on in ("local", "Dask") if portion >= 0 else ("local",):
            what = f"stopped {on} workers: jobs that hung or gave other pairs"
            tries.append((what, hangs.stopped_workers(folder, n, on=on, portion=portion)))
        if portion >= 0:
            what = (
                "schedulers killed or stopped within a job: no error in time, or other pairs when done again"
            )
            tries.append((what, hangs.gone_schedulers(folder, portion=portion)))
        for what, found in tries:
            yield Result(what, found.tried, len(found.wrong), note="; ".join(found.wrong)[:200])

    return run


def _foreign_code(folder: Path, _: int) -> Iterator[Result]:
    os.chdir(folder)  # a portion has a process of its own
    record = foreign_code.finished(folder / "run" / "record")
    found = list(foreign_code.tried(record, folder))
    what = "commands on shared results that name Python code, by key: code that ran"
    yield Result(what, len(found), sum(ran for _, ran in found))


def _links(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        linked, listed, output = links.campaign(folder, n, portion)
        what = "links in a folder of results, at every level: files of the user's changed, or not refused"
        yield Result(what, linked.n, len(linked.wrong), note="; ".join(linked.wrong)[:300])
        what = "manifests that list files of the user's: files gone"
        yield Result(what, listed.n, len(listed.wrong), note="; ".join(listed.wrong)[:300])
        what = "links in a folder that is exported into: files of the user's changed, or not refused"
        yield Result(what, output.n, len(output.wrong), note="; ".join(output.wrong)[:300])

    return run


def _shared(folder: Path, _: int) -> Iterator[Result]:
    changed, odd = shared.campaign(foreign_code.finished(folder / "run"), folder)
    what = "parts of results with other numbers, or pipes in their place: no error that names them"
    yield Result(what, changed.n, len(changed.wrong), note="; ".join(changed.wrong)[:300])
    what = "parts of results that are odd documents with digests that fit: no error that names them"
    yield Result(what, odd.n, len(odd.wrong), note="; ".join(odd.wrong)[:300])


def _unforeseen(folder: Path, _: int) -> Iterator[Result]:
    tried = unforeseen.commands(folder)
    what = "errors that nobody foresaw, in every command: no single line, file and exit code 70"
    yield Result(what, tried.n, len(tried.wrong), note="; ".join(tried.wrong)[:300])
    tried = unforeseen.figures(folder)
    what = "figures of a run that fail, one by one: not finished, or no reason in page and manifest"
    yield Result(what, tried.n, len(tried.wrong), note="; ".join(tried.wrong)[:300])


def _whole(n: int) -> Callable[[Path, int], Iterator[Result]]:
    def run(folder: Path, portion: int) -> Iterator[Result]:
        found = whole.campaign(folder, whole.SEED + portion, n=n, cpu=150.0)
        what = "steering files drawn from the schema that `check` takes, run whole: crashed, hung or no page"
        note = f"of each {found.runs}: finished {found.finished}, ended with a named error {found.refused}"
        yield Result(what, found.runs, len(found.wrong), note="; ".join([note, *found.wrong])[:4000])

    return run


FULL = {
    "runs": Part(kills, 10, _runs(10)),
    "known": Part(damage, 1, _known(27)),
    "unknown": Part(damage, 5, _unknown(40)),
    "chunks": Part(workers, 1, _chunks(200)),
    "texts": Part(texts, 1, _texts(200)),
    "steerings": Part(steerings, 1, _steerings),
    "models": Part(models, 1, _models(20)),
    "executors": Part(workers, 1, _executors),
    "skips": Part(workers, 1, _skips(500)),
    "workers": Part(workers, 5, _workers(10)),
    "memory": Part(memory, 10, _memory(5.0)),
    "adversarial": Part(attacks, attacks.N_PORTIONS, _adversarial(attacks.attack)),
    "hangs": Part(hangs, 2, _hangs(4)),
    "foreign code": Part(foreign_code, 1, _foreign_code),
    "parts of results": Part(shared, 1, _shared),
    "links": Part(links, 1, _links(400)),
    "unforeseen": Part(unforeseen, 1, _unforeseen),
    "whole runs": Part(whole, 30, _whole(200)),
}
QUICK = {
    "known": Part(damage, 1, _known(1)),
    "unknown": Part(damage, 5, _unknown(1)),
    "chunks": Part(workers, 1, _chunks(20)),
    "texts": Part(texts, 1, _texts(10)),
    "steerings": Part(steerings, 1, _steerings),
    "models": Part(models, 1, _models(2)),
    "executors": Part(workers, 1, _executors),
    "adversarial": Part(attacks, 1, _adversarial(lambda folder, _: attacks.draw(folder))),
    "hangs": Part(hangs, 1, lambda folder, _: _hangs(1)(folder, -1)),
}


def main(name: str, portion: int, target: Path, folder: Path, state: str) -> None:
    """Run one portion of a full campaign in this process and keep its results."""
    results = [result.__dict__ for result in FULL[name].run(folder, portion)]
    temporary = target.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"state": state, "results": results}), encoding="utf-8")
    temporary.replace(target)
