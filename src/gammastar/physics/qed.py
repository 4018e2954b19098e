"""Virtual and dark photons: Kroll-Wada, radiation of the leptons, widths and branching ratios.

GeV and metres; what belongs to a dark photon is per ε².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, M_E, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.files import read_columns
from gammastar.core.records import FloatArray, Rng

FormFactor2: TypeAlias = Callable[[FloatArray], FloatArray]


def lepton_factor(q2: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return (1 + 2 m²/q²) √(1 − 4 m²/q²) of γ* → l⁺l⁻ (Kroll and Wada 1955), zero below threshold."""
    q2 = np.asarray(q2, dtype=np.float64)
    above = q2 > 4.0 * m_lepton**2
    ratio = np.divide(m_lepton**2, q2, out=np.zeros_like(q2), where=above)
    return np.where(above, (1.0 + 2.0 * ratio) * np.sqrt(np.clip(1.0 - 4.0 * ratio, 0.0, None)), 0.0)


def kappa(mass: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return κ(m) = (α/3π) (1 + 2 mₗ²/m²) √(1 − 4 mₗ²/m²).

    A virtual photon of mass m gives lepton pairs with dN/dm² = κ(m)/m² times the rate of an on-shell
    vector of that mass and unit mixing.

    `mass`: [GeV]; `m_lepton`: [GeV].

    Allison and Blinov (2025), denominator of Eq. 6.

    Examples
    --------
    >>> from gammastar.core.constants import M_MU
    >>> round(float(1 / kappa(0.5, M_MU)), 2)
    1308.22
    """
    return ALPHA / (3.0 * np.pi) * lepton_factor(np.square(mass), m_lepton)


def pseudoscalar_dalitz(
    q2: npt.ArrayLike, parent_mass: float, m_lepton: float, form_factor2: FormFactor2
) -> FloatArray:
    """Return dΓ(P → γ l⁺l⁻)/dq² divided by Γ(P → γγ) [GeV⁻²].

    `q2`: [GeV²]; `parent_mass`, `m_lepton`: [GeV]; `form_factor2`: |F(q²)|², normalised to 1 at q² = 0 (see
    `gammastar.physics.hadrons`). Returns shape of `q2`; 0 outside 4 mₗ² < q² < M².

    (2α/3π)(1/q²)(1 − q²/M²)³ times the lepton factor; L. G. Landsberg, Phys. Rept. 128 (1985) 301, Eq. 2.8.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    inside = (q2 > 4.0 * m_lepton**2) & (q2 < parent_mass**2)
    safe = np.where(inside, q2, 0.5 * (4.0 * m_lepton**2 + parent_mass**2))
    rate = (2.0 * ALPHA / (3.0 * np.pi)) / safe * (1.0 - safe / parent_mass**2) ** 3
    return np.where(inside, rate * lepton_factor(safe, m_lepton) * form_factor2(safe), 0.0)


def vector_dalitz(
    q2: npt.ArrayLike, parent_mass: float, daughter_mass: float, m_lepton: float, form_factor2: FormFactor2
) -> FloatArray:
    """Return dΓ(V → P l⁺l⁻)/dq² divided by Γ(V → P γ) [GeV⁻²].

    `q2`: [GeV²]; `parent_mass`, `daughter_mass`, `m_lepton`: [GeV]; `form_factor2`: |F(q²)|², normalised to 1
    at q² = 0. Returns shape of `q2`; 0 outside 4 mₗ² < q² < (M − m_P)².

    L. G. Landsberg, Phys. Rept. 128 (1985) 301, Eq. 2.9; used for ω → π⁰ μ⁺μ⁻.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    inside = (q2 > 4.0 * m_lepton**2) & (q2 < (parent_mass - daughter_mass) ** 2)
    safe = np.where(inside, q2, 0.5 * (4.0 * m_lepton**2 + (parent_mass - daughter_mass) ** 2))
    gap = parent_mass**2 - daughter_mass**2
    phase_space = (1.0 + safe / gap) ** 2 - 4.0 * parent_mass**2 * safe / gap**2
    rate = ALPHA / (3.0 * np.pi) / safe * np.clip(phase_space, 0.0, None) ** 1.5
    return np.where(inside, rate * lepton_factor(safe, m_lepton) * form_factor2(safe), 0.0)


def dark_photon_rate(dn_dm: npt.ArrayLike, mass: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Turn a lepton-pair mass spectrum into the rate of dark photons of that mass, per ε².

    `dn_dm`: dN(γ* → l⁺l⁻)/dm [per GeV and per whatever the rate is wanted for, e.g. proton on target];
    `mass`: [GeV]; broadcast with `dn_dm`; `m_lepton`: [GeV].

    Allison and Blinov (2025), Eq. 6, with dN/dm² = (dN/dm)/2m: N_A'/ε² = (m/2)(dN/dm)/κ(m).
    """
    mass = np.asarray(mass, dtype=np.float64)
    if not bool(np.all(mass > 2.0 * m_lepton)):
        lowest = f"mass {float(np.min(mass)):.6g} GeV is not above the threshold {2.0 * m_lepton:.6g} GeV"
        raise PhysicsError(f"dark_photon_rate: {lowest}; remove these masses from the scan")
    return 0.5 * mass * np.asarray(dn_dm, dtype=np.float64) / kappa(mass, m_lepton)


def radiated(mass: FloatArray, lepton: float, rng: Rng) -> FloatArray:
    """Draw the fraction of its momentum that each lepton keeps after final-state radiation, shape (2, n).

    `mass` (shape (n,)): of the virtual photon [GeV]; `lepton`: mass of the lepton [GeV].

    Leading logarithms, all orders in soft photons: D(z) = (β/2)(1 − z)^{β/2 − 1}(1 + z²)/2, normalised, with
    β = (2α/π)[ln(m²/m_l²) − 1] (E. A. Kuraev and V. S. Fadin, Sov. J. Nucl. Phys. 41 (1985) 466). Photons
    go along the lepton; a photon added to its lepton gives the lepton before radiation.
    """
    beta = 2.0 * ALPHA / np.pi * np.maximum(2.0 * np.log(mass / lepton) - 1.0, 0.0)
    beta = np.broadcast_to(np.maximum(beta, 1e-12), (2, len(mass)))
    kept = np.ones((2, len(mass)))
    open_ = np.ones((2, len(mass)), dtype=np.bool_)
    while open_.any():
        count = int(open_.sum())
        z = 1.0 - rng.random(count) ** (2.0 / beta[open_])
        good = rng.random(count) < 0.5 * (1.0 + z**2)
        where = np.flatnonzero(open_)
        kept.flat[where[good]] = z[good]
        open_.flat[where[good]] = False
    return kept


NEGLIGIBLE = 1e-18  # share of the energy that a lepton loses: its quantile is the first guess
NEWTON = 6  # steps of `kept_momentum`: one more than rounding asks for at any mass


def kept_momentum(uniform: FloatArray, mass: FloatArray, lepton: float) -> FloatArray:
    """Return the quantiles of what `radiated` draws, shape of `uniform`.

    `uniform`, shape (…, n), in [0, 1); `mass` (shape (n,)): of the virtual photon [GeV]; `lepton`: mass of
    the lepton [GeV].

    With b = β/2 and t = (1 − z)^b the distribution function of 1 − z is f(t)/f(1), f = t (1 − b x/(b + 1) +
    b x²/(2(b + 2))), x = t^{1/b}, with the slope f' = (1 + (1 − x)²)/2. It is concave and below t: Newton's
    steps from t = f come from one side.
    """
    b = np.maximum(ALPHA / np.pi * np.maximum(2.0 * np.log(mass / lepton) - 1.0, 0.0), 1e-12)

    def f(t: FloatArray, x: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray(t * (1.0 - b * x / (b + 1.0) + b * x**2 / (2.0 * (b + 2.0))))

    one = np.ones_like(b)
    t = uniform * f(one, one, b)
    lost = t ** (1.0 / b)
    hard = lost > NEGLIGIBLE
    target, b = t[hard], np.broadcast_to(b, t.shape)[hard]
    t, x = target, lost[hard]
    for _ in range(NEWTON):
        t = np.minimum(t + (target - f(t, x, b)) / (0.5 * (1.0 + (1.0 - x) ** 2)), 1.0)
        x = t ** (1.0 / b)
    lost[hard] = x
    return np.asarray(1.0 - lost)


ArrayLike: TypeAlias = npt.ArrayLike

_HADRON_THRESHOLD = 2 * M_PI_CHARGED


def _masses(mass: ArrayLike) -> FloatArray:
    values = np.asarray(mass, dtype=np.float64)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise PhysicsError(f"dark photon mass {values[bad].flat[0]!r} GeV must be positive and finite")
    return values


@dataclass(frozen=True, slots=True, eq=False)
class RTable:
    """R(m) = Γ(A' → hadrons)/Γ(A' → μμ), the muon width with its phase space.

    `mass` (shape (n,) [GeV]): strictly increasing; `ratio`, shape (n,); `error` (shape (n,)): standard
    deviation of `ratio`, taken as common to all masses; None says nothing about it.

    Between the points R is linear; from the first point it falls linearly to zero at 2 m_π, and it is
    zero below. A table digitised from a curve is coarse on the ω and φ: no tolerance is claimed there.
    """

    mass: FloatArray
    ratio: FloatArray
    error: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.mass.ndim != 1 or self.mass.shape != self.ratio.shape or self.mass.size == 0:
            raise PhysicsError(f"RTable: mass {self.mass.shape}, ratio {self.ratio.shape}: unequal columns")
        if not (np.isfinite(self.mass).all() and np.isfinite(self.ratio).all()):
            raise PhysicsError("RTable: mass or ratio holds values that are not finite")
        if (np.diff(self.mass) <= 0).any() or self.mass[0] < _HADRON_THRESHOLD:
            raise PhysicsError(f"RTable: masses must increase, above 2 m_pi = {_HADRON_THRESHOLD:.5f} GeV")
        if (self.ratio < 0).any():
            raise PhysicsError(f"RTable: ratio {self.ratio.min()!r} is negative")
        if self.error is None:
            return
        if self.error.shape != self.mass.shape or not (np.isfinite(self.error) & (self.error >= 0)).all():
            raise PhysicsError(f"error {self.error.shape} must be a column like mass {self.mass.shape}, ≥ 0")

    @classmethod
    def read(cls, path: Path) -> RTable:
        """Read ``mass_GeV,R`` or ``mass_GeV,R,error``, # for comments; equal masses are averaged."""
        columns = ("mass_GeV", "R", "error")
        table = read_columns(path, columns, columns[:2], what="the table of R (r_ratio.csv)")
        mass, group = np.unique(table[:, 0], return_inverse=True)
        means = [np.bincount(group, weights=column) / np.bincount(group) for column in table.T[1:]]
        return cls(mass, *means)

    def shifted(self, sigmas: float) -> RTable:
        """Return the table with R moved by so many standard deviations, not below zero.

        Examples
        --------
        >>> table = RTable(np.array([0.5]), np.array([2.0]), np.array([0.1]))
        >>> float(table.shifted(1.0).at(0.5))
        2.1
        """
        error = np.zeros_like(self.ratio) if self.error is None else self.error
        return RTable(self.mass, np.clip(self.ratio + sigmas * error, 0.0, None), self.error)

    def at(self, mass: ArrayLike) -> FloatArray:
        """Return R at the given masses [GeV]."""
        values = _masses(mass)
        if (values > self.mass[-1]).any():
            raise PhysicsError(f"R is tabulated up to {self.mass[-1]} GeV, not {values.max()} GeV")
        # The threshold joins as a point of its own, unless the table already begins there.
        keep = self.mass > _HADRON_THRESHOLD
        mass_points = np.concatenate([[_HADRON_THRESHOLD], self.mass[keep]])
        ratio_points = np.concatenate([[0.0], self.ratio[keep]])
        return np.asarray(np.interp(values, mass_points, ratio_points, left=0.0), dtype=np.float64)


def lepton_width(mass: ArrayLike, m_lepton: float) -> FloatArray:
    """Return Γ(A' → l+l−)/ε² [GeV], exactly zero at and below threshold.

    `mass`, any shape [GeV]; `m_lepton`: [GeV].

    Γ = (ε² α m/3) √(1 − 4m_l²/m²) (1 + 2m_l²/m²), e.g. arXiv:1311.3870.

    Examples
    --------
    >>> f"{lepton_width(0.1, 0.51099895e-3):.4e}"
    '2.4325e-04'
    """
    values = _masses(mass)
    x = (m_lepton / values) ** 2
    return np.asarray(ALPHA * values / 3 * np.sqrt(np.clip(1 - 4 * x, 0.0, None)) * (1 + 2 * x))


def dark_photon_widths(mass: ArrayLike, r_table: RTable) -> dict[str, FloatArray]:
    """Return the partial widths per ε² [GeV] into "ee", "mumu" and "hadrons" at `mass` [GeV]."""
    muons = lepton_width(mass, M_MU)
    return {"ee": lepton_width(mass, M_E), "mumu": muons, "hadrons": r_table.at(mass) * muons}


def dark_photon_branching(mass: ArrayLike, r_table: RTable) -> dict[str, FloatArray]:
    """Return the branching ratios into "ee", "mumu" and "hadrons" at `mass` [GeV]; of sum one above 2 m_e."""
    widths = dark_photon_widths(mass, r_table)
    total = np.sum(list(widths.values()), axis=0)
    safe = np.where(total > 0, total, 1.0)
    return {name: np.asarray(partial / safe) for name, partial in widths.items()}


def dark_photon_ctau(mass: ArrayLike, coupling: ArrayLike, r_table: RTable) -> FloatArray:
    """Return cτ [m] at `mass` [GeV] and kinetic mixing; inf without open channel or coupling."""
    epsilon = np.asarray(coupling, dtype=np.float64)
    if not (np.isfinite(epsilon) & (epsilon >= 0)).all():
        raise PhysicsError(f"kinetic mixing {epsilon!r} must be finite and not negative")
    total = np.sum(list(dark_photon_widths(mass, r_table).values()), axis=0) * epsilon**2
    with np.errstate(divide="ignore"):
        return np.asarray(CTAU_PER_GEV / total, dtype=np.float64)
