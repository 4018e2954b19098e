"""How often a true signal is excluded: pseudo-experiments against the distributions of the statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.channels import Channel
from gammastar.infer.tails import BATCHES, Experiments, grouped_tails, weighted_tails
from gammastar.infer.toys import Convention, Model, Toys, compiled, draw, statistics
from gammastar.infer.weighted_toys import TIE

__all__ = ["Coverage", "coverage"]

GROUPS = 1000  # of equal measurements, where toys keep them


@dataclass(frozen=True, slots=True)
class Coverage:
    """Fractions of pseudo-experiments with the signal in which the signal is excluded.

    Attributes
    ----------
    clsb, cls : float
        P(CLs+b < 1 − cl), which should be 1 − cl, and P(CLs < 1 − cl), which is smaller by construction.
    error : float
        Standard deviation of `clsb` from the number of pseudo-experiments and of toys.
    experiments, toys : int
    method : str
    """

    clsb: float
    cls: float
    error: float
    experiments: int
    toys: int
    method: str


def coverage(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    cl: float = 0.90,
    truth: Mapping[str, float] | None = None,
    experiments: int = 100_000,
    n_toys: int = 200_000,
    plug_in: bool = True,
) -> Coverage:
    """Return how often a signal of strength one is excluded when it is there.

    Parameters
    ----------
    channels : sequence of Channel
        Their observed events play no role.
    rng : numpy.random.Generator
    convention : Convention, optional
        What the analysis does; by default the ratio of likelihoods with randomised auxiliary measurements.
        In the pseudo-experiments themselves measurements always vary around the true nuisances.
    cl : float
    truth : mapping of str to float, optional
        True nuisances of the pseudo-experiments in standard deviations, 0 by default.
    experiments : int
    n_toys : int
        Toys in all of each hypothesis.
    plug_in : bool
        Toys as an analysis has them; else all at nominal nuisances, with randomised measurements.

    Returns
    -------
    Coverage

    Raises
    ------
    PhysicsError
        For true values of nuisances that do not occur, and toys at nominal nuisances that keep measurements.

    Notes
    -----
    Drawing toys anew for each experiment is hopeless. With randomised measurements one set of weighted toys
    serves all experiments; otherwise experiments come in 1000 groups of equal measurements, which fill their
    distribution evenly, and each group has its toys (`gammastar.infer.tails`). `error` holds the binomial
    error, which is too large for groups, and with randomised measurements that of the toys.
    """
    convention = Convention("ratio", "randomised") if convention is None else convention
    model = compiled(channels, convention)
    unknown = set(truth or {}) - set(model.nuisances)
    if unknown:
        msg = f"coverage: true values of {sorted(unknown)}; the nuisances are {model.nuisances}"
        raise PhysicsError(msg)
    if not plug_in and convention.auxiliary != "randomised":
        msg = f"coverage: toys at nominal nuisances need randomised measurements, not {convention.auxiliary}"
        raise PhysicsError(msg)
    true = np.array([(truth or {}).get(name, 0.0) for name in model.nuisances])
    toyed = _Toyed(model, convention, n_toys, rng, 2.0 * (1.0 - cl))
    groups = 1 if convention.auxiliary == "randomised" else GROUPS
    experiments = max(experiments // groups, 1) * groups
    toys = draw(model, true, 1.0, experiments, rng, randomise=True)
    if groups > 1:
        aux = true + _spread(groups, len(true), rng)
        toys = replace(toys, aux=np.repeat(aux, experiments // groups, axis=0))
    q = statistics(model, toys, 1.0, convention.statistic)
    clsb, clb = toyed.tails(toys, q, fitted=plug_in and bool(model.nuisances))
    level = 1.0 - cl
    excluded = clsb.mean(axis=1) < level
    by_cls = clsb.mean(axis=1) < level * clb
    variance = cl * level / experiments
    if groups == 1:
        parts = clsb.shape[1]
        left_out = (clsb.sum(axis=1)[:, None] - clsb) / (parts - 1)
        variance += (parts - 1) * np.var(np.mean(left_out < level, axis=0))
    what = {"fixed": "fitted", "randomised": "fitted", "averaged": "averaged"}[convention.auxiliary]
    label = f"{experiments} experiments, toys at {what if plug_in else 'nominal'} nuisances, {convention}"
    fractions = float(excluded.mean()), float(by_cls.mean())
    return Coverage(*fractions, float(np.sqrt(variance)), experiments, n_toys, label)


def _spread(n: int, dimensions: int, rng: np.random.Generator) -> FloatArray:
    """Return unit-normal vectors that fill each dimension evenly (Latin hypercube), shape (n, dimensions)."""
    cells = np.argsort(rng.random((n, dimensions)), axis=0)
    return np.asarray(ndtri((cells + rng.random((n, dimensions))) / n), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Toyed:
    """Toys of an analysis; tails above `most` need not be known well."""

    model: Model
    convention: Convention
    n_toys: int
    rng: np.random.Generator
    most: float

    def tails(self, toys: Toys, q: FloatArray, *, fitted: bool) -> tuple[FloatArray, FloatArray]:
        """Return CLs+b in parts of the toys, and CLb of all experiments that may be excluded, else 1."""
        how = (self.model, self.convention)
        without = np.ones(len(q))
        if self.convention.auxiliary != "randomised":
            aux = toys.aux[:: len(q) // GROUPS]
            both = []
            for strength in (1.0, 0.0):
                experiments = Experiments.under(strength, self.model, toys, q)
                both.append(grouped_tails(*how, replace(experiments, aux=aux), self.n_toys, self.rng))
            return both[0][:, None], both[1]
        if not fitted:
            tail = self.nominal(q, 1.0)
            near = np.flatnonzero(tail.mean(axis=1) < self.most)
            without[near] = self.nominal(q[near], 0.0).mean(axis=1)
            return tail, without
        experiments = Experiments.under(1.0, self.model, toys, q)
        tail = weighted_tails(*how, experiments, self.n_toys, self.rng, self.most)
        near = np.flatnonzero(tail.mean(axis=1) < self.most)
        experiments = Experiments.under(0.0, self.model, toys, q).chosen(near)
        without[near] = weighted_tails(*how, experiments, self.n_toys, self.rng, self.most).mean(axis=1)
        return tail, without

    def nominal(self, q: FloatArray, strength: float) -> FloatArray:
        """Return P(≥ q) at nominal nuisances in parts of the toys."""
        theta = np.zeros(len(self.model.nuisances))
        toys = draw(self.model, theta, strength, self.n_toys, self.rng, randomise=True)
        parts = np.array_split(statistics(self.model, toys, 1.0, self.convention.statistic), BATCHES)
        below = [np.searchsorted(np.sort(part), q - TIE) / len(part) for part in parts]
        return np.asarray(1.0 - np.stack(below, axis=1), dtype=np.float64)
