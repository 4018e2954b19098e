"""Steering files with one mistake each, written by hand.

`BASE` is a whole analysis of the shipped MOCK files, small enough to run in seconds. A mistake changes some
of its keys (None removes one) and may bring files of its own; `says` is what a message has to name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BASE", "MISTAKES", "Mistake", "to_toml", "with_changes"]

SCHEMA = """tree = "events"
layout = "jagged"
lepton = "mu"
charge = "Muon_charge"
event = "event"
weight = "weight"
prescale = "prescale"

[kinematics]
px = "Muon_px"
py = "Muon_py"
pz = "Muon_pz"
"""
TRUTH = """
[truth]
mass = "gen_mll"
pt = "gen_qT"
energy = "gen_E"
process = "gen_process"
"""
DUMP = """name = "A dump"
source = "none: an illustration"
beam_energy = BEAM
pot = 1e18
accept_on = "daughters"

[target]
a = 63.55
z = 29
thickness = inf
position = [0.0, 0.0, 0.0]

[volume]
kind = "frustum"
z0 = 20.0
z1 = 60.0
half_x0 = 0.5
half_y0 = 0.5
half_x1 = 1.5
half_y1 = 1.5

[[planes]]
name = "tracker"
z = 65.0
half_x = 2.0
half_y = 2.0

[efficiency]
STATES

[sources]
beam_energy = "illustration"
pot = "illustration"
target = "illustration"
volume = "illustration"
planes = "illustration"
efficiency = "illustration"
"""
MODEL = """import numpy as np
from gammastar import predict
number = 3.0
class Broken(predict.Model):
    def __init__(self, width):
        self.width = width
class Plain(predict.Model):
    def ctau(self, mass, coupling):
        return np.full_like(np.asarray(coupling, float), 10.0)
    def branching(self, mass):
        return {"mumu": 1.0}
plain = Plain()
"""
CUTS = """import awkward as ak
def fails(events):
    return events.no_such_field > 0
def numbers(events):
    return [1.0] * len(events)
def nothing(events):
    return events.weight < 0
def leaves(events):
    raise SystemExit(0)
"""


def dump(beam: str = "400.0", states: str = "ee = 1.0\nmumu = 1.0", **changes: str) -> str:
    """Return a detector file."""
    text = DUMP.replace("BEAM", beam).replace("STATES", states)
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


BASE: dict[str, Any] = {
    "analysis": {"name": "trial", "seed": 1, "mock": True},
    "read": {"files": ["mock/na60_data.root"], "response": ["mock/na60_mc.root"], "schema": "schema.toml"},
    "select": {
        "mass": {"bins": 9, "low": 0.2125, "high": 1.1125},
        "pt": [0.0, 0.5, 6.0],
        "energy": [0.2, 6.0, 20.0, 400.0],
    },
    "subtract": {"r_factor": 1.162, "r_factor_sigma": 0.01, "weights": "signed"},
    "unfold": {"method": "iterative", "n_iterations": 3, "n_replicas": 5},
    "spectrum": {
        "beam_energy": 400.0,
        "target_a": 207.2,
        "target_z": 82.0,
        "thickness": 0.01,
        "pot": 1.1988e11,
    },
    "predict": {"sampler": "histogram", "n_masses": 5, "n_sample": 1000},
    "accept": {
        "detectors": ["na62_dump"],
        "target_scaling": "per_interaction",
        "acceptance_masses": [0.5],
    },
    "infer": {"coupling": [1e-9, 1e-3], "n_couplings": 41, "min_effective": 3.0, "max_patches": 10},
}


@dataclass(frozen=True)
class Mistake:
    """One wrong steering file: changes of `BASE` by ``section.key``, and further files."""

    what: str
    changes: dict[str, Any] = field(repr=False)
    says: str
    files: dict[str, str | bytes] = field(default_factory=dict, repr=False)


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base with changes; a key is ``section`` or ``section.key``."""
    result = {section: dict(table) for section, table in BASE.items()}
    for place, value in changes.items():
        section, _, key = place.partition(".")
        if not key and value is None:
            del result[section]
        elif not key:
            result[section] = value
        elif value is None:
            del result[section][key]
        else:
            result.setdefault(section, {})[key] = value
    return result


def to_toml(tables: dict[str, Any]) -> str:
    """Return the tables of a steering file as TOML."""

    def value(v: Any) -> str:
        if isinstance(v, dict):
            return "{ " + ", ".join(f"{json.dumps(k)} = {value(x)}" for k, x in v.items()) + " }"
        if isinstance(v, list):
            return "[" + ", ".join(map(value, v)) + "]"
        return "inf" if v == float("inf") else json.dumps(v)

    parts = []
    for section, table in tables.items():
        parts.append(f"[{section}]" if isinstance(table, dict) else f"{section} = {value(table)}")
        parts += [f"{key} = {value(v)}" for key, v in table.items()] if isinstance(table, dict) else []
    return "\n".join(parts) + "\n"


NO_TRUTH = {"plain.toml": SCHEMA}
WHOLE = SCHEMA + TRUTH

MISTAKES = (
    # the file as a whole
    Mistake("no name", {"analysis": {}}, "name"),
    Mistake("a slash in the name", {"analysis.name": "a/b"}, "name"),
    Mistake("a negative seed", {"analysis.seed": -1}, "seed"),
    Mistake("a section with a typo", {"unfolding": {"n_iterations": 4}}, "unfold"),
    Mistake("a key with a typo", {"unfold.n_iteration": 4}, "n_iterations"),
    Mistake("a key in another section", {"select.n_replicas": 4}, "n_replicas"),
    Mistake("a section that is a number", {"unfold": 3}, "unfold"),
    # what a section needs
    Mistake("[unfold] without [subtract]", {"subtract": None}, "subtract"),
    Mistake("[subtract] without [select]", {"select": None}, "select"),
    Mistake("[spectrum] without [unfold]", {"unfold": None}, "unfold"),
    Mistake("[predict] without [spectrum]", {"spectrum": None}, "spectrum"),
    Mistake("[accept] without [predict]", {"predict": None}, "predict"),
    Mistake("[infer] without [accept]", {"accept": None}, "accept"),
    Mistake("[unfold] without response", {"read.response": None}, "response"),
    Mistake("sampler flow without [flow]", {"predict.sampler": "flow"}, "flow"),
    Mistake(
        "detectors of millicharge alone",
        {"accept.detectors": None, "accept.millicharge_detectors": ["mcp_bars"]},
        "millicharge",
    ),
    # [read]
    Mistake("a data file that is not there", {"read.files": ["mock/na60_dat.root"]}, "na60_dat.root"),
    Mistake("a pattern without a file", {"read.files": ["nothing/*.root"]}, "nothing"),
    Mistake("no data file", {"read.files": []}, "read.files"),
    Mistake("a response that is not there", {"read.response": ["mc.root"]}, "mc.root"),
    Mistake("a response without truth", {"read.response": ["mock/na60_data.root"]}, "gen_mll"),
    Mistake("a schema without truth", {"read.schema": "plain.toml"}, "truth", NO_TRUTH),
    Mistake(
        "a truth branch with a typo",
        {"read.schema": "typo.toml"},
        "gen_mass",
        {"typo.toml": WHOLE.replace("gen_mll", "gen_mass")},
    ),
    Mistake(
        "truth from a list",
        {"read.schema": "list.toml"},
        "Muon_px",
        {"list.toml": WHOLE.replace("gen_mll", "Muon_px")},
    ),
    Mistake("a schema that is not there", {"read.schema": "no.toml"}, "no.toml"),
    Mistake("a shipped schema with a typo", {"read.schema": "na60_muons"}, "na60_muon"),
    Mistake("the schema of other ntuples", {"read.schema": "nanoaod_muon"}, "Events"),
    Mistake(
        "a schema with a branch that is not there",
        {"read.schema": "b.toml"},
        "Muon_pxx",
        {"b.toml": WHOLE.replace('"Muon_px"', '"Muon_pxx"')},
    ),
    Mistake(
        "a schema of electrons, [spectrum] of muons",
        {"read.schema": "e.toml"},
        "lepton",
        {"e.toml": WHOLE.replace('"mu"', '"e"')},
    ),
    Mistake(
        "a schema in MeV for GeV", {"read.schema": "mev.toml"}, "unit", {"mev.toml": "unit = 1e-3\n" + WHOLE}
    ),
    Mistake("a schema as text file", {"read.schema": "t.toml"}, "t.toml", {"t.toml": "px is Muon_px\n"}),
    Mistake(
        "a schema from Python without the name",
        {"read.schema": "s.py:schema"},
        "schema",
        {"s.py": "other = 1\n"},
    ),
    Mistake(
        "a data file that is text",
        {"read.files": ["data.root"]},
        "data.root",
        {"data.root": "no ROOT file\n"},
    ),
    Mistake("a data file that is empty", {"read.files": ["empty.root"]}, "empty.root", {"empty.root": b""}),
    Mistake("a fileset that is no JSON", {"read.files": ["set.json"]}, "set.json", {"set.json": "{"}),
    Mistake(
        "a fileset of a missing file",
        {"read.files": ["set.json"]},
        "gone.root",
        {"set.json": '{"data": {"files": {"gone.root": "events"}}}'},
    ),
    Mistake("a step of words", {"read.step": "much"}, "step"),
    # [select]
    Mistake("a cut on a column that is not there", {"select.lepton": {"chi2": [0.0, 3.0]}}, "chi2"),
    Mistake("a pair cut on a column that is not there", {"select.pair": {"vertex": [0.0, 3.0]}}, "vertex"),
    Mistake("a cut that is turned around", {"select.lepton": {"pt": [5.0, 1.0]}}, "pt"),
    Mistake("a cut that nothing passes", {"select.lepton": {"pt": [500.0, 600.0]}}, "pt"),
    Mistake("a cut file that is not there", {"select.event_functions": ["cuts.py:good"]}, "cuts.py"),
    Mistake(
        "a cut function that is not there",
        {"select.event_functions": ["cuts.py:good"]},
        "good",
        {"cuts.py": CUTS},
    ),
    Mistake(
        "a cut function that fails", {"select.event_functions": ["cuts.py:fails"]}, "fails", {"cuts.py": CUTS}
    ),
    Mistake(
        "a cut function that returns numbers",
        {"select.event_functions": ["cuts.py:numbers"]},
        "numbers",
        {"cuts.py": CUTS},
    ),
    Mistake(
        "a cut function that keeps nothing",
        {"select.event_functions": ["cuts.py:nothing"]},
        "nothing",
        {"cuts.py": CUTS},
    ),
    Mistake(
        "a cut file with a syntax error",
        {"select.event_functions": ["cuts.py:good"]},
        "cuts.py",
        {"cuts.py": "def good(:\n"},
    ),
    Mistake("mass edges that fall", {"select.mass": [1.1, 0.2]}, "mass"),
    Mistake("a mass axis without low", {"select.mass": {"bins": 9, "high": 1.0}}, "mass"),
    Mistake("a mass axis with words", {"select.mass": {"bins": 9, "low": "a", "high": 1.0}}, "mass"),
    Mistake("a mass axis away from the data", {"select.mass": [20.0, 30.0]}, "mass"),
    # [subtract], [unfold]
    Mistake("a method that is none", {"subtract.method": "B7"}, "method"),
    Mistake("a negative R", {"subtract.r_factor": -1.0}, "r_factor"),
    Mistake("R for a plain sum", {"subtract.method": "sum"}, "r_factor"),
    Mistake(
        "a charm template that is not there",
        {
            "subtract.weights": "posterior",
            "subtract.charm": {"template": ["charm.root"], "offset": ["dz"], "edges": [0.0, 1.0]},
        },
        "charm.root",
    ),
    Mistake(
        "a charm offset that is no column",
        {
            "subtract.weights": "posterior",
            "subtract.charm": {"template": "simulation", "offset": ["dz"], "edges": [0.0, 1.0]},
        },
        "dz",
    ),
    Mistake(
        "a correction from a file that is not there",
        {
            "subtract.weights": "posterior",
            "subtract.corrections": [{"name": "pile-up", "files": ["p.root"], "sigma": 1.0, "pairs": 10.0}],
        },
        "p.root",
    ),
    Mistake(
        "R from a simulation that has none",
        {"subtract.r_factor": "simulation", "subtract.r_factor_sigma": None},
        "r_factor",
    ),
    Mistake("no iteration", {"unfold.n_iterations": 0}, "n_iterations"),
    Mistake("a strength for the iterative method", {"unfold.tau": 0.1}, "tau"),
    Mistake("an unfolding that is none", {"unfold.method": "bayes"}, "method"),
    Mistake("true masses away from the simulation", {"unfold.mass": [5.0, 6.0, 7.0]}, "mass"),
    # [spectrum]
    Mistake("negative protons on target", {"spectrum.pot": -1.0}, "pot"),
    Mistake("protons of a simulation that is not made", {"spectrum.pot": "simulation"}, "simulat"),
    Mistake("no thickness", {"spectrum.thickness": None}, "thickness"),
    Mistake("a spectrum of electrons from muons", {"spectrum.lepton": "e"}, "lepton"),
    Mistake("a beam of 120 GeV, detector at 400", {"spectrum.beam_energy": 120.0}, "120"),
    # [predict]
    Mistake("a model that is none", {"predict.model": "dark_foton"}, "dark_photon"),
    Mistake("a model file that is not there", {"predict.model": "m.py:plain"}, "m.py"),
    Mistake("a model that is a number", {"predict.model": "m.py:number"}, "number", {"m.py": MODEL}),
    Mistake("a model without a rate", {"predict.model": "m.py:plain"}, "rate", {"m.py": MODEL}),
    Mistake("a channel that is none", {"predict.channels": ["brems"]}, "brems"),
    Mistake(
        "a channel that the spectrum holds", {"predict.channels": ["pseudoscalar_dalitz"]}, "pseudoscalar"
    ),
    Mistake("masses outside the spectrum", {"predict.masses": [0.5, 5.0]}, "5"),
    Mistake("a mass below the threshold", {"predict.masses": [0.1]}, "0.1"),
    Mistake("a mass of zero", {"predict.masses": [0.0]}, "masses"),
    Mistake("a mass range outside the spectrum", {"predict.mass_range": [2.0, 3.0]}, "2"),
    Mistake(
        "a preset of bremsstrahlung that is none",
        {"predict.channels": ["bremsstrahlung"], "predict.bremsstrahlung": "ww"},
        "ww",
    ),
    Mistake(
        "theory without beam energy",
        {"predict.source": "theory", "predict.channels": ["bremsstrahlung"]},
        "beam_energy",
    ),
    Mistake(
        "theory at 120 GeV, detector at 400",
        {"predict.source": "theory", "predict.channels": ["bremsstrahlung"], "predict.beam_energy": 120.0},
        "120",
    ),
    Mistake(
        "a table of mesons that is not there",
        {
            "predict.source": "theory",
            "predict.channels": ["pseudoscalar_dalitz"],
            "predict.beam_energy": 400.0,
            "predict.mesons": "mesons_500gev",
        },
        "mesons_500gev",
    ),
    # [accept]
    Mistake("a detector that is none", {"accept.detectors": ["na62_dumb"]}, "na62_dump"),
    Mistake(
        "a detector with a typo",
        {"accept.detectors": ["d.toml"]},
        "d.toml",
        {"d.toml": dump().replace("accept_on", "accepts_on")},
    ),
    Mistake(
        "a detector without a source",
        {"accept.detectors": ["d.toml"]},
        "source",
        {"d.toml": dump().replace('pot = "illustration"\n', "")},
    ),
    Mistake(
        "a detector without ee", {"accept.detectors": ["d.toml"]}, "ee", {"d.toml": dump(states="mumu = 1.0")}
    ),
    Mistake(
        "a detector that sees γγ alone",
        {"accept.detectors": ["d.toml"]},
        "d.toml",
        {"d.toml": dump(states="gammagamma = 1.0")},
    ),
    Mistake(
        "a detector behind its own planes",
        {"accept.detectors": ["d.toml"]},
        "z",
        {"d.toml": dump().replace("z = 65.0", "z = 40.0")},
    ),
    Mistake(
        "a detector at another beam energy",
        {"accept.detectors": ["d.toml"]},
        "120",
        {"d.toml": dump(beam="120.0")},
    ),
    Mistake(
        "a decay volume turned around",
        {"accept.detectors": ["d.toml"]},
        "z",
        {"d.toml": dump().replace("z1 = 60.0", "z1 = 10.0")},
    ),
    Mistake("a final state that is none", {"accept.final_states": ["tautau"]}, "final_states"),
    Mistake("another target without scaling", {"accept.target_scaling": None}, "target_scaling"),
    Mistake("a power without alpha", {"accept.target_scaling": "power"}, "alpha"),
    Mistake("alpha without a power", {"accept.alpha": 1.0}, "alpha"),
    Mistake("a depth for a detector that is not named", {"accept.interaction_length": {"ship": 0.2}}, "ship"),
    Mistake("no detector", {"accept.detectors": []}, "detectors"),
    # [infer], [report]
    Mistake("a confidence level of 90", {"infer.cl": 90}, "cl"),
    Mistake("counts of two detectors, one detector", {"infer.observed": [0, 1]}, "observed"),
    Mistake("couplings turned around", {"infer.coupling": [1e-3, 1e-9]}, "coupling"),
    Mistake("a nuisance that is none", {"systematics.nuisances": ["lumi"]}, "nuisances"),
    Mistake("existing limits that are not there", {"report.bounds": "limits"}, "limits"),
    Mistake("a method of limits that is none", {"infer.method": "bayes"}, "method"),
    Mistake("masses of the report that are negative", {"report": {"flow_masses": [-1.0]}}, "flow_masses"),
    # values that a grid, an axis or a file cannot take
    Mistake("a folder as data file", {"read.files": ["."]}, "read.files"),
    Mistake(
        "the same data file twice",
        {"read.files": ["one.root", "./one.root"]},
        "one.root",
        {"one.root": b"no"},
    ),
    Mistake(
        "a cut function that ends Python",
        {"select.event_functions": ["cuts.py:leaves"]},
        "leaves",
        {"cuts.py": CUTS},
    ),
    Mistake("a coupling of zero", {"infer.coupling": [0.0, 1e-3]}, "coupling"),
    Mistake("a negative background", {"infer.background": -1.0}, "background"),
    Mistake("a background error without background", {"infer.background_sigma": 1.0}, "background_sigma"),
    Mistake("masses twice", {"predict.masses": [0.3, 0.3]}, "masses"),
    Mistake("masses that fall", {"predict.masses": [0.5, 0.3]}, "masses"),
    Mistake("lifetimes turned around", {"accept.ctau": [10.0, 1.0]}, "ctau"),
    Mistake("a mass of the acceptance outside", {"accept.acceptance_masses": [5.0]}, "acceptance_masses"),
    Mistake("a detector twice", {"accept.detectors": ["na62_dump", "na62_dump"]}, "na62_dump"),
    Mistake("more protons than nucleons", {"spectrum.target_z": 300.0}, "target_z"),
    Mistake("a name of 400 letters", {"analysis.name": 400 * "a"}, "name"),
    Mistake("a model that needs arguments", {"predict.model": "m.py:Broken"}, "Broken", {"m.py": MODEL}),
    Mistake(
        "points of alpha that fall",
        {
            "accept.target_scaling": "power",
            "accept.alpha": [[1.0, 0.9], [0.0, 0.8]],
            "accept.alpha_inelastic": 0.7,
        },
        "alpha",
    ),
    Mistake("a mass of the report outside", {"report": {"flow_masses": [5.0]}}, "flow_masses"),
    Mistake(
        "an axis of a thousand million bins",
        {"select.mass": {"bins": 1000000000, "low": 0.2, "high": 1.0}},
        "mass",
    ),
    Mistake("zero protons on target", {"spectrum.pot": 0.0}, "pot"),
    Mistake("an infinite thickness", {"spectrum.thickness": 1e400}, "thickness"),
)
