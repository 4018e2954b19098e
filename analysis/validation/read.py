"""Pair counts of real ntuples, read through schemas that are data only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from validation import full_example
from validation.layouts import layout_rows
from validation.mistaken_inputs import mistake_rows

from gammastar import read, select
from gammastar.core.pairs import Pairs

SCHEMAS = Path(__file__).resolve().parents[1] / "open_dimuon"
DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
PARKED = "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"
COUNTED = "counted in the file"
SIGNS = ("+−", "++", "−−")
ALL_ROWS = 2304  # of Z→μμ: without the row filter every pair of muons comes about four times

COUNTS = (
    ("CMS DoubleMuParked (RNTuple)", "doublemuparked", PARKED, (1263, 559, 461)),
    ("CMS HZZ (lists of numbers)", "hzz", "uproot-HZZ.root", (1464, 25, 32)),
    ("CMS HZZ (lists of objects)", "hzz_objects", "uproot-HZZ-objects.root", (1464, 25, 32)),
    ("CMS Z→μμ (one row per pair), rows of two global muons", "zmumu", "uproot-Zmumu.root", (508, 8)),
    ("CMS NanoAOD, data", "nano", "nano_dimuon.root", (38, 15, 13)),
    ("CMS NanoAOD, Drell-Yan", "nano", "nano_dy.root", (6, 0, 0)),
)


def locate(name: str) -> Path:
    """Return a real file of the tests."""
    return DATA / name


def pairs_of(schema: str, name: str) -> Pairs:
    """Return all pairs of a file without any cut."""
    path = locate(name)
    events = read.open_events(path, read.load_schema(SCHEMAS / f"{schema}.toml"))
    return select.collect(events)[0]


def window(pairs: Pairs, low: float = 0.0, high: float = np.inf) -> tuple[int, int, int]:
    inside = (pairs.mass >= low) & (pairs.mass < high)
    return tuple(int(np.sum(inside & mask)) for mask in (pairs.os, pairs.pp, pairs.mm))


def rows(*, quick: bool) -> Iterator[dict]:
    for label, schema, name, expected in COUNTS:
        pairs = pairs_of(schema, name)
        found = window(pairs)
        if len(expected) == 2:
            found = (found[0], found[1] + found[2])
        signs = SIGNS if len(expected) == 3 else ("+−", "++ and −−")
        for i, (sign, value) in enumerate(zip(signs, expected, strict=True)):
            yield _row(f"{label}: {sign} pairs", found[i], value, 0, COUNTED)
    pairs = pairs_of("hzz", "uproot-HZZ.root")
    median = np.median(pairs.mass[pairs.os])
    yield _row("CMS HZZ: median mass of +− pairs [GeV]", median, 90.8, 0.05, COUNTED)
    yield from _proposed()
    yield _row("CMS Z→μμ: largest |m/M − 1| to the stored mass", _stored_mass(), 0, 5e-8, "branch M")
    yield from layout_rows()
    yield from full_example.rows(quick=quick)
    if not quick:
        yield from mistake_rows()


def _proposed() -> Iterator[dict]:
    """Pairs found with the schema that `inspect` proposes, without a hand in it."""
    for label, _, name, counted in COUNTS:
        path = locate(name)
        expected = sum(counted) if name != "uproot-Zmumu.root" else ALL_ROWS
        schema = read.Schema.from_mapping(read.propose(path)[0].schema)
        found = len(select.collect(read.open_events(path, schema))[0])
        text = f"{label.split(', rows')[0]}: all pairs, with the proposed schema"
        yield _row(text, found, expected, 0, COUNTED)


def _stored_mass() -> float:
    path, pairs = locate("uproot-Zmumu.root"), pairs_of("zmumu", "uproot-Zmumu.root")
    with uproot.open(path) as file:
        stored = file["events"].arrays(["M", "Type"])
    return float(np.max(np.abs(pairs.mass / ak.to_numpy(stored.M[stored.Type == "GG"]) - 1)))


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }
