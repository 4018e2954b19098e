"""Workers that die in the middle of a job of many chunks: nothing lost, nothing doubled."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed.utils
import numpy as np
import uproot
from distributed import Client, LocalCluster

from gammastar import read, select
from gammastar.config import read_toml
from gammastar.core.pairs import Pairs
from gammastar.facility import Executor, Patience
from gammastar.facility.executors import _dask_executor
from gammastar.select import Cuts
from gammastar.store.manifest import digest, file_sha256
from gammastar.store.pairs import Job, Source
from injection.kills import ROOT, killing

FIELDS = ("mass", "pt", "energy", "charge", "weight", "event")
DATA = ROOT / "data" / "mock" / "na60_data.root"


def schema() -> read.Schema:
    return read.Schema.from_mapping(read_toml(ROOT / "analysis" / "na60_dimuon" / "schema.toml"))


def job(folder: Path, *, step: int, data: Path = DATA, key: str = "k") -> Job:
    return Job("pairs", (Source(str(data), file_sha256(data)),), schema(), Cuts, step, key, folder)


def serial(*, step: int | str = "100 MB", data: Path = DATA) -> tuple[Pairs, select.Cutflow]:
    return select.collect(read.open_events([str(data)], schema(), step=step))


def content(pairs: Pairs | Iterable[Pairs]) -> str:
    whole = pairs if isinstance(pairs, Pairs) else Pairs.concatenate(list(pairs))
    return digest({name: getattr(whole, name) for name in FIELDS})


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[tuple[Executor, Any]]:
    """Yield an executor on a LocalCluster whose dead workers are soon back, and what gives their numbers."""
    import dask

    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.allowed-failures": 10,
        "distributed.comm.timeouts.connect": "20s",
        "distributed.nanny.pre-spawn-environ": {},
    }
    distributed.utils._forkserver_preload_set = True  # or it forgets ours
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", "gammastar.facility"])
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as local,
        Client(local) as client,
    ):

        def pids() -> list[int]:
            found = [nanny.pid for nanny in dict(local.workers).values()]
            return [pid for pid in found if pid]

        yield _dask_executor(client, Patience(), retries=20), pids


@dataclass
class Lost:
    """What a campaign of worker kills found."""

    kills: int = 0
    jobs: int = 0
    chunks: int = 0
    different: list[str] = field(default_factory=list)
    rounds: list[str] = field(default_factory=list)
    seconds: float = 0.0


def kill_workers(
    folder: Path, kills: int, *, workers: int = 4, step: int = 100, every: float = 0.6, portion: int = 0
) -> Lost:
    """Run jobs of many chunks while workers are killed; compare with the serial result."""
    start, found = time.perf_counter(), Lost()
    pairs, flow = serial()
    expected = content(pairs), np.sort(pairs.event).tobytes(), flow.rows()
    log: list[int] = []
    with cluster(workers) as (executor, pids):
        while len(log) < kills:
            target = folder / f"job{found.jobs}"
            with killing(pids, every, kills, log, portion):
                parts, cutflow = executor.pairs(job(target, step=step))
            now = Pairs.concatenate(list(parts))
            found.jobs += 1
            found.chunks = len(list(target.glob("*.parquet")))
            if content(now) != expected[0] or np.sort(now.event).tobytes() != expected[1]:
                found.different.append(f"job {found.jobs}: pairs")
            if [row["n"] for row in cutflow.rows()] != [row["n"] for row in expected[2]]:
                found.different.append(f"job {found.jobs}: cutflow")
            shutil.rmtree(target)
        found.rounds = list(executor.events)
    found.kills, found.seconds = len(log), time.perf_counter() - start
    return found


def poisoned(path: Path, n_files: int, bad: tuple[int, ...]) -> list[Path]:
    """Write small files and damage the baskets of some of them beyond reading."""
    with uproot.open({str(DATA): None}) as file:
        arrays = file["events"].arrays(entry_stop=40 * n_files)
    files = []
    for i in range(n_files):
        target = path / f"part{i:03d}.root"
        part = arrays[40 * i : 40 * (i + 1)]
        with uproot.recreate(target, compression=uproot.ZLIB(1)) as file:
            names = [name for name in part.fields if name != "nMuon"]
            file.mktree("events", {name: part[name].type.content for name in names}).extend(
                {name: part[name] for name in names}
            )
        if i in bad:
            with uproot.open({str(target): None}) as file:
                branch = file["events"]["Muon_px"]
                start, size = int(branch.member("fBasketSeek")[0]), int(branch.member("fBasketBytes")[0])
            data = bytearray(target.read_bytes())
            data[start + size // 2 : start + size] = b"\xff" * (size - size // 2)  # opens, but cannot be read
            target.write_bytes(bytes(data))
        files.append(target)
    return files
