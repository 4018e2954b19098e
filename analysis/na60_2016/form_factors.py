"""|F|² of η → γμ⁺μ⁻ and ω → π⁰μ⁺μ⁻ as NA60 measured them: points, pole fits, branching fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.integrate import quad
from scipy.optimize import curve_fit

from gammastar import read
from gammastar.core import constants
from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.physics.hadrons import eta2, pointlike
from gammastar.physics.qed import pseudoscalar_dalitz, vector_dalitz

SOURCE = "NA60, p-A at 400 GeV, arXiv:1608.07898, HEPData ins1452485"
FINE = 201  # points of an integral over a bin of 20 MeV
DECAYS = {
    "eta": ("eta -> gamma gamma", "eta -> mu mu gamma"),
    "omega": ("omega -> pi0 gamma", "omega -> pi0 mu mu"),
}
PUBLISHED = {
    "eta": (1.934, 0.067, 0.050),
    "omega": (2.223, 0.026, 0.037),
}  # Λ⁻² [GeV⁻²], stat., syst.; same paper


@dataclass(frozen=True, slots=True, eq=False)
class FormFactor2:
    """A measured |F|².

    Attributes
    ----------
    meson : {"eta", "omega"}
    low, high : NDArray, shape (n,) [GeV]
        Bins of the dimuon mass.
    value, error : NDArray, shape (n,)
        |F|² and its total error. The record has no correlations: points count as independent unless said.
    """

    meson: str
    low: FloatArray
    high: FloatArray
    value: FloatArray
    error: FloatArray

    @classmethod
    def read(cls, meson: str) -> FormFactor2:
        """Read the shipped table of "eta" or "omega"."""
        table = read.hepdata(data_path(f"published/na60_2016/form_factor_{meson}.csv"))
        column, axis = table.column("F2"), table.axes[0]
        return cls(meson, axis.low, axis.high, column.values, column.errors[0].plus)

    @property
    def mass_range(self) -> tuple[float, float]:
        """First and last measured mass [GeV]."""
        return float(self.low[0]), float(self.high[-1])

    @property
    def photons(self) -> constants.Branching:
        """Branching fraction to γγ, or to π⁰γ."""
        return constants.BRANCHING[DECAYS[self.meson][0]]

    def kroll_wada(
        self, mass: npt.ArrayLike, form: Callable[[FloatArray], FloatArray] = pointlike
    ) -> FloatArray:
        """Return dΓ(μ⁺μ⁻)/dm over the width to γγ or π⁰γ [1/GeV]."""
        m = np.asarray(mass, dtype=np.float64)
        if self.meson == "eta":
            return 2 * m * pseudoscalar_dalitz(m**2, constants.mass(221), M_MU, form)
        return 2 * m * vector_dalitz(m**2, constants.mass(223), M_PI0, M_MU, form)

    def _mixing(self, mass: npt.ArrayLike) -> FloatArray:
        """Return what each point weighs at a mass, shape (k, n): straight in m² between the bins' centres."""
        centre = np.square(0.5 * (self.low + self.high))
        q2 = np.square(np.atleast_1d(np.asarray(mass, dtype=np.float64)))
        left = np.clip(np.searchsorted(centre, q2) - 1, 0, len(centre) - 2)
        share = (q2 - centre[left]) / (centre[left + 1] - centre[left])
        rows = np.zeros((len(q2), len(centre)))
        index = np.arange(len(q2))
        rows[index, left], rows[index, left + 1] = 1 - share, share
        return rows

    def at(self, mass: npt.ArrayLike) -> FloatArray:
        """Return |F|² at masses, shape (k,): ln|F|² straight in m² from point to point and to the ends."""
        return np.asarray(np.exp(self._mixing(mass) @ np.log(self.value)))

    def relative_cov(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the covariance of ln|F|² at masses, shape (k, k)."""
        rows = self._mixing(mass) * (self.error / self.value)
        return np.asarray(rows @ rows.T)

    def bins(self, form: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Return the mean of a form factor in each bin, weighted with the point-like decay."""
        grid = np.linspace(self.low, self.high, FINE, axis=1)
        weight = self.kroll_wada(grid)
        return np.asarray((weight * form(grid**2)).sum(axis=1) / weight.sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class PoleFit:
    """A fit of N (1 − q²/Λ²)⁻².

    Attributes
    ----------
    value : NDArray, shape (1,) or (2,)
        Λ⁻² [GeV⁻²], and N if it was free.
    cov : NDArray, shape (1, 1) or (2, 2)
    chi2 : float
    ndf : int
    """

    value: FloatArray
    cov: FloatArray
    chi2: float
    ndf: int

    @property
    def error(self) -> FloatArray:
        """Standard deviations."""
        return np.sqrt(np.diag(self.cov))

    def at(self, mass: npt.ArrayLike) -> FloatArray:
        """Return |F|² of the fit with N = 1."""
        return eta2(np.square(mass), float(self.value[0]))


def fit_pole(measured: FormFactor2, *, free_norm: bool = False) -> PoleFit:
    """Fit the pole to the points, as means over the bins.

    N = 1 is what the decay to a real photon says.
    """

    def model(_: FloatArray, inverse: float, norm: float = 1.0) -> FloatArray:
        return norm * measured.bins(partial(eta2, inverse_lambda2=inverse))

    start = [1.9, 1.0] if free_norm else [1.9]
    centre = 0.5 * (measured.low + measured.high)
    value, cov = curve_fit(model, centre, measured.value, start, sigma=measured.error, absolute_sigma=True)
    chi2 = float(np.square((measured.value - model(centre, *value)) / measured.error).sum())
    return PoleFit(value, cov, chi2, len(measured.value) - len(value))


@dataclass(frozen=True, slots=True)
class DimuonFraction:
    """Branching fraction to μ⁺μ⁻ from the measured points, Kroll-Wada and the fraction to real photons.

    Attributes
    ----------
    value : float
    points, common : float
        Error of the points if they are independent, and if they move together.
    photons : float
        Error of the branching fraction to photons.
    beyond : float
        Part of `value` above the last point, from the pole.
    """

    value: float
    points: float
    common: float
    photons: float
    beyond: float

    @property
    def error(self) -> float:
        """Standard deviation with points that move together: the larger of the two."""
        return float(np.hypot(self.common, self.photons))


def dimuon_fraction(measured: FormFactor2, fit: PoleFit) -> DimuonFraction:
    """Integrate the points over Kroll-Wada; above the last one the pole continues."""
    grid = np.linspace(measured.low, measured.high, FINE, axis=1)
    weight = np.trapezoid(measured.kroll_wada(grid), grid, axis=1)
    parent = constants.mass(221) if measured.meson == "eta" else constants.mass(223) - M_PI0
    form = partial(eta2, inverse_lambda2=float(fit.value[0]))
    last = measured.mass_range[1]
    tail = quad(lambda m: float(measured.kroll_wada(m, form)), last, parent)[0]
    b = measured.photons
    total = float(weight @ measured.value) + tail
    return DimuonFraction(
        b.value * total,
        b.value * float(np.sqrt(np.square(weight * measured.error).sum())),
        b.value * float(weight @ measured.error),
        b.error * total,
        b.value * tail,
    )
