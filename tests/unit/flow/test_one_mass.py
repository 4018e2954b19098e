"""The flow at one mass in closed form, against torch and zuko and against its own map."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import pad
from zuko.transforms import MonotonicRQSTransform

from gammastar.flow.bijection import Bijection, Gaussianiser
from gammastar.flow.model import KinematicFlow
from gammastar.flow.one_mass import Perceptrons
from gammastar.flow.options import TrainingReport

MASS, BINS, HIDDEN, OCTAVES = 0.6, 12, 24, 1


@pytest.fixture(scope="module")
def flow() -> KinematicFlow:
    """Splines that are far from the identity: large random weights, no training."""
    rng = np.random.default_rng(4)
    sizes = (2 + 2 * OCTAVES + 1, HIDDEN, HIDDEN, 3 * BINS - 1)
    weights = [rng.normal(0, 1.4 / np.sqrt(a), (2, a, b)).astype(np.float32) for a, b in pairwise(sizes)]
    biases = [rng.normal(0, 0.3, (2, 1, b)).astype(np.float32) for b in sizes[1:]]
    maps = [
        Gaussianiser(np.linspace(low, high, 5), np.array([-2.5, -1.1, 0.1, 1.0, 2.4]), slope)
        for low, high, slope in (
            (0.2, 1.1, np.full(5, 5.0)),
            (-8.0, -3.0, np.ones(5)),
            (-2.0, 2.0, np.ones(5)),
        )
    ]
    bijection = Bijection(400.0, (0.2, 1.1), *maps, octaves=OCTAVES)
    report = TrainingReport(100, 100.0, (), (), 0, 1.0, "")
    return KinematicFlow(bijection, Perceptrons(tuple(weights), tuple(biases)), report)


def by_torch(flow: KinematicFlow, x: np.ndarray) -> np.ndarray:
    """ln p of points in the unbounded variables' scores, with zuko's own spline for every single point."""
    context = torch.from_numpy(np.repeat(flow.bijection.condition(np.array([MASS])), len(x), axis=0))
    total, points = torch.zeros(len(x), dtype=torch.float64), torch.from_numpy(x)
    for factor, inputs in enumerate((pad(context, (0, 1)), torch.cat([context, points[:, :1]], dim=1))):
        values = inputs
        for layer, (w, b) in enumerate(zip(flow.network.weights, flow.network.biases, strict=True)):
            values = torch.nn.functional.silu(values) if layer else values
            values = values @ torch.from_numpy(w[factor]).double() + torch.from_numpy(b[factor]).double()
        spline = MonotonicRQSTransform(*torch.split(values, [BINS, BINS, BINS - 1], dim=1), bound=5.0)
        z, slope = spline.call_and_ladj(points[:, factor])
        total += slope - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    return total.numpy()


def test_density_is_that_of_the_network(flow: KinematicFlow) -> None:
    x = np.random.default_rng(1).normal(0, 1.5, (20_000, 2))
    mass = np.full(len(x), MASS)
    pt, energy = flow.bijection.inverse(mass, x)
    again, log_jacobian = flow.bijection.forward(mass, pt, energy)
    ours = flow.at_mass(MASS).log_prob(pt, energy)
    difference = np.abs(ours - log_jacobian - by_torch(flow, again))
    assert np.quantile(difference, 0.99) < 5e-3  # a network much rougher than a trained one
    assert np.median(difference) < 3e-4


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


def test_a_reach_begins_without_what_takes_long_to_import() -> None:
    slow = {"torch", "sympy", "vector", "awkward", "uproot", "pyhf", "scipy.stats"}
    code = f"import sys, gammastar.flow, gammastar.results.reinterpret; print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.strip()
