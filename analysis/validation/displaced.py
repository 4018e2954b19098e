"""Dark photons behind a thin target: vertices, shares and background against thrown pairs, all MOCK."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats
from validation._rows import row as _row

from gammastar.background import selected_vertices, vertex_tails
from gammastar.core.files import data_path
from gammastar.core.pairs import VertexPairs
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_telescope
from gammastar.predict.in_situ import displaced_shares

THROWN = "decays thrown one by one, seen or not plane by plane"
CUTS = np.array([3.0, 5.0, 10.0])
MASS, WINDOW, SIGMA = 0.5, 0.05, 1e-3
RATIO = 1.2  # R of the random pairs


def rows(*, quick: bool) -> Iterator[dict]:
    yield from shares(40_000 if quick else 10**6)
    yield from closure(30 if quick else 400)


def _pairs(rng: np.random.Generator, kind: str, n: int, weight: float = 1.0) -> VertexPairs:
    """Return photons with 3 % in a tail of Student's t, random pairs twice as wide, or charm that flies."""
    pull = rng.standard_normal(n)
    if kind == "photon":
        pull = np.where(rng.random(n) < 0.03, 4.0 * rng.standard_t(3, n), pull)
    elif kind == "charm":
        pull += rng.exponential(2.0, n)
    else:
        pull *= 2.0
    sigma = SIGMA * np.exp(rng.normal(0.0, 0.3, n))
    mass, pz = rng.uniform(0.2, 1.0, n), rng.gamma(3.0, 7.0, n) + 4.0
    like = np.full(n, kind == "like")
    return VertexPairs(mass, pz, sigma * pull, sigma, np.full(n, weight), like, np.ones(n, bool))


def shares(n: int) -> Iterator[dict]:
    """Compare shares behind the cuts for four lifetimes."""
    telescope, rng = load_telescope(data_path("cards/na60_telescope.toml")), stream(1, "displaced")
    pairs = _pairs(rng, "photon", 10_000)
    near = pairs.select((np.abs(pairs.mass - MASS) < WINDOW) & (pairs.z < 0))
    first, last = telescope.fiducial
    for ctau in (3e-5, 3e-4, 3e-3, 3e-2):
        ours, _, _ = displaced_shares(pairs, telescope, CUTS, mass=MASS, half_window=WINDOW, ctau=[ctau])
        index = rng.integers(len(near), size=n)
        place = rng.exponential(1.0, n) * near.pz[index] / MASS * ctau
        left = np.array(telescope.planes)[:, None] > place
        seen = np.ones(n, bool)
        for _ in range(2):
            hits = (rng.random(left.shape) < telescope.hit_efficiency) & left
            seen &= hits.sum(axis=0) >= telescope.min_hits
        track = stats.binom.sf(telescope.min_hits - 1, len(left), telescope.hit_efficiency)
        vertex = place + near.z[index] * rng.choice([-1.0, 1.0], n)
        both = pairs.select(np.abs(pairs.mass - MASS) < WINDOW).weight.sum()
        kept = 2.0 * len(near) / both / track**2
        for k, cut in enumerate(CUTS):
            low = np.maximum(cut * near.sigma[index], first)
            found = kept * float((seen & (vertex > low) & (vertex < last)).mean())
            yield _row(
                f"share behind the target, cτ = {1e3 * ctau:g} mm, vertex beyond {cut:g} σ",
                float(ours[k, 0]),
                found,
                4.0 * np.sqrt(kept * max(found, 1.0 / n) / n),
                THROWN,
            )


def closure(n: int) -> Iterator[dict]:
    """Compare thrown pairs behind the target with the prediction over many pseudo-data."""
    rng = stream(2, "displaced")
    fiducial, window = (1e-3, 0.06), (0.45, 0.55)
    numbers = {"photon": 40_000, "random": 6_000, "charm": 1_500}
    charm = _pairs(rng, "charm", 20_000, numbers["charm"] / 20_000)
    pulls = []
    for _ in range(n):
        parts = [_pairs(rng, kind, rng.poisson(size)) for kind, size in numbers.items()]
        data = VertexPairs.concatenate(parts)
        every = VertexPairs.concatenate([data, _pairs(rng, "like", rng.poisson(6_000 / RATIO), -RATIO)])
        tails = vertex_tails(every, CUTS, fiducial, window=window, charm=charm)
        count = np.array([selected_vertices(data, cut, fiducial, window).sum() for cut in CUTS])
        pulls.append((count - tails.value) / np.sqrt(tails.value + tails.sigma**2))
    table = np.array(pulls)
    for k, cut in enumerate(CUTS[:2]):
        what = f"pairs beyond {cut:g} σ against the prediction of the tails, {n} MOCK data sets"
        yield _row(
            f"{what}: mean pull", float(table[:, k].mean()), 0.0, 4.0 / np.sqrt(n) + 0.15, "thrown counts"
        )
        width = float(table[:, k].std(ddof=1))
        yield _row(f"{what}: width of the pulls", width, 1.0, 4.0 / np.sqrt(2.0 * n) + 0.05, "thrown counts")
