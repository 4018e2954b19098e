"""The mock side by side with bare Pythia: cost of the whole chain, dimuons per event, speed of the toy."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gammastar.core.data import data_path
from gammastar.simulate import generate_pairs, load_card, mode_rates, pythia
from gammastar.simulate.engines import PythiaEngine
from gammastar.simulate.pool import Pool
from gammastar.store.events import write_tree

N_EVENTS, N_TOY = 10_000, 1_000_000
DECAYS = 2  # of each meson and mode


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
    pythia.bare_rate(lines, N_EVENTS, 1)
    return time.process_time() - start


def rows() -> Iterator[dict]:
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
