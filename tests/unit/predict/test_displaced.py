"""Dark photons behind the target: against thrown decays, and in the limits of short and long lives."""

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import VertexPairs
from gammastar.physics.detector import VertexTelescope
from gammastar.predict.in_situ import best_cut, displaced_shares

TELESCOPE = VertexTelescope(
    name="two steps",
    planes=(0.03, 0.06, 0.1),
    min_hits=1,
    hit_efficiency=0.6,
    target_end=1e-3,
    fiducial=(2e-3, 0.08),
    resolution=20e-6,
    scattering=400e-6,
    slope=0.0,
    momentum=0.0,
    sources={},
)
CUTS = np.array([3.0, 5.0, 10.0])
MASS, WINDOW = 0.5, 0.04


def measured(rng, n=4_000):
    """Return prompt pairs with 1 % of wide vertices, a fifth of them not good, a tenth like sign."""
    mass = rng.uniform(0.4, 0.6, n)
    pz = rng.gamma(3.0, 7.0, n) + 4.0
    sigma = rng.uniform(0.4e-3, 1.5e-3, n)
    wide = np.where(rng.random(n) < 0.01, 5.0, 1.0)
    like = rng.random(n) < 0.1
    z = sigma * wide * rng.standard_normal(n)
    return VertexPairs(mass, pz, z, sigma, np.where(like, -0.4, 1.0), like, rng.random(n) < 0.8)


def thrown(pairs, ctau, rng, repeat):
    """Return the same shares from decays one by one: at random place, seen or not plane by plane."""
    near = pairs.select(np.abs(pairs.mass - MASS) < WINDOW)
    up = near.select(near.good & (near.z < 0))
    index = rng.integers(len(up), size=repeat)
    path = rng.exponential(1.0, repeat) * up.pz[index] / MASS * ctau
    seen = np.ones(repeat, bool)
    left = np.array(TELESCOPE.planes)[:, None] > path
    for _ in range(2):
        seen &= ((rng.random(left.shape) < TELESCOPE.hit_efficiency) & left).any(axis=0)
    prompt = (1 - (1 - TELESCOPE.hit_efficiency) ** 3) ** 2
    vertex = path + up.z[index] * rng.choice([-1, 1], repeat)
    kept = 2 * up.weight.sum() / near.weight.sum()
    scale = kept * len(up) * up.weight[index] / up.weight.sum() / prompt / repeat
    first, last = TELESCOPE.fiducial
    least = np.maximum(CUTS[:, None] * up.sigma[index], first)
    return [
        np.array([scale @ (seen & (side * vertex > low) & (side * vertex < last)) for low in least])
        for side in (1, -1)
    ]


@pytest.mark.long
@pytest.mark.parametrize("ctau", [1e-5, 1e-4, 1e-3, 3e-2])
def test_against_thrown_decays(ctau):
    rng = np.random.default_rng(7)
    pairs = measured(rng)
    behind, before, _ = displaced_shares(pairs, TELESCOPE, CUTS, mass=MASS, half_window=WINDOW, ctau=[ctau])
    n = 1_000_000
    found, mirrored = thrown(pairs, ctau, rng, n)
    assert behind[:, 0] == pytest.approx(found, abs=5 * np.sqrt(0.25 / n) * 1.3)
    assert before[:, 0] == pytest.approx(mirrored, abs=5e-4)


def test_short_lives_leave_the_tail_of_prompt_pairs():
    pairs = measured(np.random.default_rng(8), 20_000)
    behind, before, _ = displaced_shares(pairs, TELESCOPE, CUTS, mass=MASS, half_window=WINDOW, ctau=[1e-15])
    near = pairs.select(np.abs(pairs.mass - MASS) < WINDOW)
    own = near.select(near.good & (near.z < 0))
    tail = [own.weight @ (-own.z > np.maximum(cut * own.sigma, 2e-3)) for cut in CUTS]
    assert behind[:, 0] == pytest.approx(np.array(tail) / near.weight.sum(), abs=3e-3)  # of every few pairs
    assert behind[0, 0] > 0
    np.testing.assert_allclose(behind, before, atol=1e-12)


def test_long_lives_fall_with_the_lifetime():
    """S ∝ ε² × share and share ∝ 1/cτ ∝ ε²: the fourth power of the coupling."""
    pairs = measured(np.random.default_rng(9))
    ctau = np.array([1e2, 1e3])
    behind, before, _ = displaced_shares(pairs, TELESCOPE, CUTS, mass=MASS, half_window=WINDOW, ctau=ctau)
    assert behind[:, 0] / behind[:, 1] == pytest.approx(np.full(3, 10.0), rel=1e-3)
    assert (before < 0.02 * behind).all()


def share_between(low, high, path):
    """Return what is seen of the decays between two places, step by step of the efficiency."""
    edges, value = TELESCOPE.efficiency_steps()
    total = np.zeros(path.shape)
    for first, last, seen in zip(edges[:-1], edges[1:], value, strict=True):
        a, b = np.maximum(low, first)[:, None], np.minimum(high, last)[:, None]
        total -= seen * np.exp(-a / path) * np.expm1(np.minimum(a - b, 0.0) / path)
    return total


def test_against_every_step_of_the_efficiency():
    """From flights of a micrometre to those of 10 km, behind and before, to 1e-12 of a pair."""
    pairs = measured(np.random.default_rng(12))
    wide = np.random.default_rng(13).random(len(pairs)) < 0.02
    pairs = replace(pairs, z=np.where(wide, 40.0 * pairs.z, pairs.z))  # some beyond the planes on either side
    ctau = np.geomspace(1e-7, 1e3, 21)
    behind, before, error = displaced_shares(pairs, TELESCOPE, CUTS, mass=MASS, half_window=WINDOW, ctau=ctau)
    near = pairs.select(np.abs(pairs.mass - MASS) < WINDOW)
    up = near.select(near.good & (near.z < 0))
    path, (first, last) = up.pz[:, None] / MASS * ctau, TELESCOPE.fiducial
    share = up.weight / near.weight.sum()
    for j, cut in enumerate(CUTS):
        least = np.maximum(cut * up.sigma, first)
        after = sum(share_between(np.maximum(least - z, 0.0), last - z, path) for z in (up.z, -up.z))
        ahead = sum(share_between(np.maximum(-last - z, 0.0), -least - z, path) for z in (up.z, -up.z))
        assert behind[j] == pytest.approx(share @ after, rel=1e-9, abs=1e-12)
        assert before[j] == pytest.approx(share @ ahead, rel=1e-9, abs=1e-12)
        expected = np.sqrt(share**2 @ (after - 2.0 * ahead) ** 2)
        assert error[j] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (behind[:, -1] < 1e-5).all()  # far beyond the planes


def test_nothing_behind_the_target_is_looked_at():
    pairs = measured(np.random.default_rng(10))
    other = VertexPairs(
        pairs.mass,
        pairs.pz,
        np.where(pairs.z > 0, 0.05, pairs.z),
        pairs.sigma,
        pairs.weight,
        pairs.like,
        pairs.good,
    )
    options = {"mass": MASS, "half_window": WINDOW, "ctau": [1e-4, 1e-3]}
    np.testing.assert_array_equal(
        *(displaced_shares(p, TELESCOPE, CUTS, **options)[0] for p in (pairs, other))
    )


def test_too_few_pairs():
    with pytest.raises(PhysicsError, match=r"0 pairs within 0\.04 GeV of 0\.9 GeV"):
        displaced_shares(
            measured(np.random.default_rng(1)), TELESCOPE, CUTS, mass=0.9, half_window=WINDOW, ctau=[1.0]
        )


def test_best_cut_is_the_one_with_the_most_signal_over_its_limit():
    signal = np.array([[[1.0, 4.0], [3.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]])
    assert best_cut(signal, np.array([[4.0, 2.4], [2.0, np.inf]])).tolist() == [1, 0]
