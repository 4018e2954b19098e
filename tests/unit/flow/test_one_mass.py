"""The flow is zuko's: its module, its file, and what is compiled at one mass against it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

import torch
from safetensors.torch import load_file
from zuko.flows import NSF

from gammastar.flow import KinematicFlow, save
from gammastar.flow.network import Bijection, Gaussianiser, spline_flow
from gammastar.flow.options import TrainingReport

pytestmark = pytest.mark.flow
MASS, BINS, HIDDEN, OCTAVES = 0.6, 12, 48, 1


@pytest.fixture(scope="module")
def flow() -> KinematicFlow:
    """Splines that are far from the identity: large random weights, no training."""
    rng = np.random.default_rng(4)
    zuko = spline_flow(2 + 2 * OCTAVES, bins=BINS, hidden=HIDDEN, layers=2, rng=rng).requires_grad_(False)
    for parameter in zuko.parameters():
        parameter.mul_(3.0)
    zuko.transform.transforms[0].hyper[-1].weight.mul_(6.0)
    maps = [
        Gaussianiser(np.linspace(low, high, 5), np.array([-2.5, -1.1, 0.1, 1.0, 2.4]), slope)
        for low, high, slope in (
            (0.2, 1.1, np.full(5, 5.0)),
            (-8.0, -3.0, np.ones(5)),
            (-2.0, 2.0, np.ones(5)),
        )
    ]
    bijection = Bijection(400.0, (0.2, 1.1), *maps, octaves=OCTAVES)
    return KinematicFlow(bijection, zuko, TrainingReport(100, 100.0, 0.0, (), (), 0, 1.0))


@pytest.mark.long
def test_density_is_that_of_zuko(flow: KinematicFlow) -> None:
    x = np.random.default_rng(1).normal(0, 1.5, (20_000, 2))
    mass = np.full(len(x), MASS)
    pt, energy = flow.bijection.inverse(mass, x)
    again, log_jacobian = flow.bijection.forward(mass, pt, energy)
    context = torch.from_numpy(flow.bijection.condition(mass)).float()
    exact = flow.zuko(context).log_prob(torch.from_numpy(again).float()).numpy()
    assert exact.std() > 1.0
    difference = np.abs(flow.at_mass(MASS).log_prob(pt, energy) - log_jacobian - exact)
    assert np.quantile(difference, 0.99) < 5e-3  # splines much rougher than trained ones
    assert np.median(difference) < 3e-4
    assert np.abs(flow.log_prob(mass, pt, energy) - log_jacobian - exact).max() < 1e-2


def test_file_is_a_state_dict_of_zuko(flow: KinematicFlow, tmp_path) -> None:
    save(flow, tmp_path / "flow")
    plain = NSF(
        2, 2 + 2 * OCTAVES, transforms=1, bins=BINS, hidden_features=(HIDDEN,) * 2, activation=torch.nn.SiLU
    )
    plain.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    x, context = torch.randn(50, 2), torch.randn(50, 2 + 2 * OCTAVES)
    torch.testing.assert_close(plain(context).log_prob(x), flow.zuko(context).log_prob(x), rtol=0, atol=0)


@pytest.mark.long
def test_density_and_draws_belong_to_each_other(flow: KinematicFlow) -> None:
    # the Jacobian of the map by finite differences: what the table leaves out is left out of both alike
    one, h = flow.at_mass(MASS), 1e-5
    z = np.random.default_rng(2).normal(0, 1.6, (4000, 2))
    right, left = (np.stack([np.stack(one(z + s * h * axis)) for axis in np.eye(2)]) for s in (1, -1))
    (a, b), (c, d) = (right - left) / (2 * h)
    wanted = -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) - np.log(np.abs(a * d - b * c))
    found = one.log_prob(*one(z))
    assert np.quantile(np.abs(found - wanted), 0.99) < 1e-6  # a knot inside the step bends the rest


def test_density_is_one_in_all_and_none_outside(flow: KinematicFlow) -> None:
    one, n = flow.at_mass(MASS), 200_000
    rng = np.random.default_rng(3)
    log_pt, u = rng.uniform(np.log(1e-5), np.log(390.0), n), rng.uniform(size=n)
    pt = np.exp(log_pt)
    low, high = np.log(np.hypot(MASS, pt)), np.log(400.0)
    energy = np.exp(low + u * (high - low))
    value = np.exp(one.log_prob(pt, energy)) * pt * energy * (high - low) * (np.log(390.0) - np.log(1e-5))
    assert value.mean() == pytest.approx(1.0, abs=4 * value.std() / np.sqrt(n))
    outside = one.log_prob(np.array([1.0, 0.2, np.nan]), np.array([0.9, 400.5, 20.0]))
    assert (outside == -np.inf).all()


@pytest.mark.long
def test_a_reach_begins_without_what_takes_long_to_import() -> None:
    slow = {"torch", "sympy", "vector", "awkward", "uproot", "pyhf", "scipy.stats"}
    code = f"import sys, gammastar.flow, gammastar.results.start; print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.strip()
