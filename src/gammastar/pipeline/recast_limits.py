"""Limits on dark photons carried to another vector by ratios of rate, branching ratio and lifetime."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from gammastar import predict, report
from gammastar.config import Predict
from gammastar.core.records import FloatArray
from gammastar.core.resolve import UserCode
from gammastar.physics.hadronic_split import SPLIT_MAX
from gammastar.pipeline.producing import make_model, needs_shares, r_table, theory_channel

__all__ = ["RECAST_NOTE", "edges_of", "recast_limits"]

RECAST_NOTE = (
    "recast by ratios of rate, branching ratio to ee and lifetime at one effective momentum; shares of the "
    "processes from the theory channels at 400 GeV"
)
BEAM = 400.0  # GeV, for the shares of the processes
N_MASSES = 60
CHANNELS = ("pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")
LENGTHS = {  # from the target to the decay volume and its length [m]
    "FASER": (476.0, 1.5),  # arXiv:2308.05587
    "NA62": (81.6, 77.9),  # arXiv:2312.12055
    "CHARM (recomputed)": (480.0, 35.0),  # Phys. Lett. B 157 (1985) 458
    "NuCal (recomputed)": (64.0, 23.0),  # Z. Phys. C 51 (1991) 341
}


def edges_of(polygon: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the lowest and highest coupling of a closed polygon at masses, shape (n, 2); nan outside it.

    Parameters
    ----------
    polygon : NDArray, shape (k, 2)
        Mass [GeV] and coupling; logarithmic between vertices.
    mass : NDArray, shape (n,) [GeV]
    """
    low, high = np.full(len(mass), np.inf), np.full(len(mass), -np.inf)
    x, y = polygon[:, 0], np.log(polygon[:, 1])
    for (x0, y0), (x1, y1) in pairwise(zip([*x, x[0]], [*y, y[0]], strict=True)):
        if x0 != x1:
            part = (mass - x0) / (x1 - x0)
            at = np.where((part >= 0) & (part <= 1), y0 + part * (y1 - y0), np.nan)
            low, high = np.fmin(low, at), np.fmax(high, at)
    edges = np.exp(np.stack([low, high], axis=1))
    edges[~(low < high - 1e-6)] = np.nan
    return np.asarray(edges, dtype=np.float64)


def recast_limits(section: Predict, where: Path | UserCode) -> list[report.ExistingLimit]:
    """Return the shipped limits on dark photons as limits on the model of a steering file.

    Parameters
    ----------
    section : Predict
        Names the model, the table of mesons and the preset of bremsstrahlung.
    where : Path or UserCode
        Folder of the steering file, or the code that was frozen there.

    Returns
    -------
    list of ExistingLimit
        Of kind "recast", one for each island; none where the vector is not seen.

    Notes
    -----
    `gammastar.predict.displaced` with the lengths of each experiment. Decays to e⁺e⁻ only, which is what the
    experiments mostly saw; FASER's shares of the processes are taken as those of 400 GeV.
    """
    model, photon = make_model(section.model, where), predict.DarkPhoton(r_table())
    channels = (
        [theory_channel(name, section, where, BEAM) for name in CHANNELS] if needs_shares(model) else []
    )
    found = []
    for limit in report.existing_limits(kinds=("observed", "recast")):
        near, length = LENGTHS[limit.name]
        low, high = limit.polygon[:, 0].min(), min(limit.polygon[:, 0].max(), SPLIT_MAX)
        mass = np.geomspace(low * 1.001, high * 0.999, N_MASSES)
        edges = edges_of(limit.polygon, mass)
        inside = np.isfinite(edges).all(axis=1)
        mass, edges = mass[inside], edges[inside]
        if needs_shares(model):
            ratio = model.rate_ratio(mass, predict.shares_of(channels, mass))
        else:
            ratio = model.rate_ratio(mass)
        new = predict.displaced(
            mass, edges, photon, model, state="ee", ratio=ratio, length_ratio=(near + length) / near
        )
        found += [_limit(limit, section.model, polygon) for polygon in _islands(mass, new)]
    return found


def _limit(limit: report.ExistingLimit, plane: str, polygon: FloatArray) -> report.ExistingLimit:
    name = limit.name.removesuffix(" (recomputed)")
    return replace(limit, name=f"{name} (recast)", plane=plane, kind="recast", polygon=polygon)


def _islands(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of runs of two masses or more with finite edges."""
    good = np.asarray(np.isfinite(edges).all(axis=1), dtype=np.bool_)
    runs = np.split(np.arange(len(mass)), np.flatnonzero(np.diff(good)) + 1)
    polygons = []
    for run in runs:
        if len(run) > 1 and good[run[0]]:
            lower = np.stack([mass[run], edges[run, 0]], axis=1)
            upper = np.stack([mass[run], edges[run, 1]], axis=1)
            polygons.append(np.concatenate([lower, upper[::-1]]))
    return polygons
