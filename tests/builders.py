"""Records, tables and schemas that tests of several rooms need; random only where a generator is given."""

import csv
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
import vector

from gammastar.core.constants import M_MU
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import PairHists, Sample, Spectrum, filled, regular
from gammastar.physics.detector import Detector, Target
from gammastar.physics.geometry import Frustum
from gammastar.store.events import write_tree

ROOT = Path(__file__).resolve().parents[1]  # of the checkout


def csv_rows(path):
    """Return the rows of a CSV table by their column."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def jagged_schema(prefix="", **changes):
    """Return a schema of muons with charge and px, py, pz per event; None takes a key out."""
    mapping = {
        "tree": "events",
        "layout": "jagged",
        "lepton": "mu",
        "charge": f"{prefix}charge",
        "kinematics": {key: f"{prefix}{key}" for key in ("px", "py", "pz")},
    }
    return {key: value for key, value in (mapping | changes).items() if value is not None}


def opposite_sign(mass, pt, energy, *, weight=None, event=None):
    """Return opposite-sign pairs, each of its own event and weight one."""
    n = len(mass)
    weight = np.ones(n) if weight is None else weight
    return Pairs(mass, pt, energy, np.zeros(n, np.int8), weight, np.arange(n) if event is None else event)


def decay_like(n, rng, *, mass=(0.25, 1.1), beam=390.0):
    """Return masses, q_T that grow with the mass and energies of forward photons below the beam's [GeV]."""
    m = rng.uniform(*mass, n)
    pt = rng.gamma(2.2, 0.15 + 0.15 * m)
    energy = np.hypot(m, pt) * np.cosh(np.abs(rng.normal(4.0, 0.3, n)))
    return m, pt, np.minimum(energy, beam)


def ntuple(path, n, seed, *, truth=False):
    """Write MOCK pairs in MeV, a row each, that decay at right angles to their flight; some are like-sign.

    Each momentum is measured to 2 %.
    """
    rng = np.random.default_rng(seed)
    mass, pt, energy = decay_like(n, rng)
    phi = rng.uniform(0, 2 * np.pi, n)
    pz, k = np.sqrt(energy**2 - mass**2 - pt**2), np.sqrt(mass**2 / 4 - M_MU**2)
    across = np.array([-np.sin(phi), np.cos(phi), np.zeros(n)]) * k
    half = np.array([pt * np.cos(phi), pt * np.sin(phi), pz]) / 2
    legs = [
        (leg, p * rng.normal(1.0, 0.02, n)) for leg, p in (("mup", half + across), ("mum", half - across))
    ]
    first = rng.choice(np.array([-1, 1]), n)
    second = -first if truth else np.where(np.arange(n) % 6 == 0, first, -first)
    columns = {f"{leg}_p{axis}": 1e3 * p[i] for leg, p in legs for i, axis in enumerate("xyz")}
    columns |= {"mup_q": first, "mum_q": second, "evt": np.arange(n)}
    if truth:
        columns |= {"genMass": 1e3 * mass, "gen_qT": 1e3 * pt, "true_energy": 1e3 * energy}
    with uproot.recreate(path) as file:
        file["dimuons"] = columns
    return mass, pt, energy


def first_entries(path, name, n):
    """Write the first entries of a MOCK file that comes with the package, for what need not read all."""
    with uproot.open({ROOT / "data" / "mock" / name: None}) as file:
        trees = {tree: file[tree].arrays(entry_stop=n) for tree in file.keys(cycle=False)}
    muons = [key for key in trees["events"].fields if key.startswith("Muon_")]
    columns = {tree: {key: rows[key] for key in rows.fields} for tree, rows in trees.items()}
    columns["events"]["Muon"] = ak.zip({key[5:]: columns["events"].pop(key) for key in muons})
    del columns["events"]["nMuon"]
    write_tree(path, columns)
    return path


def matched_pairs(true, reco, *, fakes=None, columns=None):
    """Return simulated photons of weight one, each of its own event; a row of nan was not reconstructed."""
    n, fake = len(true), np.empty((0, 3)) if fakes is None else fakes
    return MatchedPairs(true, reco, np.ones(n), np.arange(n), fake, np.ones(len(fake)), columns or {})


def pair_hists(os, pp, mm, axes=None):
    """Return counts by charge with Poisson variances, in mass bins between 0.2 and 1.2 GeV by default."""
    axes = axes or (regular("mass", len(os), 0.2, 1.2),)
    return PairHists(*(filled(axes, np.asarray(n, float), np.asarray(n, float)) for n in (os, pp, mm)))


def counted(values, axes, *, cov=None, domain=None):
    """Return a spectrum of counts; without a covariance they are Poisson, measured everywhere."""
    values = np.asarray(values, dtype=float)
    cov = np.diag(values.ravel()) if cov is None else cov
    domain = np.ones(values.shape, dtype=bool) if domain is None else domain
    return Spectrum(filled(axes, values, np.diag(cov)), cov, "counts", None, domain)


def particles(px, py, pz, mass, *, weight=None, in_domain=None):
    """Return particles of one mass from the origin, together one per proton on target."""
    px, py, pz = np.broadcast_arrays(px, py, pz)
    n = len(pz)
    p4 = vector.array({"px": px, "py": py, "pz": pz, "E": np.sqrt(px**2 + py**2 + pz**2 + mass**2)})
    weight = np.full(n, 1.0 / max(n, 1)) if weight is None else weight
    return Sample(p4, weight, np.zeros((n, 3)), np.ones(n, bool) if in_domain is None else in_domain)


def box_detector(accept_on: Any = "parent", **changes: Any) -> Detector:
    """Return a decay volume of 4 m × 4 m from 20 to 60 m behind a lead dump at 400 GeV."""
    values: dict[str, Any] = {
        "name": "box",
        "source": "test",
        "beam_energy": 400.0,
        "target": Target(207.2, 82, 0.01),
        "pot": 1e15,
        "volume": Frustum(20.0, 60.0, 2.0, 2.0, 2.0, 2.0),
        "accept_on": accept_on,
        "efficiency": {"ee": 1.0, "mumu": 1.0, "pipi": 1.0},
        "sources": {},
    }
    return Detector(**(values | changes))


def exact_ratio(edges):
    """Return a classifier of OmniFold that knows the ratio, flat in cells of the first feature."""

    def ratio_of(above, below, rng):
        assert rng is not None
        sums = [np.histogram(x[:, 0], edges, weights=w)[0] for x, w in (above, below)]
        ratio = np.divide(sums[0], sums[1], out=np.ones(len(sums[0])), where=sums[1] > 0)
        return lambda x: ratio[np.clip(np.digitize(x[:, 0], edges) - 1, 0, len(ratio) - 1)]

    return ratio_of
