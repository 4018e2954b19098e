"""Schemas with one mistake each, written by hand: what a user gets wrong with an ntuple that is right.

Each entry names the file, the schema and what is wrong. A mistake is told if the run stops with a message or
warns; it is silent if the run ends well without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["GOOD", "MISTAKES", "Mistake"]

REAL = Path(__file__).resolve().parents[2] / "tests" / "data"
NANO, HZZ, OBJECTS = (
    str(REAL / name) for name in ("nano_dimuon.root", "uproot-HZZ.root", "uproot-HZZ-objects.root")
)
ZMUMU = str(REAL / "uproot-Zmumu.root")
PARKED = str(REAL / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root")
CARTESIAN, POLAR = ("px", "py", "pz"), ("pt", "eta", "phi")


@dataclass(frozen=True)
class Mistake:
    """One wrong schema.

    Attributes
    ----------
    what : str
        The mistake in a few words.
    file : str
        Of the sample, or the path of a real file.
    schema : dict
    says : str
        What the message has to name: a key, a branch, or a word.
    """

    what: str
    file: str
    schema: dict[str, Any] = field(repr=False)
    says: str


def _jagged(keys: tuple[str, ...] = CARTESIAN, *, stem: str = "Muon.", **changes: Any) -> dict[str, Any]:
    kinematics = {key: f"{stem}{key}" for key in keys}
    plain = {
        "tree": "events",
        "layout": "jagged",
        "lepton": "mu",
        "charge": f"{stem}charge",
        "event": "event",
    }
    kinematics |= changes.pop("kinematics", {})
    return {k: v for k, v in {**plain, **changes, "kinematics": kinematics}.items() if v is not None}


def _pair(keys: tuple[str, ...] = CARTESIAN, **changes: Any) -> dict[str, Any]:
    kinematics = {key: [f"{key}1", f"{key}2"] for key in keys}
    charge = ["charge1", "charge2"]
    plain = {"tree": "events", "layout": "pair", "lepton": "mu", "charge": charge, "event": "event"}
    kinematics |= changes.pop("kinematics", {})
    return {k: v for k, v in {**plain, **changes, "kinematics": kinematics}.items() if v is not None}


def _nano(**changes: Any) -> dict[str, Any]:
    return _jagged(POLAR, stem="Muon_", **{"tree": "Events", "charge": "Muon_charge", **changes})


def _zmumu(**changes: Any) -> dict[str, Any]:
    rule = {"branch": "Type", "equals": "GG"}
    fixed = {"charge": ["Q1", "Q2"], "event": ["Run", "Event"], "row_filter": rule}
    return _pair(**{**fixed, **changes})


def _objects(**changes: Any) -> dict[str, Any]:
    kinematics = {"px": "fP.fX", "py": "fP.fY", "pz": "fP.fZ"} | changes.pop("kinematics", {})
    plain = {"tree": "events", "layout": "object", "lepton": "mu", "collection": "muonp4", "charge": "muonq"}
    return {**plain, **changes, "kinematics": kinematics}


J, P, M, R, N = "jagged.root", "pair.root", "mev.root", "repeated.root", "rntuple.root"

GOOD = (
    Mistake("lists, Cartesian", J, _jagged(), ""),
    Mistake("lists, cylindrical", J, _jagged(POLAR), ""),
    Mistake("lists, phi from 0 to 2π", J, _jagged(POLAR, kinematics={"phi": "Muon.phi_positive"}), ""),
    Mistake("lists with E and mass", J, _jagged((*CARTESIAN, "E", "mass")), ""),
    Mistake("lists with the PDG code", J, _jagged(charge=None, pdg_id="Muon.pdgId"), ""),
    Mistake("lists with a float charge", J, _jagged(charge="Muon.charge_float"), ""),
    Mistake("lists in MeV, unit = 1e-3", M, _jagged(unit=1e-3), ""),
    Mistake("RNTuple", N, _jagged(stem="Muon_"), ""),
    Mistake("a bool charge with positive = true", J, _jagged(charge="Muon.positive", positive=1), ""),
    Mistake("a uint16 charge with positive = 1", J, _jagged(charge="Muon.charge_u16", positive=1), ""),
    Mistake("pairs", P, _pair(), ""),
    Mistake("pairs, cylindrical, with E", P, _pair((*POLAR, "E")), ""),
    Mistake("repeated rows with the filter", R, _pair(row_filter={"branch": "kind", "equals": 0}), ""),
    Mistake("cycle of the tree", J, _jagged(tree="events;1"), ""),
    Mistake("NanoAOD", NANO, _nano(), ""),
    Mistake("TLorentzVectors", OBJECTS, _objects(), ""),
    Mistake("Z→μμ with its filter", ZMUMU, _zmumu(), ""),
)

MISTAKES = (
    # charge
    Mistake("charge is a bool", J, _jagged(charge="Muon.positive"), "Muon.positive"),
    Mistake("charge is uint8, −1 stored as 255", J, _jagged(charge="Muon.charge_u8"), "Muon.charge_u8"),
    Mistake("charge is uint16, 0 or 1", J, _jagged(charge="Muon.charge_u16"), "Muon.charge_u16"),
    Mistake("charge is uint32, 0 or 1", J, _jagged(charge="Muon.charge_u32"), "Muon.charge_u32"),
    Mistake("charge is a bool, RNTuple", N, _jagged(stem="Muon_", charge="Muon_positive"), "Muon_positive"),
    Mistake("charge is uint8, RNTuple", N, _jagged(stem="Muon_", charge="Muon_charge_u8"), "Muon_charge_u8"),
    Mistake("charge is a bool, pairs", P, _pair(charge=["positive1", "positive2"]), "positive1"),
    Mistake("charge is the isolation", J, _jagged(charge="Muon.iso"), "charge"),
    Mistake("charge is zero everywhere", J, _jagged(charge="Muon.zero"), "charge"),
    Mistake("charge is −1 everywhere", J, _jagged(charge="Muon.negative"), "charge"),
    Mistake("charge is an index of −1, 0, 1", J, _jagged(charge="Muon.index"), "charge"),
    Mistake("charge is a momentum", J, _jagged(charge="Muon.px"), "charge"),
    Mistake("charge is the PDG code", J, _jagged(charge="Muon.pdgId"), "pdg"),
    Mistake("charge is one number per event", J, _jagged(charge="run"), "run"),
    Mistake("charge of the electrons", J, _jagged(charge="Electron.charge"), "Electron.charge"),
    Mistake("PDG code is the charge", J, _jagged(charge=None, pdg_id="Muon.charge"), "pdg"),
    Mistake("PDG code is an index", J, _jagged(charge=None, pdg_id="Muon.index"), "pdg"),
    Mistake("positive is neither value", J, _jagged(charge="Muon.charge_u16", positive=7), "positive"),
    Mistake("positive on a real number", J, _jagged(charge="Muon.iso", positive=1), "Muon.iso"),
    Mistake("one charge for both legs", P, _pair(charge=["charge1", "charge1"]), "charge"),
    Mistake("charge of leg 2 is an isolation", P, _pair(charge=["charge1", "iso2"]), "iso2"),
    Mistake("charges are PDG codes, pairs", P, _pair(charge=["pdgId1", "pdgId2"]), "pdg"),
    Mistake("two charges for lists", J, _jagged(charge=["Muon.charge", "Muon.charge"]), "charge"),
    Mistake("charge and PDG code", J, _jagged(pdg_id="Muon.pdgId"), "pdg_id"),
    # flavour
    Mistake(
        "electrons called muons, with PDG",
        J,
        _jagged(stem="Electron.", charge=None, pdg_id="Electron.pdgId"),
        "11",
    ),
    Mistake(
        "muons called electrons, with PDG", J, _jagged(lepton="e", charge=None, pdg_id="Muon.pdgId"), "13"
    ),
    Mistake("electrons called muons, with mass", J, _jagged((*CARTESIAN, "mass"), stem="Electron."), "mass"),
    Mistake("electrons called muons, with E", J, _jagged((*CARTESIAN, "E"), stem="Electron."), "E"),
    Mistake("muons called electrons, with mass", J, _jagged((*CARTESIAN, "mass"), lepton="e"), "mass"),
    Mistake("taus", J, _jagged(lepton="tau"), "lepton"),
    # units
    Mistake("GeV read with unit = 1e-3", J, _jagged(unit=1e-3), "unit"),
    Mistake("GeV read with unit = 1e3", J, _jagged(unit=1e3), "unit"),
    Mistake("MeV without unit", M, _jagged(), "unit"),
    Mistake("MeV with unit = 1e-6", M, _jagged(unit=1e-6), "unit"),
    Mistake("MeV without unit, with E", M, _jagged((*CARTESIAN, "E")), "unit"),
    Mistake("GeV with unit = 1e-3, with mass", J, _jagged((*CARTESIAN, "mass"), unit=1e-3), "unit"),
    Mistake("pairs in GeV with unit = 1e-3", P, _pair(unit=1e-3), "unit"),
    Mistake("NanoAOD with unit = 1e-3", NANO, _nano(unit=1e-3), "unit"),
    Mistake("NanoAOD with unit = 1e3", NANO, _nano(unit=1e3), "unit"),
    Mistake(
        "HZZ with unit = 1e-3",
        HZZ,
        _jagged(
            stem="Muon_",
            charge="Muon_Charge",
            event=None,
            unit=1e-3,
            kinematics={"px": "Muon_Px", "py": "Muon_Py", "pz": "Muon_Pz"},
        ),
        "unit",
    ),
    Mistake("unit of zero", J, _jagged(unit=0.0), "unit"),
    Mistake("unit as text", J, _jagged(unit="MeV"), "unit"),
    # momenta
    Mistake("px twice", J, _jagged(kinematics={"py": "Muon.px"}), "Muon.px"),
    Mistake("pz is |p|, with E", J, _jagged((*CARTESIAN, "E"), kinematics={"pz": "Muon.p"}), "E"),
    Mistake("E is px", J, _jagged(kinematics={"E": "Muon.px"}), "E"),
    Mistake("E is pt", J, _jagged(kinematics={"E": "Muon.pt"}), "E"),
    Mistake(
        "E is Muon_Px, HZZ",
        HZZ,
        _jagged(
            stem="Muon_",
            charge="Muon_Charge",
            event=None,
            kinematics={"px": "Muon_Px", "py": "Muon_Py", "pz": "Muon_Pz", "E": "Muon_Px"},
        ),
        "E",
    ),
    Mistake("mass is zero", J, _jagged(kinematics={"mass": "Muon.zero"}), "mass"),
    Mistake("mass is negative", J, _jagged(kinematics={"mass": "Muon.negative"}), "mass"),
    Mistake("mass is the energy", J, _jagged(kinematics={"mass": "Muon.E"}), "mass"),
    Mistake("mass is that of the pair", P, _pair(kinematics={"mass": ["M", "M"]}), "mass"),
    Mistake("momentum with holes", J, _jagged(kinematics={"px": "Muon.half_nan"}), "Muon.half_nan"),
    Mistake("eta is theta, with E", J, _jagged((*POLAR, "E"), kinematics={"eta": "Muon.theta"}), "E"),
    Mistake("phi in degrees", J, _jagged(POLAR, kinematics={"phi": "Muon.phi_deg"}), "phi"),
    Mistake("pt is |p|, with E", J, _jagged((*POLAR, "E"), kinematics={"pt": "Muon.p"}), "E"),
    Mistake(
        "eta and phi swapped, with E",
        J,
        _jagged((*POLAR, "E"), kinematics={"eta": "Muon.phi", "phi": "Muon.eta"}),
        "E",
    ),
    Mistake("eta is pt", J, _jagged(POLAR, kinematics={"eta": "Muon.pt"}), "eta"),
    Mistake("momenta of the electrons", J, _jagged(kinematics={"px": "Electron.px"}), "Electron.px"),
    # legs and rows
    Mistake("both legs the same", P, _pair(kinematics={k: [f"{k}1", f"{k}1"] for k in CARTESIAN}), "leg"),
    Mistake("px of both legs the same", P, _pair(kinematics={"px": ["px1", "px1"]}), "px1"),
    Mistake("legs mixed, with E", P, _pair((*CARTESIAN, "E"), kinematics={"px": ["px2", "px1"]}), "E"),
    Mistake("repeated rows", R, _pair(), "row_filter"),
    Mistake("repeated rows, Z→μμ", ZMUMU, _zmumu(row_filter=None), "row_filter"),
    Mistake(
        "row filter that keeps nothing", R, _pair(row_filter={"branch": "kind", "equals": 9}), "row_filter"
    ),
    Mistake(
        "row filter of another type", R, _pair(row_filter={"branch": "kind", "equals": "GG"}), "row_filter"
    ),
    Mistake("row filter without branch", R, _pair(row_filter={"branch": "Kind", "equals": 0}), "kind"),
    Mistake(
        "lists read as pairs",
        J,
        _pair(
            kinematics={k: [f"Muon.{k}", f"Muon.{k}"] for k in CARTESIAN},
            charge=["Muon.charge", "Muon.charge"],
        ),
        "Muon.",
    ),
    Mistake(
        "pairs read as lists", P, _jagged(charge="charge1", kinematics={k: f"{k}1" for k in CARTESIAN}), "px1"
    ),
    # event and weight
    Mistake("event is a constant", J, _jagged(event="constant"), "constant"),
    Mistake("event is a real number", J, _jagged(event="event_float"), "event_float"),
    Mistake("event is a list", J, _jagged(event="Muon.index"), "Muon.index"),
    Mistake("weight is zero", J, _jagged(weight="weight_zero"), "weight"),
    Mistake("weight with NaN", J, _jagged(weight="weight_nan"), "weight_nan"),
    Mistake("weight is a list", J, _jagged(weight="Muon.px"), "Muon.px"),
    # names
    Mistake("tree of another name", J, _jagged(tree="Events"), "events"),
    Mistake("cycle that is not there", J, _jagged(tree="events;9"), "events"),
    Mistake("branch with a typo", J, _jagged(kinematics={"px": "Muon.pxx"}), "Muon.px"),
    Mistake("key with a typo", J, _jagged(kinematic={}), "kinematics"),
    Mistake("no pz", J, {**_jagged(), "kinematics": {"px": "Muon.px", "py": "Muon.py"}}, "pz"),
    Mistake("short name in two collections", J, _jagged(kinematics={"px": "px"}), "px"),
    Mistake("layout pair, one branch", J, _jagged(layout="pair"), "pair"),
    Mistake("objects without collection", J, _jagged(layout="object"), "collection"),
    Mistake("objects: another member", OBJECTS, _objects(kinematics={"px": "fP.fW"}), "fP.fW"),
    Mistake("objects: px and E swapped", OBJECTS, _objects(kinematics={"px": "fE", "E": "fP.fX"}), "E"),
    Mistake("objects: charge of the electrons", OBJECTS, _objects(charge="electronq"), "electronq"),
    Mistake("NanoAOD: charge is jetIdx", NANO, _nano(charge="Muon_jetIdx"), "charge"),
    Mistake("NanoAOD: charge is tightCharge", NANO, _nano(charge="Muon_tightCharge"), "charge"),
    Mistake(
        "NanoAOD: electrons as muons with mass",
        NANO,
        _nano(
            charge="Electron_charge",
            kinematics={**{k: f"Electron_{k}" for k in POLAR}, "mass": "Electron_mass"},
        ),
        "mass",
    ),
    Mistake("NanoAOD: mass is dxy", NANO, _nano(kinematics={"mass": "Muon_dxy"}), "mass"),
    Mistake("NanoAOD: pt is its error", NANO, _nano(kinematics={"pt": "Muon_ptErr"}), "Muon_ptErr"),
    # columns that are nearly right
    Mistake("px in MeV, the rest in GeV", J, _jagged(kinematics={"px": "Muon.px_mev"}), "unit"),
    Mistake("px in MeV, with E", J, _jagged((*CARTESIAN, "E"), kinematics={"px": "Muon.px_mev"}), "E"),
    Mistake("E in MeV, momenta in GeV", J, _jagged(kinematics={"E": "Muon.E_mev"}), "E"),
    Mistake("mass in MeV, momenta in GeV", J, _jagged(kinematics={"mass": "Muon.mass_mev"}), "mass"),
    Mistake("leg 2 in MeV", P, _pair(kinematics={k: [f"{k}1", f"{k}_mev2"] for k in ("px",)}), "px_mev2"),
    Mistake("charge is 0 or 1 with a sign", J, _jagged(charge="Muon.charge_01"), "charge_01"),
    Mistake("charge in thirds", J, _jagged(charge="Muon.charge_thirds"), "charge_thirds"),
    Mistake("one charge in five is NaN", J, _jagged(charge="Muon.charge_nan"), "charge_nan"),
    Mistake("one charge in twenty is zero", J, _jagged(charge="Muon.charge_some"), "charge_some"),
    Mistake(
        "half of the PDG codes are electrons", J, _jagged(charge=None, pdg_id="Muon.pdg_mixed"), "pdg_mixed"
    ),
    Mistake("three per cent of py are infinite", J, _jagged(kinematics={"py": "Muon.py_inf"}), "py_inf"),
    Mistake("event is the run", J, _jagged(event="run"), "run"),
    Mistake("event is the run, Z→μμ", ZMUMU, _zmumu(event="Run"), "Run"),
    Mistake("event is the number of vertices", J, _jagged(event="n_vertices"), "n_vertices"),
    Mistake(
        "charge of leg 2 is the kind of the row",
        R,
        _pair(charge=["charge1", "kind"], row_filter={"branch": "kind", "equals": 1}),
        "charge",
    ),
)
