"""Named corrections: dimuons that are no single virtual photon, removed with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hist import Hist

from gammastar.core.axes import MASS, filled
from gammastar.core.constants import BRANCHING, EDITION, mass
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Spectrum
from gammastar.subtract.charm import subtract_component

__all__ = [
    "ETA_DIMUON_RATIO",
    "Applied",
    "Correction",
    "apply_corrections",
    "correction_table",
    "eta_dimuon",
    "scaled_shape",
]

_TWO, _DALITZ = BRANCHING["eta -> mu mu"], BRANCHING["eta -> mu mu gamma"]
_RATIO = _TWO.value / _DALITZ.value
ETA_DIMUON_RATIO = (
    _RATIO,
    _RATIO * float(np.hypot(_TWO.error / _TWO.value, _DALITZ.error / _DALITZ.value)),
)
"""BR(η → μ⁺μ⁻)/BR(η → μ⁺μ⁻γ) and its standard deviation."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """Pairs to remove.

    Attributes
    ----------
    name : str
    template : Hist
        Shape on the axes of the spectrum.
    amount, sigma : float
        Pairs inside the axes and their standard deviation.
    source : str
    """

    name: str
    template: Hist[Any]
    amount: float
    sigma: float
    source: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What a correction took away: name, pairs, standard deviation, fraction of the yield."""

    name: str
    amount: float
    sigma: float
    fraction: float
    source: str


def apply_corrections(
    spectrum: Spectrum, corrections: Sequence[Correction]
) -> tuple[Spectrum, tuple[Applied, ...]]:
    """Remove every correction; their uncertainties are independent of each other.

    Returns
    -------
    Spectrum
    tuple of Applied
        For the table of sources.

    Raises
    ------
    UserError
        If two corrections have the same name.
    """
    names = [c.name for c in corrections]
    if len(set(names)) < len(names):
        msg = f"corrections: names must differ, got {', '.join(names)}"
        raise UserError(msg)
    total = float(spectrum.values.sum())
    done = []
    for c in corrections:
        spectrum = subtract_component(spectrum, c.template, c.amount, c.sigma)
        fraction = c.amount / total if total != 0 else float("nan")
        done.append(Applied(c.name, c.amount, c.sigma, fraction, c.source))
    return spectrum, tuple(done)


def eta_dimuon(
    axis: Any,
    n_dalitz: float,
    *,
    resolution: float,
    efficiency_ratio: float = 1.0,
    n_dalitz_sigma: float = 0.0,
    ratio: tuple[float, float] = ETA_DIMUON_RATIO,
) -> Correction:
    """Return η → μμ, a two-photon process, sized by the η Dalitz decays.

    Parameters
    ----------
    axis : hist axis
        Mass.
    n_dalitz, n_dalitz_sigma : float
        Measured η → μμγ pairs, e.g. the yield of the line-shape fit times its efficiency.
    resolution : float
        Standard deviation of the mass at 0.548 GeV [GeV].
    efficiency_ratio : float
        Efficiency of the two-body over that of the Dalitz decay.
    ratio : (float, float)
        BR(η → μμ)/BR(η → μμγ) and its standard deviation.
    """
    if axis.name != MASS or resolution <= 0:
        msg = f"eta_dimuon: axis {axis.name!r} must be the mass and resolution {resolution} positive"
        raise UserError(msg)
    from scipy.stats import norm

    share = np.diff(norm.cdf(np.asarray(axis.edges), mass(221), resolution))
    amount = n_dalitz * ratio[0] * efficiency_ratio
    relative = np.hypot(ratio[1] / ratio[0], n_dalitz_sigma / n_dalitz if n_dalitz else 0.0)
    inside = amount * float(share.sum())
    hist = filled((axis,), share, np.zeros_like(share))
    return Correction("eta to mu mu", hist, inside, abs(inside) * float(relative), EDITION)


def scaled_shape(
    name: str, template: Hist[Any], spectrum: Spectrum, *, fraction: float, sigma: float, source: str
) -> Correction:
    """Return a correction that is a fraction of the yield, e.g. Bethe-Heitler-like pairs of a calculation.

    Parameters
    ----------
    name : str
    template : Hist
        On the axes of `spectrum`.
    spectrum : Spectrum
    fraction, sigma : float
        Of the total yield, and its absolute uncertainty.
    source : str
        Paper or calculation.
    """
    total = float(spectrum.values.sum())
    return Correction(name, template, fraction * total, abs(sigma * total), source)


def correction_table(applied: Sequence[Applied]) -> dict[str, list[FloatArray | str | float]]:
    """Return the applied corrections as columns of a table."""
    return {
        "source": [a.name for a in applied],
        "pairs": [a.amount for a in applied],
        "error": [a.sigma for a in applied],
        "fraction": [a.fraction for a in applied],
        "reference": [a.source for a in applied],
    }
