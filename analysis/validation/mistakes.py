"""Mistakes that a person makes, each planted into one experiment that runs as ``gammastar init`` proposes.

A row says whether the run refused (2), an alarm fired (1) or nothing was said (0), which alarm, and what the
mistake does to the photons that count as measured. Those that move them by less than 3 % are harmless.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from validation._rows import row
from validation.foreign_experiments import EXPERIMENTS, Experiment, make

import gammastar as gs
from gammastar.core.errors import GammastarError
from gammastar.results.start import begin

HARMLESS, MOST_SILENT = 0.03, 5
AXES = {
    "mass": "{ bins = 10, low = 0.22, high = 1.22 }",
    "pt": "[0.0, 0.5, 4.0]",
}  # coarser than proposed: fast
Columns = dict[str, Any]
LEGS, TRUE = ("muons_px", "muons_py", "muons_pz"), ("gen_mass", "gen_pt", "gen_e")


def experiment() -> Experiment:
    """Return 158 GeV protons on tungsten: 4000 muon pairs over a symmetric background, GeV."""
    it = EXPERIMENTS["sparse"]()
    changes = {"interactions": 1.6e9, "simulated": 3.0, "efficiency": (0.95, 0.95), "bend": 0.0, "unit": 1.0}
    return replace(it, **changes, resolution=(0.03, 0.1), singles=(0.5, 0.45, 12.0))


@dataclass
class Files:
    """What a person hands over: columns of data and simulation, and the texts of steering and schema."""

    data: Columns
    simulation: Columns
    steering: str
    schema: str

    def key(self, name: str, value: object) -> None:
        """Set a key of the steering."""
        self.steering, n = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value} ", self.steering)
        if n != 1:
            msg = f"the steering has {n} keys {name}"
            raise ValueError(msg)


Mistake = Callable[[Files], object]


def chosen(columns: Columns, rows: Any) -> Columns:
    """Return these rows of a tree."""
    return {name: column[rows] for name, column in columns.items()}


def legs(columns: Columns, of: Any) -> Columns:
    """Return these leptons of each row."""
    return {name: column[of] if name.startswith("muons_") else column for name, column in columns.items()}


def scaled(columns: Columns, factor: float, names: tuple[str, ...] = LEGS) -> Columns:
    """Return columns times a factor."""
    return columns | {name: columns[name] * factor for name in names}


def momentum(columns: Columns) -> Any:
    """Return momenta."""
    return np.sqrt(sum(columns[name] ** 2 for name in LEGS))


def drawn(columns: Columns, share: float) -> Any:
    """Return which rows are in a random part."""
    return np.random.default_rng(7).random(len(columns["event"])) < share


def with_weight(columns: Columns, weight: Any, name: str = "weight") -> Columns:
    """Return columns with one number per event."""
    return columns | {name: np.asarray(weight, dtype=np.float64)}


def twice(columns: Columns) -> Columns:
    """Return every event with each of its leptons twice."""
    return {
        name: ak.concatenate([column, column], axis=1) if name.startswith("muons_") else column
        for name, column in columns.items()
    }


def copied(columns: Columns) -> Columns:
    """Return all events twice, the copies under new numbers."""
    both = {name: ak.concatenate([column, column]) for name, column in columns.items()}
    n = len(columns["event"])
    return both | {"event": np.concatenate([columns["event"], columns["event"] + n])}


def charges(columns: Columns) -> tuple[Any, Any]:
    """Return numbers of leptons, and sums of charges."""
    return ak.num(columns["muons_q"]), ak.sum(columns["muons_q"], axis=1)


def rotated(columns: Columns, angle: float) -> Columns:
    """Return momenta turned about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    x, z = columns["muons_px"], columns["muons_pz"]
    return columns | {"muons_px": c * x + s * z, "muons_pz": c * z - s * x}


def measured_mass(columns: Columns) -> Any:
    """Return the mass of the two leptons of each row, 0 where there are not two."""
    n = np.asarray(ak.num(columns["muons_q"]) == 2)
    two = {name: ak.to_numpy(columns[name][n]) for name in LEGS}
    p = np.stack(list(two.values()), axis=-1)
    energy = np.sqrt((p**2).sum(axis=-1) + 0.1056583755**2)
    mass = np.zeros(len(n))
    mass[n] = np.sqrt(np.maximum(energy.sum(axis=1) ** 2 - (p.sum(axis=1) ** 2).sum(axis=1), 0))
    return mass


def _said(name: str, value: object) -> Mistake:
    return lambda files: files.key(name, value)


def _weighted(which: str, weight: Callable[[Columns], Any], key: str = "") -> Mistake:
    """Give one of the two a branch "weight"; `key` names it in the schema."""

    def apply(files: Files) -> None:
        n = len(files.data["event"])
        both = {"data": np.ones(n), "simulation": np.ones(len(files.simulation["event"]))}
        both[which] = weight(getattr(files, which))
        for name, values in both.items():
            setattr(files, name, with_weight(getattr(files, name), values))
        files.schema = f'{key} = "weight"\n' + files.schema if key else files.schema

    return apply


def opposite(columns: Columns) -> Any:
    """Return which events are no single like-sign pair."""
    n, q = charges(columns)
    return ~((n == 2) & (q != 0))


def prescaled(columns: Columns) -> Columns:
    """Return events of which one in twenty of the ++ pairs is kept."""
    n, q = charges(columns)
    return chosen(columns, ~((n == 2) & (q > 0)) | drawn(columns, 0.05))


def leading(columns: Columns) -> Any:
    """Return the largest momentum of each event."""
    return ak.to_numpy(ak.fill_none(ak.max(momentum(columns), axis=1), 0.0))


def shuffled(columns: Columns) -> Columns:
    """Return rows with the truth of other rows."""
    order = np.random.default_rng(3).permutation(len(columns["event"]))
    return columns | {name: columns[name][order] for name in TRUE}


def mixed(columns: Columns) -> Columns:
    """Return leptons in other events."""
    flat, n = ak.flatten(columns["muons_q"]), ak.num(columns["muons_q"])
    order = np.random.default_rng(4).permutation(len(flat))
    return columns | {k: ak.unflatten(ak.flatten(columns[k])[order], n) for k in (*LEGS, "muons_q")}


def smeared_twice(columns: Columns) -> Columns:
    """Return momenta that fluctuate by 6 % more."""
    n = ak.num(columns["muons_q"])
    factor = 1 + 0.06 * np.random.default_rng(5).normal(size=int(ak.sum(n)))
    return columns | {k: ak.unflatten(ak.flatten(columns[k]) * factor, n) for k in LEGS}


def own_truth(columns: Columns) -> Columns:
    """Return measured masses as truth."""
    mass = measured_mass(columns)
    return columns | {"gen_mass": np.where(mass > 0, mass, columns["gen_mass"])}


def renamed(columns: Columns, one: str, other: str) -> Columns:
    """Return two columns swapped."""
    return columns | {one: columns[other], other: columns[one]}


def lognormal(columns: Columns) -> Any:
    """Return squared weights that scatter."""
    return np.exp(3.0 * np.random.default_rng(6).normal(size=len(columns["event"])))


def every_tenth(files: Files) -> None:
    """Keep every tenth event, whose prescale a branch says that no schema names."""
    kept = drawn(files.data, 0.1)
    files.data = with_weight(chosen(files.data, kept), np.full(kept.sum(), 10), "prescale")


def protons_over(factor: float) -> Mistake:
    """Return what divides the protons on target."""

    def apply(files: Files) -> None:
        number = re.findall(r"(?m)^pot = ([0-9.e+]+)", files.steering)[0]
        files.key("pot", float(number) / factor)

    return apply


def electrons(files: Files) -> None:
    """Call muons electrons."""
    files.schema = files.schema.replace('lepton = "mu"', 'lepton = "e"')
    files.key("lepton", '"e"')


def in_mev(files: Files) -> None:
    """Call GeV MeV."""
    files.schema = re.sub(r"unit = \S+", "unit = 1e-3", files.schema)


def _data(change: Callable[[Columns], Columns]) -> Mistake:
    return lambda files: setattr(files, "data", change(files.data))


def _simulation(change: Callable[[Columns], Columns]) -> Mistake:
    return lambda files: setattr(files, "simulation", change(files.simulation))


def of_data() -> dict[str, Mistake]:
    """Return mistakes in the data by what a person did."""
    return {
        "all charges swapped": _data(lambda c: scaled(c, -1, ("muons_q",))),
        "all charges +1": _data(lambda c: c | {"muons_q": abs(c["muons_q"])}),
        "charges 0 and 1": _data(lambda c: c | {"muons_q": (c["muons_q"] + 1) // 2}),
        "PDG codes as charges": _data(lambda c: scaled(c, -13, ("muons_q",))),
        "data in MeV read as GeV": _data(lambda c: scaled(c, 1e3)),
        "p_x and p_y swapped": _data(lambda c: renamed(c, "muons_px", "muons_py")),
        "p_x and p_z swapped": _data(lambda c: renamed(c, "muons_px", "muons_pz")),
        "p_z against the beam": _data(lambda c: scaled(c, -1.0, ("muons_pz",))),
        "beam at 20 mrad": _data(lambda c: rotated(c, 0.02)),
        "momenta of the data 5 % high": _data(lambda c: scaled(c, 1.05)),
        "weights 1/efficiency, and unfolded": _weighted(
            "data", lambda c: np.full(len(c["event"]), 2.5), "weight"
        ),
        "event number as weight": _weighted("data", lambda c: c["event"], "weight"),
        "a weight left out": _weighted("data", lambda c: np.where(leading(c) > 25, 10.0, 1.0)),
        "prescale left out": every_tenth,
        "every second event lost, pot of all": _data(lambda c: chosen(c, drawn(c, 0.5))),
        "data cut at 12 GeV, simulation not": _data(lambda c: legs(c, momentum(c) > 12)),
        "like-sign pairs skimmed away": _data(lambda c: chosen(c, opposite(c))),
        "++ pairs prescaled by 20": _data(prescaled),
        "each lepton stored twice": _data(twice),
        "events copied under new numbers": _data(copied),
        "mixed events as data": _data(mixed),
        "events with three leptons and more": _data(lambda c: chosen(c, ak.num(c["muons_q"]) > 2)),
        "simulation taken as data": lambda files: setattr(
            files, "data", {k: v for k, v in files.simulation.items() if k not in TRUE}
        ),
    }


def of_simulation() -> dict[str, Mistake]:
    """Return mistakes in the simulation."""
    return {
        "simulation in MeV": _simulation(lambda c: scaled(c, 1e3)),
        "truth in MeV": _simulation(lambda c: scaled(c, 1e3, TRUE)),
        "p_x and p_z swapped in the simulation": _simulation(lambda c: renamed(c, "muons_px", "muons_pz")),
        "momenta of the simulation 5 % high": _simulation(lambda c: scaled(c, 1.05)),
        "momenta of the simulation smeared twice": _simulation(smeared_twice),
        "data taken as simulation": lambda files: setattr(files, "simulation", files.data),
        "truth of other events": _simulation(shuffled),
        "measured mass as truth": _simulation(own_truth),
        "mass and p_T of the truth swapped": _simulation(lambda c: renamed(c, "gen_mass", "gen_pt")),
        "mass² as truth": _simulation(lambda c: c | {"gen_mass": c["gen_mass"] ** 2}),
        "energy of one lepton as truth": _simulation(lambda c: scaled(c, 0.5, ("gen_e",))),
        "simulation of seen pairs alone": _simulation(lambda c: chosen(c, ak.num(c["muons_q"]) == 2)),
        "simulation of photons with a seen lepton": _simulation(
            lambda c: chosen(c, ak.num(c["muons_q"]) > 0)
        ),
        "efficiency of 0.8 applied twice": _simulation(
            lambda c: legs(c, c["muons_q"] * 0 + drawn(c, 0.64) == 1)
        ),
        "weights squared": _weighted("simulation", lognormal, "weight"),
        "simulation cut at 12 GeV, data not": _simulation(lambda c: legs(c, momentum(c) > 12)),
        "truth cut at 0.9 GeV": _simulation(lambda c: chosen(c, c["gen_mass"] < 0.9)),
        "truncated file": _simulation(lambda c: c | {"truncated": np.zeros(len(c["event"]))}),
    }


def of_steering() -> dict[str, Mistake]:
    """Return mistakes in steering and schema."""
    return {
        "data in GeV read as MeV": in_mev,
        "electron mass for muons": electrons,
        "beam energy 15.8": _said("beam_energy", 15.8),
        "beam energy 1580": _said("beam_energy", 1580.0),
        "pot in units of 1e12": protons_over(1e12),
        "pot per spill of 1000": protons_over(1e3),
        "thickness in cm": _said("thickness", 1.0),
        "R = 2 by hand": _said("r_factor", 2.0),
        "axes end at 0.6 GeV": _said("mass", "{ bins = 4, low = 0.3, high = 0.6 }"),
        "energy axis ends at 40 GeV": _said("energy", "[0.0, 20.0, 30.0, 40.0]"),
    }


def _written(path: Path, columns: Columns) -> None:
    with uproot.recreate(path, compression=None) as file:
        file["tree"] = {name: column for name, column in columns.items() if name != "truncated"}
    if "truncated" in columns:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size * 2 // 3)


def _read(path: Path) -> Columns:
    with uproot.open(path) as file:
        columns = file["tree"].arrays()
    return {name: columns[name] for name in columns.fields if not name.startswith("n")}


def start(folder: Path) -> tuple[Files, Mapping[str, Any]]:
    """Write the experiment; return what a person hands over without a mistake, and the truth."""
    it = experiment()
    truth = make(it, 77, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        paths = {"source": folder / "data.root", "simulation": folder / "simulation.root"}
        list(begin(folder, **paths, lepton=it.lepton, replace=True))
    a, z, thickness = it.target
    values = {
        "beam_energy": it.beam,
        "target_a": a,
        "target_z": z,
        "thickness": thickness,
        "pot": truth["protons"],
    }
    steering, schema = (
        (folder / f"{name}.toml").read_text(encoding="utf-8") for name in ("steering", "schema")
    )
    steering = steering.split("[flow]")[0].replace("mock = false", "mock = true")
    for key, value in values.items():
        steering = re.sub(rf'(?m)^{key} = "\?"', f"{key} = {float(value)!r}", steering)
    for axis, edges in AXES.items():
        steering = re.sub(rf"(?m)^{axis} = [^#\n]*", f"{axis} = {edges} ", steering)
    schema = schema if "unit =" in schema else "unit = 1.0\n" + schema
    return Files(_read(folder / "data.root"), _read(folder / "simulation.root"), steering, schema), truth


def run(files: Files, truth: Mapping[str, Any], folder: Path) -> tuple[int, str, float]:
    """Return 2 where the run refuses, 1 with alarms, else 0; what is said; photons over the truth."""
    folder.mkdir()
    for name in ("data", "simulation"):
        _written(folder / f"{name}.root", getattr(files, name))
    (folder / "schema.toml").write_text(files.schema, encoding="utf-8")
    (folder / "steering.toml").write_text(files.steering, encoding="utf-8")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = gs.run(folder / "steering.toml", output=folder / "results")
    except GammastarError as error:
        return 2, " ".join(str(error).split()), np.nan
    spectrum, domain = found.spectrum, np.asarray(found.spectrum.domain)
    edges = [np.asarray(axis.edges) for axis in spectrum.hist.axes]
    columns = [np.asarray(truth[key], dtype=np.float64) for key in ("mass", "pt", "energy")]
    count = np.histogramdd(columns, edges)[0][domain].sum() * float(truth["photons"]) / len(truth["mass"])
    ratio = spectrum.values[domain].sum() * float(truth["protons"]) / max(count, 1e-300)
    alarms = [row["name"] for row in found.manifest["checks"] if row["verdict"] == "alarm"]
    return int(bool(alarms)), "; ".join(alarms), float(ratio)


def rows(*, names: tuple[str, ...] = ()) -> Iterator[dict]:
    """Yield a row per mistake, and the number of harmful ones of which nothing was said."""
    with tempfile.TemporaryDirectory() as scratch:
        first, truth = start(Path(scratch) / "plain")
        plain, words, right = run(replace(first), truth, Path(scratch) / "right")
        yield row(
            "mistakes: none, alarms", plain, 0, 0, f"{words or 'no alarm'}; photons over truth {right:.3f}"
        )
        silent = []
        for k, (name, mistake) in enumerate((of_data() | of_simulation() | of_steering()).items()):
            if names and name not in names:
                continue
            files = replace(first)
            mistake(files)
            loud, words, ratio = run(files, truth, Path(scratch) / str(k))
            harmless = abs(ratio / right - 1) < HARMLESS
            if not loud and not harmless:
                silent.append(name)
            effect = "refused" if loud == 2 else f"photons {ratio / right:.3f} of those without it"
            what = f"{effect}; {words[:160] or ('harmless' if harmless else 'nothing said')}"
            yield row(f"mistake: {name}", loud, 1, 1, what) | {"measured": True}
        if not names:
            yield row("mistakes: harmful and silent", len(silent), 0, MOST_SILENT, ", ".join(silent))
