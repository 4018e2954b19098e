"""Weighted toys: one set of pseudo-experiments for all signal strengths.

Toys are drawn from background only and from signal plus background at a few strengths. Every toy then serves
every hypothesis h with the weight p_h/Σ_k α_k p_k, the balance heuristic of E. Veach and L. Guibas (SIGGRAPH
1995): weights stay bounded, all strengths share their random numbers, and CLs is a smooth function of the
strength, so that its root is a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from gammastar.core.records import FloatArray
from gammastar.infer import profile
from gammastar.infer.toys import Convention, ToyModel, Toys, draw, statistics

__all__ = ["TIE", "CLs", "WeightedToys", "draw_weighted_toys"]

TIE = 1e-7
"""Differences of the statistic below this are ties (at n = 0 it has an atom)."""


@dataclass(frozen=True, slots=True)
class CLs:
    """CLs of one hypothesis with its Monte Carlo error.

    Attributes
    ----------
    cls, error : float
        CLs and its standard deviation from the finite number of toys.
    clsb, clb : float
        P(q ≥ q_obs) under signal plus background and under background only.
    q : float
        Observed test statistic (nan in the closed form).
    toys : int
    effective : float
        Kish's effective number of toys of the worse hypothesis.
    method : str
    """

    cls: float
    error: float
    clsb: float
    clb: float
    q: float
    toys: int
    effective: float
    method: str


@dataclass(frozen=True, slots=True, eq=False)
class WeightedToys:
    """Toys of several proposals with the logarithm of their mixture density.

    Where toys average over nuisances, `theta` holds those of each toy, equally distributed in all proposals;
    densities are then those of the events at these nuisances.
    """

    model: ToyModel
    convention: Convention
    data: Toys
    toys: Toys
    log_mixture: FloatArray
    theta: FloatArray | None

    def log_weight(self, strength: float) -> FloatArray:
        """Return the logarithm of the weight of each toy under a hypothesis, shape (n,)."""
        theta = self.model.fitted(self.data, strength) if self.theta is None else self.theta
        return _log_density(self.model, self.toys, theta, strength, self.convention) - self.log_mixture

    def at(self, strength: float) -> CLs:
        """Return CLs of a signal strength."""
        model, kind = self.model, self.convention.statistic
        observed = float(statistics(model, self.data, strength, kind)[0])
        beyond = statistics(model, self.toys, strength, kind) >= observed - TIE
        with_signal, without = np.exp(self.log_weight(strength)), np.exp(self.log_weight(0.0))
        sums = with_signal.sum(), without.sum()
        clsb, clb = float(with_signal[beyond].sum() / sums[0]), float(without[beyond].sum() / sums[1])
        n = len(beyond)
        label = f"exact CLs, {n} weighted toys, {self.convention}"
        effective = min(sums[0] ** 2 / (with_signal**2).sum(), sums[1] ** 2 / (without**2).sum())
        if clb <= 0 or clsb <= 0:
            return CLs(0.0, 1.0 / n, clsb, clb, observed, n, float(effective), label)
        cls = clsb / clb
        # influence of each toy on the ratio of two self-normalised averages
        pull = with_signal / sums[0] * (beyond / clsb - 1.0) - without / sums[1] * (beyond / clb - 1.0)
        error = cls * float(np.sqrt((pull**2).sum()))
        return CLs(cls, error, clsb, clb, observed, n, float(effective), label)


def draw_weighted_toys(
    model: ToyModel,
    convention: Convention,
    data: Toys,
    strengths: Sequence[float],
    n: int,
    rng: np.random.Generator,
) -> WeightedToys:
    """Draw n toys without signal and n in all at the strengths."""
    randomise, average = convention.auxiliary == "randomised", convention.auxiliary == "averaged"
    sizes = {0.0: n, **{mu: max(n // len(strengths), 1) for mu in strengths}}
    thetas = {
        mu: data.aux[0] + rng.standard_normal((k, len(model.nuisances)))
        if average
        else model.fitted(data, mu)
        for mu, k in sizes.items()
    }
    drawn = [draw(model, thetas[mu], mu, k, rng, randomise=randomise) for mu, k in sizes.items()]
    shifts = np.cumsum([0, *(len(part.ratio) for part in drawn)])
    offsets = np.concatenate([[0], *(p.offsets[1:] + s for p, s in zip(drawn, shifts[:-1], strict=True))])
    aux = np.concatenate([part.aux for part in drawn]) if randomise else model.aux[None, :]
    toys = Toys(np.concatenate([part.ratio for part in drawn]), offsets.astype(np.int64), aux)
    share = np.log(list(sizes.values())) - np.log(sum(sizes.values()))
    each = np.concatenate(list(thetas.values())) if average else None
    densities = [
        _log_density(model, toys, thetas[mu] if each is None else each, mu, convention) for mu in sizes
    ]
    mixture = np.asarray(logsumexp(np.stack(densities) + share[:, None], axis=0), dtype=np.float64)
    return WeightedToys(model, convention, data, toys, mixture, each)


def _log_density(
    model: ToyModel, toys: Toys, theta: FloatArray, strength: float, convention: Convention
) -> FloatArray:
    rates = model.rates(np.atleast_2d(theta), strength)
    density = np.asarray(profile.log_density(rates, toys.ratio, toys.offsets))
    if convention.auxiliary == "randomised":
        density = density - 0.5 * ((toys.aux - theta) ** 2).sum(axis=1)
    return density
