"""The compiled density of a spline against zuko's and its derivatives; Adam and the norm against torch's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zuko.transforms import MonotonicRQSTransform

from gammastar.flow.network import Adam, SplineDensity, initial_network, limit_norm, log_density

pytestmark = pytest.mark.flow
BOUND = 5.0


def of_zuko(values, x):
    """Return ln dz/dx − z²/2 and its gradient in double precision."""
    bins = (values.shape[1] + 1) // 3
    raw = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    parts = torch.split(raw, [bins, bins, bins - 1], dim=-1)
    z, log_slope = MonotonicRQSTransform(*parts, bound=BOUND).call_and_ladj(torch.tensor(x).double())
    result = log_slope - 0.5 * z.square()
    result.sum().backward()
    return result.detach().numpy(), raw.grad.numpy()


def ours(values, x):
    raw = torch.tensor(values, requires_grad=True)
    result = SplineDensity.apply(raw, torch.tensor(x))
    result.sum().backward()
    return result.detach().numpy(), raw.grad.numpy()


@pytest.mark.parametrize("bins", [1, 2, 8, 16])
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_density_and_gradient_are_those_of_zuko(bins, size):
    rng = np.random.default_rng(bins)
    values = rng.normal(0.0, size, (4000, 3 * bins - 1)).astype(np.float32)
    x = rng.normal(0.0, 2.5, 4000).astype(np.float32)
    x[:4] = -7.0, 6.0, 0.0, 4.999
    assert (np.abs(x) > BOUND).sum() > 50
    for found, exact in zip(ours(values, x), of_zuko(values, x), strict=True):
        # single precision moves x by 1e-7 of the range, and by more of a narrow bin
        np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3 * size)
        assert np.median(np.abs(found - exact)) < 2e-6


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(np.float32, (5, 11), elements=st.floats(-60, 60, width=32)),
    x=hnp.arrays(np.float32, 5, elements=st.floats(-9, 9, width=32)),
)
def test_extreme_splines_stay_finite_and_right(values, x):
    """Sizes and slopes in the limits of factors of 1000, x anywhere, edges included."""
    (found, gradient), (exact, slopes) = ours(values, x), of_zuko(values, x)
    assert np.isfinite(found).all()
    assert np.isfinite(gradient).all()
    # next to a knot the rounding of x decides the bin; the density is continuous there, its gradient is not
    shifted = [of_zuko(values, x + np.float32(d))[0] for d in (-3e-5, 3e-5)]
    slack = 1e-3 + np.max(np.abs(np.array(shifted) - exact), axis=0)
    inside = np.abs(np.abs(x) - BOUND) > 1e-4
    assert (np.abs(found - exact) <= slack)[inside].all()
    assert (gradient[np.abs(x) >= BOUND] == 0).all()
    assert np.isfinite(slopes).all()


def test_gradient_is_the_change_of_the_density():
    """Differences of the density in double precision, no derivative of anyone."""
    rng = np.random.default_rng(3)
    values, x = rng.normal(size=(1, 23)).astype(np.float32), np.array([0.7], dtype=np.float32)
    _, gradient = ours(values, x)
    step = 1e-5
    for j in range(values.shape[1]):
        moved = np.repeat(values.astype(np.float64), 2, axis=0)
        moved[:, j] += step, -step
        high, low = of_zuko(moved, np.repeat(x, 2))[0]
        assert gradient[0, j] == pytest.approx((high - low) / (2 * step), abs=2e-5)


def test_a_number_that_is_none_is_seen():
    values = np.zeros((2, 11), dtype=np.float32)
    values[0, 3] = np.nan
    found, _ = ours(values, np.array([0.1, 0.1], dtype=np.float32))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_network_learns_as_with_zuko():
    """ln p and the gradients of all weights in single precision against double precision through zuko."""
    rng = np.random.default_rng(4)
    network = initial_network(4, bins=8, hidden=12, layers=2, rng=rng)
    x, context = torch.tensor(rng.normal(size=(300, 2))), torch.tensor(rng.normal(size=(300, 4)))
    found = []
    for dtype in (torch.float32, torch.float64):
        copies = [t.to(dtype).clone().requires_grad_() for t in network.parameters]
        one = type(network)(tuple(copies[:3]), tuple(copies[3:]))
        density = log_density(one, x.to(dtype), context.to(dtype))
        density.mean().backward()
        found.append([density.detach().double(), *(t.grad.double() for t in copies)])
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-5)


def test_adam_and_norm_are_those_of_torch():
    start = [torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.ones(5)]
    mine, theirs = ([t.clone().requires_grad_() for t in start] for _ in range(2))
    adam, reference = Adam.of(mine, 1e-2), torch.optim.Adam(theirs, weight_decay=1e-2, fused=True)
    for step in range(20):
        rate, momentum = 0.1 / (1 + step), 0.85 + 0.005 * step
        for group in (mine, theirs):
            for tensor in group:
                tensor.grad = None
            sum((t**4).sum() for t in group).backward()
        limit_norm(mine, 2.0)
        torch.nn.utils.clip_grad_norm_(theirs, 2.0)
        reference.param_groups[0]["lr"], reference.param_groups[0]["betas"] = rate, (momentum, 0.999)
        adam.step(rate, momentum)
        reference.step()
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    again = Adam.of(mine, 1e-2)
    again.take(adam.to_arrays())
    assert float(again.steps[1]) == 20
    torch.testing.assert_close(again.second[1], adam.second[1], rtol=0, atol=0)
