"""Named corrections: dimuons that are no single virtual photon, removed with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hist import Hist

from gammastar.core.constants import BRANCHING, EDITION, mass
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import MASS, FloatArray, Spectrum, filled
from gammastar.subtract.charm import CharmFit, subtract_component
from gammastar.subtract.weights import Removed, cell_values

ETA = 221
WINDOW = 2.0  # standard deviations of the mass around the η whose simulated pairs give pt and energy

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
    template : Hist
        Shape on the axes of the spectrum.
    amount, sigma : float
        Pairs inside the axes and their standard deviation.
    pairs : Pairs, optional
        Of which the template was filled.
    """

    name: str
    template: Hist[Any]
    amount: float
    sigma: float
    source: str
    pairs: Pairs | None = None

    @property
    def shift(self) -> FloatArray:
        """What one standard deviation does to the spectrum, shape (n_cells,)."""
        values = self.template.values().ravel()
        return np.asarray(-(values / values.sum()) * self.sigma)

    def removed(self) -> Removed:
        """Return the pairs with weights that sum to the amount inside the axes, 0 outside."""
        if self.pairs is None:
            msg = f"{self.name}: the correction has a histogram and no pairs"
            raise UserError(msg)
        inside = np.ones(self.template.values().shape)
        weight = self.pairs.weight * cell_values(self.pairs, tuple(self.template.axes), inside)
        return self.pairs, weight * (self.amount / max(float(weight.sum()), 1e-300))


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
        If two corrections have the same name, or a template is empty.
    """
    names = [c.name for c in corrections]
    if len(set(names)) < len(names):
        msg = f"corrections: names must differ, got {', '.join(names)}"
        raise UserError(msg)
    total = float(spectrum.values.sum())
    done = []
    for c in corrections:
        if c.template.values().sum() <= 0:
            msg = f"subtract: no pair of the template {c.name!r} lies inside the axes of [select]"
            raise UserError(msg)
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

    share = np.diff(norm.cdf(np.asarray(axis.edges), mass(ETA), resolution))
    amount = n_dalitz * ratio[0] * efficiency_ratio
    relative = np.hypot(ratio[1] / ratio[0], n_dalitz_sigma / n_dalitz if n_dalitz else 0.0)
    inside = amount * float(share.sum())
    hist = filled((axis,), share, np.zeros_like(share))
    return Correction("eta to mu mu", hist, inside, abs(inside) * float(relative), EDITION)


def eta_pairs(matched: MatchedPairs, resolution: float, *, rng: np.random.Generator) -> Pairs:
    """Return pairs of η → μμ: pt and energy of simulated photons near its mass, which is smeared."""
    pole = mass(ETA)
    seen = matched.reco[matched.reconstructed]
    near = seen[np.abs(seen[:, 0] - pole) < WINDOW * resolution]
    n = len(near)
    if not n:
        msg = f"subtract.corrections: no simulated pair within {WINDOW:g} σ of the η gives its pt and energy"
        raise UserError(msg)
    masses = rng.normal(pole, resolution, n)
    return Pairs(masses, near[:, 1], near[:, 2], np.zeros(n, np.int8), np.ones(n), np.arange(n))


def charm_correction(fit: CharmFit, template: Pairs, inside: Hist[Any], fitted: Hist[Any]) -> Correction:
    """Return fitted open charm as a correction."""
    share = float(inside.values().sum()) / float(fitted.values().sum())
    about = "simulated charm, fitted in mass and vertex offset"
    return Correction("open charm", inside, fit.charm * share, fit.charm_sigma * share, about, template)


def removed_columns(removed: Sequence[Removed], names: Sequence[str]) -> FloatArray:
    """Return pairs to remove that have the named columns, shape (5 + n_names, n).

    Rows: mass, pt, energy, the columns, weight, and the number of the component; those without miss.
    """
    parts = [np.zeros((5 + len(names), 0))]
    for k, (pairs, weight) in enumerate(removed):
        if all(name in pairs.columns for name in names):
            rows = (pairs.mass, pairs.pt, pairs.energy, *(pairs.columns[name] for name in names), weight)
            parts.append(np.stack([*rows, np.full(len(pairs), float(k))])[:, weight > 0])
    return np.concatenate(parts, axis=1)
