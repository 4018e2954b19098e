"""The spin density of the measured pairs: fitted beside the flow, kept in the record, used by detectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gammastar import spectrum
from gammastar.config import Steering
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import atomic
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray, Spectrum
from gammastar.physics.polarisation import COEFFICIENTS, SpinDensities, physical
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, needed
from gammastar.store.guarded import read_tensors
from gammastar.store.manifest import digest

__all__ = [
    "ANGLES",
    "FILE",
    "columns_for_angles",
    "ends_of",
    "read_spin",
    "spin_stage",
    "spin_text",
]

FILE = "spin_density.safetensors"
ANGLES = ("cos_theta", "phi_star")
"""Columns of pairs that the spin density needs."""


def columns_for_angles(steering: Steering) -> tuple[str, ...]:
    """Return the columns of pairs that the spin density needs."""
    return ANGLES if steering.flow is not None and steering.flow.angles is not None else ()


def spin_stage(ctx: Context, made: Any) -> SpinDensities | None:
    """Return the spin density of the measured pairs and write it; None without ``[flow] angles``."""
    section, measured = ctx.steering.flow, ctx.steering.spectrum
    if section is None or section.angles is None or measured is None:
        return None
    pairs, truth = needed(made.pairs, "select"), needed(made.truth, "unfold")
    kept = needed(made.subtraction, "subtract")
    edges, m_lepton = section.angles, LEPTON_MASS[measured.lepton]
    unfolded = needed(made.unfolded, "unfold")
    before = ctx.book.key_of("select", "subtract", "match", "unfold")
    key = ctx.book.key(None, before, digest(edges, m_lepton))

    def compute() -> dict[str, FloatArray]:
        ctx.tell("flow", None, f"spin density in {len(edges) - 1} regions of mass")
        simulated, data = _simulated(truth.sample, unfolded), _measured(pairs, kept["weight"])
        try:
            return _fitted(data, simulated, kept, (edges, m_lepton)).arrays()
        except PhysicsError as error:
            msg = f"flow.angles: {error}"
            raise SteeringError(msg) from error

    found = SpinDensities.of(ctx.book.arrays("spin", key, compute))
    with atomic(ctx.folder / FILE) as temporary:
        save_file({name: np.ascontiguousarray(values) for name, values in found.arrays().items()}, temporary)
    _tell(ctx, found, m_lepton, kept)
    return found


def _fitted(
    data: spectrum.DecayAngles, simulated: spectrum.DecayAngles, kept: Arrays, how: tuple[Any, float]
) -> SpinDensities:
    """Return the spin density without charm and corrections, whose errors are in the covariance."""
    removed = kept.get("removed_angles", np.zeros((7, 0)))
    own = removed[6].astype(np.int64)

    def fit(factor: FloatArray) -> SpinDensities:
        return spectrum.fit_spin_densities(_without(data, removed, factor), simulated, *how)

    found = fit(np.ones(len(own)))
    for k in np.unique(own):
        amount, sigma, _ = kept["removed"][k]
        shift = fit(np.where(own == k, 1.0 + sigma / amount, 1.0)).moments - found.moments
        found = replace(found, cov=found.cov + shift[:, :, np.newaxis] * shift[:, np.newaxis, :])
    return found


def _without(data: spectrum.DecayAngles, removed: FloatArray, factor: FloatArray) -> spectrum.DecayAngles:
    """Return the pairs with those to remove as events of their own, of weights below zero."""
    mass, pt, energy, cosine, phi, weight, _ = removed
    return spectrum.DecayAngles(
        np.concatenate([data.kinematics, np.stack([mass, pt, energy], axis=1)]),
        np.concatenate([data.cos_theta, cosine]),
        np.concatenate([data.phi, phi]),
        np.concatenate([data.weight, -weight * factor]),
        np.concatenate([data.event, data.event.min(initial=0) - 1 - np.arange(len(mass))]),
    )


def _measured(pairs: Pairs, weight: FloatArray) -> spectrum.DecayAngles:
    kinematics = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    cosine, phi = (pairs.columns[name] for name in ANGLES)
    return spectrum.DecayAngles(kinematics, cosine, phi, weight, pairs.event).select(weight != 0)


def _simulated(matched: MatchedPairs, unfolded: Spectrum) -> spectrum.DecayAngles:
    seen = matched.reconstructed
    weight = matched.weight * spectrum.prior_weights(matched.true, matched.weight, unfolded)
    cosine, phi = (matched.columns[name][seen] for name in ANGLES)
    return spectrum.DecayAngles(matched.reco[seen], cosine, phi, weight[seen], matched.event[seen])


def _tell(ctx: Context, found: SpinDensities, m_lepton: float, kept: Arrays) -> None:
    """Write the coefficients of each region, with frame and errors, for manifest and report."""
    lepton = "mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton
    for low, high, text in _rows(found, m_lepton):
        name = f"{', '.join(COEFFICIENTS)} of {lepton} pairs, {low:g} to {high:g} GeV, frame laboratory"
        ctx.book.numbers[name] = text
    for i, moments in enumerate(found.moments):
        if not np.allclose(physical(moments), moments):
            low, high = found.edges[i : i + 2]
            ctx.book.notes.append(
                f"spin density from {low:g} to {high:g} GeV: the fitted coefficients lie beyond what a "
                "vector can have; decays take the nearest ones that it can"
            )
    own = np.unique(kept.get("removed_angles", np.zeros((7, 0)))[6]).astype(np.int64)
    left = [str(name) for k, name in enumerate(kept["removed_names"]) if k not in own]
    if left:
        ctx.book.notes.append(
            f"spin density: {', '.join(left)}: known without decay angles, so not taken from those of the "
            "pairs; the coefficients shift by the share"
        )


def _rows(found: SpinDensities, m_fermion: float) -> list[tuple[float, float, str]]:
    values, errors = found.coefficients(m_fermion)
    return [
        (
            float(found.edges[i]),
            float(found.edges[i + 1]),
            ", ".join(f"{x:.2f} ± {e:.2f}" for x, e in zip(values[i], errors[i], strict=True)),
        )
        for i in range(len(values))
    ]


def spin_text(found: SpinDensities) -> str:
    """Return how the photons decay, for the manifest."""
    rows = "; ".join(f"{low:g} to {high:g} GeV: {text}" for low, high, text in _rows(found, 0.0))
    return (
        "spin density of the measured pairs, frame laboratory (z along the flight there, x in the production "
        f"plane), {', '.join(COEFFICIENTS)} for massless fermions, {rows}; other masses follow the nearest "
        "region"
    )


def ends_of(signal: FloatArray, others: FloatArray, spin: SpinDensities | None) -> FloatArray:
    """Return the two ends of the yields that the error of the spin state spans, shape (2, k).

    Parameters
    ----------
    signal : NDArray, shape (k,)
    others : NDArray, shape (s, k)
        In the other spin states of `carrying.spins_of`.
    spin : SpinDensities, optional
        The measured one, if the others are its shifts, up and down in turn: half of each difference counts,
        in quadrature. Else the ends are those of all states.
    """
    if spin is None:
        every = np.concatenate([signal[np.newaxis], others])
        return np.stack([every.min(axis=0), every.max(axis=0)])
    half = 0.5 * np.sqrt(np.sum((others[::2] - others[1::2]) ** 2, axis=0))
    return np.stack([np.clip(signal - half, 0.0, None), signal + half])


def read_spin(folder: Path) -> SpinDensities | None:
    """Read the spin density of a run; None if the run has none.

    Raises
    ------
    InputFileError
        If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return SpinDensities.of(read_tensors(path, {"edges": 1, "moments": 2, "cov": 3, "pairs": 1}))
