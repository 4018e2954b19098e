"""Ntuples for the trials of mistaken schemas: MOCK muon and electron pairs, made with numpy alone.

Momenta are those of a fixed-target experiment at 400 GeV: a falling continuum of pair masses with the lines
of ρ/ω and φ, and muons of other events as combinatorial background. Nothing of the package is used here, so
that the numbers of pairs counted here are independent of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from validation.split_trees import write_flat

from gammastar.core.constants import LEPTON_MASS

__all__ = ["Sample", "dileptons", "write_sample"]

N_EVENTS = 3000


@dataclass(frozen=True)
class Sample:
    """A folder with the files, and the counts of pairs (+−, ++, −−) of each of them."""

    folder: Path
    counts: dict[str, tuple[int, int, int]]


def _decay(rng: np.random.Generator, n: int, m_lepton: float) -> tuple[np.ndarray, np.ndarray]:
    """Return px, py, pz of l⁺ and l⁻ of virtual photons, each of shape (n, 3)."""
    mass = 2 * m_lepton + 0.02 + rng.exponential(0.15, n)
    line = rng.random(n)
    mass = np.where(line < 0.15, rng.normal(0.7827, 0.012, n), mass)
    mass = np.where(line > 0.93, rng.normal(1.0195, 0.012, n), mass)
    energy = mass + 15.0 + rng.exponential(25.0, n)
    pt = rng.gamma(2.0, 0.25, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    momentum = np.sqrt(np.maximum(energy**2 - mass**2, (1.01 * pt) ** 2))
    energy = np.hypot(momentum, mass)
    parent = np.stack([pt * np.cos(angle), pt * np.sin(angle), np.sqrt(momentum**2 - pt**2)], axis=1)
    cos, phi = rng.uniform(-1, 1, n), rng.uniform(0, 2 * np.pi, n)
    sin, half = np.sqrt(1 - cos**2), mass / 2
    p_star = np.sqrt(half**2 - m_lepton**2)
    own = p_star[:, None] * np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=1)
    beta = parent / energy[:, None]
    gamma = energy / mass
    legs = []
    for sign in (1, -1):
        along = sign * np.sum(beta * own, axis=1)
        factor = gamma * (gamma / (gamma + 1) * along + half)
        legs.append(sign * own + factor[:, None] * beta)
    return legs[0], legs[1]


def _columns(momentum: np.ndarray, charge: np.ndarray, lepton: str, rng: np.random.Generator) -> dict:
    """Return the columns of flat leptons, right ones and those that a user may take by mistake."""
    px, py, pz = momentum.T
    p, pt = np.linalg.norm(momentum, axis=1), np.hypot(px, py)
    positive = charge > 0
    return {
        "px": px,
        "py": py,
        "pz": pz,
        "p": p,
        "pt": pt,
        "eta": np.arcsinh(pz / pt),
        "phi": np.arctan2(py, px),
        "theta": np.arccos(pz / p),
        "phi_deg": np.degrees(np.arctan2(py, px)),
        "E": np.sqrt(p**2 + LEPTON_MASS[lepton] ** 2),
        "mass": np.full(len(px), LEPTON_MASS[lepton]),
        "charge": charge.astype(np.int32),
        "charge_float": charge.astype(np.float32),
        "positive": positive,
        "charge_u8": charge.astype(np.int8).view(np.uint8),
        "charge_u16": positive.astype(np.uint16),
        "charge_u32": positive.astype(np.uint32),
        "pdgId": (-charge * (13 if lepton == "mu" else 11)).astype(np.int32),
        "iso": rng.exponential(0.1, len(px)).astype(np.float32),
        "zero": np.zeros(len(px)),
        "negative": np.full(len(px), -1.0),
        "index": np.arange(len(px), dtype=np.int32) % 3 - 1,
        "half_nan": np.where(rng.random(len(px)) < 0.6, np.nan, px),
        "px_mev": 1e3 * px,
        "E_mev": 1e3 * np.sqrt(p**2 + LEPTON_MASS[lepton] ** 2),
        "mass_mev": np.full(len(px), 1e3 * LEPTON_MASS[lepton]),
        "py_inf": np.where(rng.random(len(px)) < 0.03, np.inf, py),
        "phi_positive": np.arctan2(py, px) % (2 * np.pi),
        "charge_01": positive.astype(np.int32),
        "charge_thirds": (3 * charge).astype(np.int32),
        "charge_nan": np.where(rng.random(len(px)) < 0.2, np.nan, charge),
        "charge_some": np.where(rng.random(len(px)) < 0.05, 0, charge).astype(np.int32),
        "pdg_mixed": (-charge * np.where(rng.random(len(px)) < 0.5, 13, 11)).astype(np.int32),
    }


def _leptons(
    rng: np.random.Generator, lepton: str, signal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number per event, momenta and charges of leptons."""
    plus, minus = _decay(rng, N_EVENTS, LEPTON_MASS[lepton])
    other = _decay(rng, N_EVENTS, LEPTON_MASS[lepton])[0]
    has, extra = rng.random(N_EVENTS) < signal, rng.random(N_EVENTS) < 0.6
    extra_charge = rng.choice([1, -1], N_EVENTS)
    momenta = np.stack([plus, minus, other], axis=1)
    charges = np.stack([np.ones(N_EVENTS, int), -np.ones(N_EVENTS, int), extra_charge], axis=1)
    lone = rng.random(N_EVENTS) < 0.5  # half of the events without a pair keep one of its legs
    keep = np.stack([has | lone, has, extra], axis=1)
    return keep.sum(axis=1), momenta[keep], charges[keep]


def _pair_counts(number: np.ndarray, charge: np.ndarray) -> tuple[int, int, int]:
    """Count +−, ++ and −− pairs from the numbers of positive and negative leptons of each event."""
    event = np.repeat(np.arange(len(number)), number)
    plus = np.bincount(event[charge > 0], minlength=len(number))
    minus = np.bincount(event[charge < 0], minlength=len(number))
    return (
        int(np.sum(plus * minus)),
        int(np.sum(plus * (plus - 1) // 2)),
        int(np.sum(minus * (minus - 1) // 2)),
    )


def _lists(columns: dict, number: np.ndarray) -> ak.Array:
    return ak.zip({key: ak.unflatten(value, number) for key, value in columns.items()})


def dileptons(rng: np.random.Generator, lepton: str) -> ak.Array:
    """Return lists of leptons, pairs and lone ones, of events: the columns of the sample as fields."""
    number, momenta, charges = _leptons(rng, lepton, 0.7 if lepton == "mu" else 0.3)
    return _lists(_columns(momenta, charges, lepton, rng), number)


def _event_columns(rng: np.random.Generator, n: int) -> dict:
    return {
        "run": np.full(n, 7, np.int32),
        "event": np.arange(1, n + 1, dtype=np.int64),
        "constant": np.ones(n, np.int64),
        "event_float": np.arange(1, n + 1, dtype=np.float64),
        "weight": np.ones(n, np.float32),
        "weight_nan": np.where(np.arange(n) % 11 == 0, np.nan, 1.0),
        "weight_zero": np.zeros(n),
        "n_vertices": rng.poisson(3.0, n).astype(np.int32),
    }


def write_sample(folder: Path) -> Sample:
    """Write ``jagged.root``, ``mev.root``, ``rntuple.root``, ``pair.root`` and ``repeated.root``."""
    rng = np.random.default_rng(20260)
    counts: dict[str, tuple[int, int, int]] = {}
    n_mu, p_mu, q_mu = _leptons(rng, "mu", 0.7)
    n_e, p_e, q_e = _leptons(rng, "e", 0.3)
    muons, electrons = _columns(p_mu, q_mu, "mu", rng), _columns(p_e, q_e, "e", rng)
    scalar = _event_columns(rng, N_EVENTS)
    content = {"Muon": _lists(muons, n_mu), "Electron": _lists(electrons, n_e), **scalar}
    momentum = ("px", "py", "pz", "p", "pt", "E", "mass")
    milli = {key: 1e3 * value if key in momentum else value for key, value in muons.items()}
    for name, lists in (("jagged.root", content), ("mev.root", {**content, "Muon": _lists(milli, n_mu)})):
        write_flat(folder / name, lists)
        counts[name] = _pair_counts(n_mu, q_mu)
    with uproot.recreate(folder / "rntuple.root") as file:
        flat = {f"Muon_{key}": ak.unflatten(value, n_mu) for key, value in muons.items()}
        file.mkrntuple("events", {**flat, **scalar})
    counts["rntuple.root"] = counts["jagged.root"]

    first, second = _decay(rng, N_EVENTS, LEPTON_MASS["mu"])
    like = rng.random(N_EVENTS) < 0.25
    q_one = np.where(rng.random(N_EVENTS) < 0.5, 1, -1)
    q_two = np.where(like, q_one, -q_one)
    legs = {}
    for leg, p, q in ((1, first, q_one), (2, second, q_two)):
        legs |= {f"{key}{leg}": value for key, value in _columns(p, q, "mu", rng).items()}
    energy = legs["E1"] + legs["E2"]
    legs["M"] = np.sqrt(energy**2 - np.sum((first + second) ** 2, axis=1))
    legs |= _event_columns(rng, N_EVENTS)
    kind = np.array([0, 1, 2, 3])
    for name, repeat in (("pair.root", 1), ("repeated.root", len(kind))):
        rows = {key: np.repeat(value, repeat) for key, value in legs.items()}
        rows["kind"] = np.tile(kind, N_EVENTS)[: len(rows["M"])] if repeat > 1 else np.zeros(N_EVENTS, int)
        write_flat(folder / name, rows)
        counts[name] = (
            int(np.sum(q_one != q_two)),
            int(np.sum((q_one > 0) & (q_two > 0))),
            int(np.sum((q_one < 0) & (q_two < 0))),
        )
    return Sample(folder, counts)
