"""The mock side by side with bare Pythia: cost of the chain, speed of the toy, processes, memory."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gammastar.core.files import data_path
from gammastar.mock import generate_pairs, load_card, mode_rates, pythia
from gammastar.mock.engines import PythiaEngine
from gammastar.mock.pythia import SHARE, Pool, make_pool
from gammastar.store.events import write_tree

N_EVENTS, N_TOY = 10_000, 1_000_000
DECAYS = 2  # of each meson and mode
SHARES = 10  # of generated events for the speed-up of two processes: starting them takes a share of the time
FEW, MANY = 100_000, 1_000_000  # rows for the memory
STREAM = """
import resource, sys, time
from pathlib import Path
from gammastar.core.files import data_path
from gammastar.mock import load_card, simulate_blocks, write_blocks
from gammastar.store.events import tree_writer
card = load_card(data_path("cards/na60_mock.toml"))
start = time.process_time()
with tree_writer(Path(sys.argv[1])) as file:
    write_blocks(file, simulate_blocks(card, int(sys.argv[2]), kind=sys.argv[3], seed=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time() - start)
"""


def _chain(card, lines, folder: Path) -> tuple[float, int]:
    """Return seconds from generated events to a file of weighted dimuons, and the number of dimuons."""
    start = time.process_time()
    arrays = pythia.generate(lines, "soft", N_EVENTS, 1)
    engine = PythiaEngine(Pool(arrays, "soft", "pp", len(arrays["event_weight"]), np.nan))
    per_event = sum(
        DECAYS * engine.soft.multiplicity(card.mesons[mode.meson].pdg)
        for mode in card.modes.values()
        if mode.enabled
    )
    n = int(per_event * engine.soft.n_events)
    d = generate_pairs(card, n, np.random.default_rng(1), mesons=engine.mesons)
    branches = {"process": d.process, "mass": d.mass.astype(np.float32), "weight": d.weight}
    for name, p in (("plus", d.plus), ("minus", d.minus)):
        branches |= {f"{name}_{c}": p[i].astype(np.float32) for i, c in enumerate(("px", "py", "pz"))}
    write_tree(folder / "dimuons.root", {"dimuons": branches})
    return time.process_time() - start, n


def _bare(lines) -> float:
    """Return seconds that Pythia takes for the same events, nothing kept."""
    start = time.process_time()
    generator = pythia.initialised(lines)
    generator.rndm.init(2)
    for first in range(0, N_EVENTS, pythia.BATCH):
        generator.nextBatch(min(pythia.BATCH, N_EVENTS - first), errorMode="skip")
    pythia.initialised.cache_clear()  # what has made events serves no copies
    return time.process_time() - start


def _streamed(n: int, kind: str, folder: str) -> tuple[float, float]:
    """Return peak memory [kB] and CPU seconds of a process that writes a file of n events."""
    command = [sys.executable, "-c", STREAM, str(Path(folder) / "mock.root"), str(n), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, seconds = done.stdout.split()
    return float(peak), float(seconds)


def _streams() -> Iterator[dict]:
    with TemporaryDirectory() as folder:
        few, many = (_streamed(n, "mc", folder)[0] for n in (FEW, MANY))
        seconds = _streamed(MANY, "data", folder)[1]
    yield {
        "claim": f"peak memory, {MANY:.0e} rows over {FEW:.0e}, toy, file written",
        "measured": many / few,
        "goal": 1.2,
        "higher": False,
    }
    yield {
        "claim": f"one command, data-like file of {MANY:.0e} pairs, toy, CPU",
        "measured": seconds / 60.0,
        "goal": 5.0,
        "higher": False,
        "unit": " min",
    }


def _processes(card) -> dict:
    """Return the speed-up of two processes, start included; they must be free to show it."""
    seconds = []
    for workers in (1, 2):
        start = time.perf_counter()
        make_pool(card, SHARES * SHARE["pp"], seed=1, workers=workers)
        seconds.append(time.perf_counter() - start)
    return {
        "claim": f"Pythia, {SHARES * SHARE['pp']} events, 1 process over 2, wall time with their start",
        "measured": seconds[0] / seconds[1],
        "goal": 1.7,
    }


def rows() -> Iterator[dict]:
    yield from _streams()
    if importlib.util.find_spec("pythia8mc") is None:
        return
    card = load_card(data_path("cards/na60_mock.toml"))
    lines = pythia.settings(card.beam.energy)
    modes = len(mode_rates(card))
    with TemporaryDirectory() as folder:
        generate_pairs(card, 100_000, np.random.default_rng(0))  # tables of the mass spectra
        chain, n = _chain(card, lines, Path(folder))
    bare = _bare(lines)
    start = time.process_time()
    generate_pairs(card, N_TOY, np.random.default_rng(1))
    toy = time.process_time() - start
    yield {
        "claim": f"whole chain with file over bare Pythia, pp, {N_EVENTS} events, CPU",
        "measured": chain / bare,
        "goal": 1.2,
        "higher": False,
    }
    yield {
        "claim": f"weighted dimuons per pp event, {modes} modes, {DECAYS} decays of each meson",
        "measured": n / N_EVENTS,
        "goal": 3.0,
        "unit": "",
    }
    yield {
        "claim": "1e6 toy dimuons (arrays) over the time of 1e4 Pythia events, CPU",
        "measured": toy / bare,
        "goal": 1.0,
        "higher": False,
    }
    yield _processes(card)
