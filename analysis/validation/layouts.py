"""Pairs of layouts that experiments write, read through schemas, against counts by hand in the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from validation.mistaken_sample import dileptons
from validation.split_trees import write_flat, write_split

from gammastar import read, select

__all__ = ["layout_rows"]

XYZ, POLAR = ("px", "py", "pz"), ("pt", "eta", "phi")
SIGNS = ("+−", "++", "−−")
SOURCE = "MOCK pairs, counted with uproot and awkward in the file"
Branches = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """One layout: how its file is written, its schema, and how the charges are found in it by hand."""

    what: str
    write: Callable[[Path], Any]
    schema: dict[str, Any]
    charges: Callable[[Any], ak.Array]


def _schema(kinematics: Branches, charge: Any, **more: Any) -> dict[str, Any]:
    plain = {"tree": "events", "layout": "jagged", "lepton": "mu"}
    return {**plain, "charge": charge, "kinematics": dict(kinematics), **more}


def _flat(path: Path, branches: Branches, *, rntuple: bool = False) -> None:
    if not rntuple:
        write_flat(path, branches)
        return
    with uproot.recreate(path) as file:
        file.mkrntuple("events", dict(branches))


def _branch(name: str) -> Callable[[Any], ak.Array]:
    return lambda tree: tree[name].array()


def _legs(*names: str) -> Callable[[Any], ak.Array]:
    def charges(tree: Any) -> ak.Array:
        both = np.stack([tree[name].array(library="np") for name in names], axis=1)
        return ak.from_regular(ak.from_numpy(both))

    return charges


def _layouts() -> Iterator[Layout]:
    rng = np.random.default_rng(77)
    muons, electrons = (dileptons(rng, lepton) for lepton in ("mu", "e"))
    collections = {"Electron": electrons, "Muon": muons}
    members = (*XYZ, "charge")
    split = {f"{name}/{key}": own[key] for name, own in collections.items() for key in members}
    for name in collections:
        yield Layout(
            f"objects split into members, {name}/px beside the other px",
            lambda path: write_split(path, split),
            _schema({k: f"{name}/{k}" for k in XYZ}, f"{name}/charge"),
            _branch(f"{name}/charge"),
        )
    vectors = {
        f"{name}/{name}.fCoordinates.{member}": own[key]
        for name, own in (("Electrons", electrons), ("Muons", muons))
        for member, key in (("fPt", "pt"), ("fEta", "eta"), ("fPhi", "phi"))
    } | {"Muons_charge": muons["charge"]}
    coordinates = {key: f"fCoordinates.f{key.title()}" for key in POLAR}
    yield Layout(
        "lists of LorentzVectors split by ROOT, Muons/Muons.fCoordinates.fPt",
        lambda path: write_split(path, vectors),
        _schema(coordinates, "Muons_charge", layout="object", collection="Muons"),
        _branch("Muons_charge"),
    )
    two = ak.num(muons["px"]) >= 2
    legs = {k: ak.to_numpy(muons[k][two][:, :2]) for k in members}
    sides = {f"m{i + 1}/{k}": legs[k][:, i] for i in range(2) for k in members}
    yield Layout(
        "legs split into members, m1/px and m2/px",
        lambda path: write_split(path, sides),
        _schema({k: [f"m1/{k}", f"m2/{k}"] for k in XYZ}, ["m1/charge", "m2/charge"], layout="pair"),
        _legs("m1/charge", "m2/charge"),
    )
    leaves = {f"lep{i + 1}": np.stack([legs[k][:, i] for k in XYZ], axis=1) for i in range(2)}
    leaves |= {f"q{i + 1}": legs["charge"][:, i] for i in range(2)}
    yield Layout(
        "lists of leaves, lep1.px",
        lambda path: write_split(path, leaves, leaves=XYZ),
        _schema({k: [f"lep1.{k}", f"lep2.{k}"] for k in XYZ}, ["q1", "q2"], layout="pair"),
        _legs("q1", "q2"),
    )
    scouting = {f"ScoutingMuonVtx_{k}": muons[k] for k in (*POLAR, "charge")}
    yield Layout(
        "a collection with a prefix, ScoutingMuonVtx_pt",
        lambda path: _flat(path, scouting),
        _schema({k: f"ScoutingMuonVtx_{k}" for k in POLAR}, "ScoutingMuonVtx_charge"),
        _branch("ScoutingMuonVtx_charge"),
    )
    store = {f"AnalysisMuonsAuxDyn.{k}": muons[k] for k in (*POLAR, "charge")}
    store["AnalysisMuonsAuxDyn.pt"] = 1e3 * muons["pt"]
    yield Layout(
        "an auxiliary store in MeV, AnalysisMuonsAuxDyn.pt",
        lambda path: _flat(path, store),
        _schema({k: f"AnalysisMuonsAuxDyn.{k}" for k in POLAR}, "AnalysisMuonsAuxDyn.charge", unit=1e-3),
        _branch("AnalysisMuonsAuxDyn.charge"),
    )
    tracks = {f"trk_{k}": muons[k] for k in POLAR} | {"trk_q": muons["charge"]}
    yield Layout(
        "tracks, trk_pt and trk_q",
        lambda path: _flat(path, tracks),
        _schema({k: f"trk_{k}" for k in POLAR}, "trk_q"),
        _branch("trk_q"),
    )
    records = {name: ak.zip({k: own[k] for k in members}) for name, own in collections.items()}
    yield Layout(
        "records of an RNTuple, Muon.px beside Electron.px",
        lambda path: _flat(path, records, rntuple=True),
        _schema({k: f"Muon.{k}" for k in XYZ}, "Muon.charge"),
        lambda tree: tree["Muon"].array()["charge"],
    )
    for rntuple in (False, True):
        yield from _charges(muons, rntuple=rntuple)


def _charges(muons: Branches, *, rntuple: bool) -> Iterator[Layout]:
    """Yield the types in which files keep a charge, with what stands for +1 where a type has no sign."""
    signed, plus = muons["charge"], muons["charge"] > 0
    ones = ak.values_astype(plus, np.int8)
    kinds = {
        "bool": (plus, 1),
        "uint8": (ak.values_astype(ones, np.uint8), 1),
        "uint16": (ak.values_astype(ones, np.uint16), 1),
        "uint32": (ak.values_astype(ones + 2, np.uint32), 3),
        "int8": (ak.values_astype(signed, np.int8), None),
        "float": (ak.values_astype(signed, np.float32), None),
    }
    for kind, (values, positive) in kinds.items():
        branches = {f"mu_{k}": muons[k] for k in XYZ} | {"mu_q": values}
        key = {} if positive is None else {"positive": positive}
        yield Layout(
            f"a charge of type {kind} in {'an RNTuple' if rntuple else 'a TTree'}",
            lambda path, branches=branches: _flat(path, branches, rntuple=rntuple),
            _schema({k: f"mu_{k}" for k in XYZ}, "mu_q", **key),
            lambda tree, one=positive: 2 * (_branch("mu_q")(tree) == (one or 1)) - 1,
        )


def _pairs(charges: ak.Array) -> tuple[int, int, int]:
    """Count +−, ++ and −− pairs of lists of charges."""
    plus, minus = (ak.to_numpy(ak.sum(sign * charges > 0, axis=1)) for sign in (1, -1))
    return (
        int(np.sum(plus * minus)),
        int(np.sum(plus * (plus - 1) // 2)),
        int(np.sum(minus * (minus - 1) // 2)),
    )


def layout_rows() -> Iterator[dict]:
    """Yield pairs by sign for each layout."""
    with tempfile.TemporaryDirectory() as name:
        for i, layout in enumerate(_layouts()):
            path = Path(name) / f"{i}.root"
            layout.write(path)
            with uproot.open(path) as file:
                expected = _pairs(layout.charges(file["events"]))
            found, _ = select.collect(read.open_events(path, read.load_schema(layout.schema)))
            counts = (found.os, found.pp, found.mm)
            for sign, mask, value in zip(SIGNS, counts, expected, strict=True):
                yield _row(f"{layout.what}: {sign} pairs", int(np.sum(mask)), value)


def _row(quantity: str, ours: float, expected: float) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": 0.0,
        "source": SOURCE,
    }
