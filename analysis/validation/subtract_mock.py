"""Open charm of MOCK p-Pb data, found by the fit in mass and vertex offset (part of subtract)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from validation._rows import row as _row

from gammastar import read, select
from gammastar.core.files import data_path
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular, variable
from gammastar.mock import load_card, simulate_events
from gammastar.store.events import write_tree
from gammastar.subtract import fit_charm

OFFSET = "offset"
AXES = (regular("mass", 12, 0.2125, 1.1125), variable(OFFSET, [0, 60, 120, 180, 260, 400, 2000]))
SCHEMA = read.Schema.from_mapping(
    {
        "tree": "events",
        "layout": "jagged",
        "lepton": "mu",
        "charge": "Muon_charge",
        "event": "event",
        "weight": "weight",
        "prescale": "prescale",
        "kinematics": {key: f"Muon_{key}" for key in ("px", "py", "pz")},
        "lepton_columns": {key: f"Muon_{key}" for key in ("dx", "dy")},
    }
)


def rows(*, quick: bool) -> Iterator[dict]:
    """Count charm in the data by a second sample of charm alone at the same protons on target."""
    card = load_card(data_path("cards/na60_full.toml"))
    sizes = (
        {"data": 8_000, "mc": 20_000, "charm": 8_000}
        if quick
        else {"data": 40_000, "mc": 80_000, "charm": 40_000}
    )
    found, pot, meta = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for k, (kind, n) in enumerate(sizes.items()):
            sample = simulate_events(card, n, kind=kind, seed=41 + k)
            path = Path(folder) / f"{kind}.root"
            write_tree(path, {"events": sample.branches, "meta": sample.meta_branches()})
            found[kind] = _with_offset(select.collect(read.open_events(path, SCHEMA))[0])
            pot[kind], meta[kind] = sample.meta["N_POT"], sample.meta
    hists = {kind: select.fill(pairs, AXES) for kind, pairs in found.items()}
    r = meta["data"]["r_factor"], meta["data"]["r_factor_sigma"]
    fit = fit_charm(
        *(hists["data"], hists["charm"].os, hists["mc"].os), r_factor=float(r[0]), r_factor_sigma=float(r[1])
    )
    ratio = pot["data"] / pot["charm"]
    expected = ratio * hists["charm"].os.values().sum()
    spread = np.sqrt((ratio + ratio**2) * hists["charm"].os.variances().sum())  # of both samples
    source = f"charm per proton on target of the card; fit {fit.charm:.0f} ± {fit.charm_sigma:.0f} pairs"
    pull = (fit.charm - expected) / np.hypot(fit.charm_sigma, spread)
    yield _row("open charm of the MOCK p-Pb data: fitted − expected, in σ", pull, 0, 3.0, source)
    yield _row(
        "its relative error (a fit that finds nothing has 1)", fit.charm_sigma / fit.charm, 0, 0.35, source
    )
    tolerance = 3 * np.sqrt(2 / fit.ndf)
    yield _row("its χ²/ndf", fit.chi2 / fit.ndf, 1, tolerance, "3σ of the χ² law")


def _with_offset(pairs: Pairs) -> Pairs:
    """Return the pairs with the distance of their muons at the vertex [µm]."""
    c = pairs.columns
    distance = np.hypot(c["dx_1"] - c["dx_2"], c["dy_1"] - c["dy_2"])
    kept = (pairs.mass, pairs.pt, pairs.energy, pairs.charge, pairs.weight, pairs.event)
    return Pairs(*kept, {OFFSET: distance})
