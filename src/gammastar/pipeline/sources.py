"""Systematic sources that all methods of unfolding share: shifts of the data, radiation of the leptons."""

from __future__ import annotations

import numpy as np

from gammastar import unfold
from gammastar.config.measured import Systematics
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray
from gammastar.physics.kroll_wada import radiated as radiated_shares
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stored_truth import View

__all__ = ["asked_shifts", "lepton_mass", "radiated"]

SOURCES = {"background": "background", "charm": "open charm"}


def asked_shifts(asked: Systematics, subtraction: Arrays) -> list[tuple[str, FloatArray]]:
    """Return the sources in the data that the steering names, with the shift of every measured cell.

    Raises
    ------
    SteeringError
        If the subtraction of this run has no such source.
    """
    names = [str(name) for name in subtraction["shift_names"]]
    wanted = [name for key, name in SOURCES.items() if getattr(asked, key)]
    missing = [name for name in wanted if name not in names]
    if missing or (asked.corrections and not set(names) - set(SOURCES.values())):
        what = ", ".join(missing) or "corrections"
        msg = f"unfold.systematics: there is no source {what} in this run; [subtract] gives {names or 'none'}"
        raise SteeringError(msg)
    if asked.corrections:
        wanted += [name for name in names if name not in SOURCES.values()]
    return [(name, subtraction["shifts"][names.index(name)]) for name in wanted]


def lepton_mass(ctx: Context) -> float:
    """Return the mass of the lepton of the run [GeV]."""
    return LEPTON_MASS["mu" if ctx.steering.spectrum is None else ctx.steering.spectrum.lepton]


def radiated(share: float, lepton: float, rng: np.random.Generator) -> View:
    """Return the simulation with more radiation, as a function of its parts."""

    def view(part: MatchedPairs) -> MatchedPairs:
        kept = radiated_shares(part.true[:, 0], lepton, rng)
        after = unfold.radiated_pairs(part, np.maximum(kept, 1e-3), m_lepton=lepton)
        return unfold.mixed_simulation(part, after, share)

    return view
