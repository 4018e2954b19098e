"""From ntuple to pairs to histogram, against uproot's mere reading and RDataFrame; memory; imports."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
import vector
from topics import _resident

from gammastar import read, select
from gammastar.core.constants import M_MU
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.select.pairing import combine
from gammastar.subtract import mixed_pairs, mixing_pool

BRANCHES = ("Muon_px", "Muon_py", "Muon_pz", "Muon_charge", "event")
SCHEMA = read.Schema.from_mapping(
    {
        "tree": "events",
        "layout": "jagged",
        "lepton": "mu",
        "charge": "Muon_charge",
        "event": "event",
        "kinematics": {key: f"Muon_{key}" for key in ("px", "py", "pz")},
    }
)
AXES = (regular("mass", 50, 0.2, 2.2), regular("pt", 10, 0, 3))
STEP = {"TTree": "30 MB", "RNTuple": "100 MB"}  # smaller steps make uproot read an RNTuple several times
ROUNDS = 5
RDATAFRAME = Path(__file__).with_name("_rdataframe.py")


def rows(*, full: bool = False) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("TTree", "RNTuple"):
            path = Path(folder) / f"{kind}.root"
            write(path, kind, 1_000_000)
            step = STEP[kind]
            bare, ours = interleaved(
                lambda p=path, s=step: bare_read(p, s), lambda p=path, s=step: fill(p, s)
            )
            claim = (
                f"{kind} zstd 1, 1e6 events: throughput of ntuple → pairs → histogram over uproot's reading"
            )
            yield {"claim": claim, "measured": bare / ours, "goal": 0.6}
        yield from rdataframe(Path(folder))
        yield from wide(Path(folder))
        yield from memory(Path(folder), full=full)
    yield from imports()
    yield from kernels()
    yield mixing()


def write(path: Path, kind: str, n: int, block: int = 250_000) -> None:
    rng = stream(1, "read", kind)
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        tree = None
        for first in range(0, n, block):
            m = min(block, n - first)
            counts = rng.poisson(1.3, m)
            t = int(counts.sum())
            flat = {
                "px": rng.normal(0, 0.5, t).astype(np.float32),
                "py": rng.normal(0, 0.5, t).astype(np.float32),
                "pz": rng.uniform(3, 60, t).astype(np.float32),
                "charge": rng.choice(np.array([-1, 1], np.int32), t),
            }
            muon = ak.zip({key: ak.unflatten(column, counts) for key, column in flat.items()})
            event = np.arange(first, first + m)
            columns = {f"Muon_{key}": muon[key] for key in muon.fields} | {"event": event}
            if kind == "TTree":
                tree = tree or file.mktree("events", {"Muon": muon.type.content, "event": "int64"})
                tree.extend({"Muon": muon, "event": event})
            elif tree is None:
                tree = file.mkrntuple("events", columns)
            else:
                tree.extend(columns)


def bare_read(path: Path, step: str | int) -> int:
    total = 0
    with uproot.open({path: "events"}, array_cache=None, object_cache=None) as tree:
        for arrays in tree.iterate(filter_name=list(BRANCHES), step_size=step, library="ak"):
            total += len(arrays)
    return total


def fill(path: Path, step: str | int) -> float:
    hists, _ = select.histograms(read.open_flat(path, SCHEMA, step=step), AXES)
    return float(hists.os.sum(flow=True).value)


def fill_pairs(path: Path, step: str | int) -> float:
    """Fill chunk by chunk through tables of pairs, as a run does."""
    hists = None
    for chunk in read.open_events(str(path), SCHEMA, step=step):
        part = select.fill(select.pairs(chunk)[0], AXES).os
        hists = part if hists is None else hists + part
    return 0.0 if hists is None else float(hists.sum(flow=True).value)


def interleaved(one: Callable[[], object], two: Callable[[], object]) -> tuple[float, float]:
    """Return the smallest CPU time of each, measured in turn after one call to compile."""
    best = [np.inf, np.inf]
    one(), two()
    for _ in range(ROUNDS):
        for k, function in enumerate((one, two)):
            start = time.process_time()
            function()
            best[k] = min(best[k], time.process_time() - start)
    return best[0], best[1]


def rdataframe(folder: Path, n: int = 2_000_000) -> Iterator[dict]:
    """Compare with RDataFrame on one thread, compilation included; no row where no interpreter has ROOT."""
    here = sys.executable if importlib.util.find_spec("ROOT") else ""
    python = os.environ.get("GAMMASTAR_ROOT_PYTHON", here)
    for kind in ("TTree", "RNTuple") if python else ():
        path = folder / f"{kind}_{n}.root"
        write(path, kind, n)
        command = [python, "-W", "ignore", str(RDATAFRAME), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peer = json.loads(done.stdout.splitlines()[-1])
        start = time.process_time()
        hists, _ = select.histograms(read.open_flat(path, SCHEMA, step=STEP[kind]), AXES)
        first = time.process_time() - start
        sums = [float(hist.values().sum()) for hist in (hists.os, hists.pp, hists.mm)]
        if sums != peer["sums"]:
            msg = f"{kind}: RDataFrame fills {peer['sums']} pairs, the compiled pass {sums}"
            raise ValueError(msg)
        ours, _ = interleaved(lambda p=path, k=kind: fill(p, STEP[k]), lambda: None)
        yield {
            "claim": f"{kind}, {n:.0e} events to three charge histograms: RDataFrame of ROOT "
            f"{peer['version']}, one thread, compilation included ({peer['seconds']:.3g} s), over one "
            f"compiled pass ({ours:.3g} s; with what it had to load of numba before: {first:.3g} s)",
            "measured": peer["seconds"] / ours,
            "goal": 10,
        }
        path.unlink()


def write_wide(path: Path, kind: str, n_branches: int = 1600, n: int = 2000) -> None:
    """Write a file like NanoAOD: seven collections of some sixty lists, trigger bits for the rest."""
    rng = stream(4, "wide", kind)
    columns: dict[str, ak.Array] = {}
    for name in ("Muon", "Electron", "Jet", "Tau", "FatJet", "GenPart", "Photon"):
        counts = rng.poisson(1.5, n)
        t = int(counts.sum())
        members = {
            "pt": 3 + rng.exponential(10, t),
            "eta": rng.normal(0, 1.2, t),
            "phi": rng.uniform(-3.1, 3.1, t),
            **{f"q{i}": rng.normal(size=t) for i in range(60)},
        }
        members = {key: column.astype(np.float32) for key, column in members.items()}
        if name == "Muon":
            members["charge"] = rng.choice(np.array([-1, 1], np.int32), t)
        lists = {key: ak.unflatten(column, counts) for key, column in members.items()}
        if kind == "TTree":  # one branch of counts for a collection
            columns[name] = ak.zip(lists)
        else:
            columns |= {f"{name}_{key}": values for key, values in lists.items()}
    columns |= {"run": np.ones(n, np.int32), "event": np.arange(n)}
    given = sum(len(c.fields) + 1 if isinstance(c, ak.Array) and c.fields else 1 for c in columns.values())
    columns |= {f"HLT_{i}": rng.random(n) < 0.1 for i in range(n_branches - given)}
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        make = file.mktree if kind == "TTree" else file.mkrntuple
        kinds = {key: c.type.content if isinstance(c, ak.Array) else c.dtype for key, c in columns.items()}
        make("Events", kinds if kind == "TTree" else columns)
        if kind == "TTree":
            file["Events"].extend(columns)


def wide(folder: Path) -> Iterator[dict]:
    """CPU of ``gammastar inspect`` on files of many branches, imports included."""
    for kind in ("TTree", "RNTuple"):
        path = folder / f"wide_{kind}.root"
        write_wide(path, kind)
        yield {
            "claim": f"`gammastar inspect` of 1600 branches, {kind}: CPU with imports",
            "measured": seconds_of("-m", "gammastar", "inspect", str(path)),
            "goal": 3,
            "higher": False,
            "unit": " s",
        }


def seconds_of(*arguments: str, rounds: int = 3) -> float:
    """Return the smallest CPU time [s] of an interpreter with these arguments, its children included."""
    found = []
    for _ in range(rounds):
        before = os.times()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = os.times()
        found.append(sum(after[2:4]) - sum(before[2:4]))
    return min(found)


def imports() -> Iterator[dict]:
    """CPU of the interpreter with what every command pays."""
    for name, arguments, goal in (
        ("`import gammastar`", ("-c", "import gammastar"), 0.15),
        ("`gammastar --help`", ("-m", "gammastar", "--help"), 0.3),
        ("first compiled loop from disk, as the command line begins", ("-c", FIRST), 2.0),
    ):
        row = {"claim": f"{name}: CPU of the whole process", "measured": seconds_of(*arguments)}
        yield row | {"goal": goal, "higher": False, "unit": " s"}


FIRST = """
import numpy as np
from gammastar.core.files import skip_numba_entrypoints
from gammastar.select.pairing import usable
skip_numba_entrypoints()
one = np.ones(1)
usable(one, one, one, one, one)
"""


def events(n: int) -> ak.Array:
    """Events of up to a few muons in double precision, as the reader hands them on."""
    rng = stream(3, "kernels")
    counts = rng.poisson(1.3, n)
    t = int(counts.sum())
    columns = {
        "px": rng.normal(0, 0.5, t),
        "py": rng.normal(0, 0.5, t),
        "pz": rng.uniform(3, 60, t),
        "mass": np.full(t, M_MU),
        "charge": rng.choice(np.array([-1.0, 1.0]), t),
    }
    lepton = ak.unflatten(ak.zip(columns), counts)
    return ak.zip({"lepton": lepton, "event": np.arange(n), "weight": np.ones(n)}, depth_limit=1)


def by_vector(chunk: ak.Array) -> np.ndarray:
    """Mass, pt and energy of all pairs with awkward's combinations and vector."""
    names = ("px", "py", "pz", "mass")
    p4 = ak.zip({name: chunk.lepton[name] for name in names}, with_name="Momentum4D")
    one, two = ak.unzip(ak.combinations(p4, 2))
    pair = one + two
    return np.stack([ak.to_numpy(ak.flatten(q)) for q in (pair.mass, pair.pt, pair.energy)])


def flat_columns(chunk: ak.Array) -> dict[str, np.ndarray]:
    """Return the same leptons as flat columns with offsets, the form in which a file holds them."""
    columns = {name: ak.to_numpy(ak.flatten(chunk.lepton[name])) for name in chunk.lepton.fields}
    columns["offsets"] = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(chunk.lepton)))])
    return columns | {"weight": np.broadcast_to(1.0, len(chunk))}


def by_kernel(columns: dict[str, np.ndarray]) -> np.ndarray:
    four = tuple(columns[name] for name in ("px", "py", "pz", "mass"))
    return combine(columns["offsets"], four, columns["charge"].astype(np.int8))[0][:, :3].T


def kernels() -> Iterator[dict]:
    """Compare the pair loop with awkward and vector: the same pairs in the same order, each from its form."""
    vector.register_awkward()
    chunk = events(100_000)
    columns = flat_columns(chunk)
    theirs, ours = by_vector(chunk), by_kernel(columns)
    yield {
        "claim": "pairs of the compiled loop and of awkward with vector: largest difference [GeV]",
        "measured": float(np.abs(ours - theirs).max()),
        "goal": 1e-5,
        "higher": False,
        "unit": "",
    }
    slow, fast = interleaved(lambda: by_vector(chunk), lambda: by_kernel(columns))
    claim = "1e5 events in memory to pairs: compiled loop over awkward with vector"
    yield {"claim": claim, "measured": slow / fast, "goal": 3}
    slow, fast = interleaved(
        lambda: select.fill(select.pairs(chunk)[0], AXES), lambda: select.histograms([columns], AXES)
    )
    claim = "1e5 events to histograms: one compiled pass over a table of pairs that is filled"
    yield {"claim": claim, "measured": slow / fast, "goal": 3}


def memory(folder: Path, *, full: bool) -> Iterator[dict]:
    """Compare the peak resident memory of processes that read files which grow tenfold."""
    sizes = (100_000, 1_000_000, 10_000_000)
    ways = {"histograms": "one compiled pass", "pairs": "a table of pairs per chunk"}
    peaks: dict[str, list[float]] = {way: [] for way in ways}
    for n in sizes:
        path = folder / f"{n}.root"
        write(path, "TTree", n)
        for way, found in peaks.items():
            if full or way == "histograms" or n < sizes[-1]:
                found.append(_resident.peak(way, path))
        path.unlink()
    for way, found in peaks.items():
        shown = ", ".join(f"{peak:.0f}" for peak in found)
        few, many = (f"{n:.0e}".replace("e+0", "e") for n in sizes[len(found) - 2 : len(found)])
        claim = (
            f"peak resident memory, ntuple → pairs → histogram by {ways[way]}, 10 MB steps: "
            f"{many} over {few} events (from 1e5 on: {shown} MB)"
        )
        yield {"claim": claim, "measured": found[-1] / found[-2], "goal": 1.3, "higher": False}
    yield from _resident.measured_half(folder, (1, 10))


def mixing() -> dict:
    rng, n = stream(2, "mixing"), 200_000
    p = np.stack(
        [rng.normal(0, 0.5, n), rng.normal(0, 0.5, n), rng.uniform(3, 60, n), np.full(n, M_MU)], axis=1
    )
    pool = mixing_pool(
        [(p, rng.choice(np.array([-1, 1], np.int8), n), np.arange(n) // 2, np.zeros(n, np.int64))]
    )
    mixed_pairs(pool, 100, rng=rng)
    start = time.process_time()
    select.fill(mixed_pairs(pool, 333_334, rng=rng), AXES)
    used = time.process_time() - start
    return {
        "claim": "1e6 mixed pairs, filled: CPU time",
        "measured": used,
        "goal": 1,
        "higher": False,
        "unit": " s",
    }
