"""Data with trigger word, runs, prescale, scale factors and momentum scale, whose truth is known.

The generator is that of `foreign_experiments`, of which no line is the package's. The data lose leptons that
the simulation keeps, by a table of the momentum that the file of correctionlib has; the error of the table
and the momentum scale are drawn. Half the interactions are in bad runs, where each event stands twice; a good
run is prescaled by 4.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from validation._rows import row as _row
from validation.foreign_experiments import EXPERIMENTS, Experiment, measured_leptons, photons, tracks

import gammastar as gs

Array = NDArray[np.float64]
SHARES = {101: 0.2, 102: 0.15, 103: 0.15, 104: 0.3, 105: 0.2}  # of the interactions
GOOD, PRESCALED, PRESCALE = (101, 102, 103), 102, 4
TRIGGER, FIRED = np.uint64(1 << 60), 0.9
EDGES, FACTORS, ERROR = (0.0, 25.0, 60.0, 1e4), (0.85, 0.95, 0.98), 0.01
SCALE = 0.002  # standard deviation
SEEDS = range(301, 306)
SCHEMA = """tree = "tree"
layout = "jagged"
lepton = "mu"
charge = "muons_q"
event = ["run", "event"]
run = "run"
event_columns = { L0 = "L0" }
kinematics = { px = "muons_px", py = "muons_py", pz = "muons_pz" }

[truth]
mass = "gen_mass"
pt = "gen_pt"
energy = "gen_e"
"""


def experiment(size: float = 1.0) -> Experiment:
    """Return the experiment of small angles, whose simulation has other slopes, or one of another size."""
    it = EXPERIMENTS["slopes"]()
    return replace(it, simulated=6.0, interactions=size * it.interactions, events=int(size * it.events))


def _tree(path: Path, n: int, found: tuple, columns: Mapping[str, NDArray]) -> None:
    event, charge, p = found
    order = np.argsort(event, kind="stable")
    counts = np.bincount(event, minlength=n)
    lists = {"px": p[order, 0], "py": p[order, 1], "pz": p[order, 2], "q": charge[order].astype(np.int32)}
    rows = dict(columns) | {f"muons_{key}": ak.unflatten(column, counts) for key, column in lists.items()}
    with uproot.recreate(path) as file:
        file["tree"] = rows


def _kept(rng: np.random.Generator, found: tuple) -> tuple:
    """Lose leptons as the table of factors says, and scale the momenta of the rest."""
    event, charge, p = found
    size = np.linalg.norm(p, axis=1)
    off, scale = rng.normal(0, (ERROR, SCALE))
    chance = np.array(FACTORS)[np.searchsorted(EDGES, size, side="right") - 1] + off
    keep = rng.random(len(p)) < chance
    return event[keep], charge[keep], (1 + scale) * p[keep]


def correction(path: Path) -> None:
    """Write the table of factors as a file of correctionlib, with ways up and down."""
    ways = {"nominal": 0.0, "up": ERROR, "down": -ERROR}

    def table(shift: float) -> dict:
        content = [factor + shift for factor in FACTORS]
        return {
            "nodetype": "binning",
            "input": "p",
            "edges": list(EDGES),
            "content": content,
            "flow": "error",
        }

    data = [{"key": way, "value": table(shift)} for way, shift in ways.items()]
    one = {
        "name": "muon",
        "version": 1,
        "inputs": [{"name": "way", "type": "string"}, {"name": "p", "type": "real"}],
        "output": {"name": "factor", "type": "real"},
        "data": {"nodetype": "category", "input": "way", "content": data},
    }
    path.write_text(json.dumps({"schema_version": 2, "corrections": [one]}), encoding="utf-8")


def make(folder: Path, seed: int, *, sample: int = 1_500_000) -> dict[str, Array]:
    """Write data, simulation, tables and steering; return the photons of the truth."""
    it = experiment()
    data, mc, true_rng = (np.random.default_rng([seed, k]) for k in range(3))
    folder.mkdir(parents=True, exist_ok=True)
    per_interaction = sum(o.number for o in it.truth)
    n, n_photons, found = measured_leptons(data, it)
    found = _kept(data, found)
    run = data.choice(list(SHARES), n, p=list(SHARES.values()))
    written = (run != PRESCALED) | (data.random(n) < 1 / PRESCALE)
    bad = ~np.isin(run, GOOD)
    source = np.concatenate([np.flatnonzero(written), np.flatnonzero(written & bad)])  # bad runs twice
    place = [np.full(n, -1), np.full(n, -1)]
    place[0][source[: written.sum()]] = np.arange(written.sum())
    place[1][source[written.sum() :]] = written.sum() + np.arange((written & bad).sum())
    both = [(where[found[0]], found[1], found[2]) for where in place]
    both = [tuple(column[one[0] >= 0] for column in one) for one in both]
    fired = data.random(n) < FIRED
    word = np.where(fired, TRIGGER, np.uint64(0)) | data.integers(0, 8, n).astype(np.uint64)
    columns = {"run": run[source].astype(np.int32), "event": np.arange(len(source)), "L0": word[source]}
    joined = tuple(np.concatenate(part) for part in zip(*both, strict=True))
    _tree(folder / "data.root", len(source), joined, columns)
    simulated = photons(mc, it, it.prior, int(it.simulated * n_photons))
    m = len(simulated)
    word = np.where(mc.random(m) < FIRED, TRIGGER, np.uint64(0))
    columns = {"run": np.ones(m, np.int32), "event": np.arange(m), "L0": word}
    columns |= {
        "gen_mass": simulated[:, 0],
        "gen_pt": np.hypot(*simulated[:, 2:4].T),
        "gen_e": simulated[:, 1],
    }
    _tree(folder / "simulation.root", m, tracks(mc, it, simulated, np.arange(m))[0], columns)
    protons = it.interactions / -np.expm1(-it.target[2])
    _steering(folder, it, protons)
    true = photons(true_rng, it, it.truth, sample)
    seen = tracks(true_rng, it, true, np.arange(len(true)))[1]
    rate = protons * per_interaction * -np.expm1(-it.target[2]) * len(true) / sample
    truth = {"mass": true[:, 0], "pt": np.hypot(*true[:, 2:4].T), "energy": true[:, 1], "seen": seen}
    share = sum(SHARES[good] for good in GOOD)
    return truth | {"protons": np.array(protons * share), "photons": np.array(rate * share)}


def _steering(folder: Path, it: Experiment, protons: float) -> None:
    """Write tables, and the steering that init proposes with the sections of these data."""
    from validation.foreign import ASKED, _proposed

    correction(folder / "muons.json")
    (folder / "good.txt").write_text(f"{GOOD[0]}-{GOOD[-1]}\n", encoding="utf-8")
    lines = [
        f"{run},{float(protons * share)!r},{PRESCALE if run == PRESCALED else 1}"
        for run, share in SHARES.items()
    ]
    (folder / "runs.csv").write_text("run,pot,prescale\n" + "\n".join(lines) + "\n", encoding="utf-8")
    values = dict(zip(ASKED, (it.beam, *it.target, protons), strict=True))
    _proposed(folder, it.lepton, values)
    (folder / "schema.toml").write_text(SCHEMA, encoding="utf-8")
    text = (folder / "steering.toml").read_text(encoding="utf-8")
    pot = next(line for line in text.splitlines() if line.startswith("pot = "))
    text = text.replace(pot, 'pot = "runs"')
    more = f"""
[read.runs]
good = "good.txt"
table = "runs.csv"
pot = "pot"
prescale = "prescale"

[select.event]
L0 = {{ all = {int(TRIGGER):#x} }}

[[select.scale_factors]]
file = "muons.json"
correction = "muon"
inputs = {{ way = "nominal", p = "momentum" }}
varied = "way"
variations = {{ "muon reconstruction" = ["up", "down"] }}
"""
    (folder / "steering.toml").write_text(text + more, encoding="utf-8")
    said = tomllib.loads((folder / "steering.toml").read_text(encoding="utf-8"))
    sources = f"momentum_scale = {SCALE:g}\n"
    text = (folder / "steering.toml").read_text(encoding="utf-8")
    if "systematics" in said:
        text = text.replace("[systematics]\n", f"[systematics]\n{sources}")
    else:
        text += f"\n[systematics]\n{sources}"
    (folder / "steering.toml").write_text(text, encoding="utf-8")


def compared(folder: Path, truth: Mapping[str, Array]) -> tuple[Any, gs.Results]:
    """Run it; return its pulls in the measured domain, and the results."""
    from validation.foreign import _pulls

    with contextlib.redirect_stdout(io.StringIO()):
        found = gs.run(folder / "steering.toml", output=folder / "results")
    return _pulls(found, truth), found


def rows(*, quick: bool) -> Iterator[dict]:
    """Yield pulls of the total and of mass bins."""
    totals, bins = [], []
    for seed in SEEDS[:2] if quick else SEEDS:
        with tempfile.TemporaryDirectory() as scratch:
            pulls, _ = compared(Path(scratch), make(Path(scratch), seed))
        totals.append(pulls.total)
        bins.append(pulls.bins)
    n, source = len(totals), "trigger word, runs, prescale, scale factors, momentum scale; own generator"
    yield _row("full example: mean pull of the total", np.mean(totals), 0, 3 / np.sqrt(n), source)
    rms = float(np.sqrt(np.mean(np.concatenate(bins) ** 2)))
    yield _row("full example: rms pull of mass bins", rms, 1.025, 0.225, source)
    yield _row("full example: largest pull of a mass bin", np.abs(np.concatenate(bins)).max(), 0, 4, source)
