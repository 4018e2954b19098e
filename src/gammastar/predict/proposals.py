"""Importance sampling of a flow: normal numbers are drawn where they count, with their exact weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gammastar.core.records import FloatArray

WIDTHS = (1.0, 2.0, 3.5)  # of the pilot, in standard deviations: the last one sees the rarest energies
ROUNDS = 2
PILOT, FEWEST = 0.1, 1500  # share of the particles that each round takes, and how many at least
PLAIN = 0.1  # share of the particles that stay as they are, and of those of the pilot
WIDER = 1.5  # than the fitted covariance: tails of a proposal must not be too thin
FARTHEST = 7.0  # standard deviations; 5e-12 of the draws lie beyond, where single precision ends
LEAST = 8.0  # effective number of particles from which a shape is fitted


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A mixture of normal densities in two dimensions."""

    share: FloatArray  # Sum to one, shape (c,)
    mean: FloatArray  # shape (c, 2)
    cov: FloatArray  # shape (c, 2, 2)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return n points (n, 2) and their weights (n,): standard normal density over that of the mixture."""
        count = rng.multinomial(n, self.share)
        component = np.repeat(np.arange(len(count)), count)
        root = np.linalg.cholesky(self.cov)
        normal = rng.standard_normal((n, 2))
        point = self.mean[component] + np.sum(root[component] * normal[:, None, :], axis=2)
        weight = np.exp(-0.5 * np.sum(point**2, axis=1) - np.log(2 * np.pi) - self.log_density(point))
        inside = (np.abs(point) < FARTHEST).all(axis=1)
        return np.clip(point, -FARTHEST, FARTHEST), np.where(inside, weight, 0.0)

    def log_density(self, point: FloatArray) -> FloatArray:
        """Return the logarithm of the density at points (n, 2), shape (n,)."""
        whitening = np.linalg.inv(np.linalg.cholesky(self.cov))  # lower triangular
        x, y = (point[:, k] - self.mean[:, k, None] for k in (0, 1))
        distance = np.square(whitening[:, 0, 0, None] * x)
        distance += np.square(whitening[:, 1, 0, None] * x + whitening[:, 1, 1, None] * y)
        norm = np.log(self.share) - np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(self.cov))
        logs = norm[:, None] - 0.5 * distance
        largest = logs.max(axis=0)
        return np.asarray(np.log(np.exp(logs - largest).sum(axis=0)) + largest)


def broad() -> Proposal:
    """Return the proposal of the pilot, which knows nothing."""
    n = len(WIDTHS)
    cov = np.eye(2) * np.square(WIDTHS)[:, None, None]
    return Proposal(np.full(n, 1 / n), np.zeros((n, 2)), cov)


def adapted(
    contribution: Callable[[FloatArray, FloatArray], FloatArray], n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return normal numbers (n, 2) where they contribute, and their weights.

    Notes
    -----
    A mixture of one normal density per sum, with mean and covariance of its contributions, found in two
    rounds (cross-entropy method; O. Cappé et al., Stat. Comput. 18 (2008) 447), and of the broad one of the
    first round. All points carry the density of the whole mixture (balance heuristic).
    """
    proposal = broad()
    for _ in range(ROUNDS):
        point, weight = proposal.draw(max(int(PILOT * n), min(FEWEST, n)), rng)
        proposal = _fitted(point, contribution(point, weight) * weight)
    return proposal.draw(n, rng)


def _fitted(point: FloatArray, rows: FloatArray) -> Proposal:
    """Return one normal density per row of contributions (k, n), beside the broad ones."""
    start = broad()
    means, covs = [], []
    for row in rows:
        total, square = row.sum(), (row**2).sum()
        if not total**2 >= LEAST * square > 0:
            continue
        mean = row @ point / total
        offset = point - mean
        covs.append(WIDER * np.einsum("n,ni,nj->ij", row / total, offset, offset) + 0.02 * np.eye(2))
        means.append(mean)
    if not means:
        return start
    k = len(means)
    share = np.concatenate([[PLAIN], np.full(len(WIDTHS) - 1, PLAIN / 2), np.full(k, (1 - 2 * PLAIN) / k)])
    return Proposal(share, np.concatenate([start.mean, means]), np.concatenate([start.cov, covs]))
