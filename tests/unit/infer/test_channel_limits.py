"""Asymptotic limits against pyhf at equal interpolation codes; CLs by FFT against closed forms and toys."""

from __future__ import annotations

import numpy as np
import pyhf
import pytest
from scipy.stats import norm, poisson, uniform

from gammastar.infer import (
    asymptotic_limit,
    binned_channel,
    counting_channel,
    exact_cls,
    unbinned_channel,
)
from gammastar.infer.channel_limits import fft_cls


def peer(observed, background, sigma_b, sigma_s):
    def normsys(name, sigma):
        return {"name": name, "type": "normsys", "data": {"hi": np.exp(sigma), "lo": np.exp(-sigma)}}

    spec = {
        "channels": [
            {
                "name": "c",
                "samples": [
                    {
                        "name": "s",
                        "data": [1.0] * len(background),
                        "modifiers": [
                            {"name": "mu", "type": "normfactor", "data": None},
                            normsys("pot", sigma_s),
                        ],
                    },
                    {"name": "b", "data": background, "modifiers": [normsys("b", sigma_b)]},
                ],
            }
        ],
        "observations": [{"name": "c", "data": observed}],
        "measurements": [
            {
                "name": "m",
                "config": {"poi": "mu", "parameters": [{"name": "mu", "bounds": [[0, 100]], "inits": [1.0]}]},
            }
        ],
        "version": "1.0.0",
    }
    space = pyhf.Workspace(spec)
    return space.data(space.model()), space.model()


@pytest.mark.long
@pytest.mark.parametrize(
    ("observed", "background", "sigma_b", "sigma_s"),
    [([3], [3.0], 0.3, 0.18), ([5, 7, 40], [4.0, 9.0, 35.0], 0.15, 0.1)],
)
def test_asymptotic_against_pyhf(observed, background, sigma_b, sigma_s):
    """At each of our limits pyhf finds its CLs, or that of its band, at the level."""
    data, model = peer(observed, background, sigma_b, sigma_s)
    channel = binned_channel(
        "c",
        signal=np.ones(len(background)),
        background=background,
        observed=observed,
        signal_sigma={"pot": sigma_s},
        background_sigma={"b": sigma_b},
    )
    found = asymptotic_limit([channel])
    for k, limit in enumerate([*found.expected, found.observed]):
        seen, bands = pyhf.infer.hypotest(limit / len(background), data, model, return_expected_set=True)
        assert float([*bands, seen][k]) == pytest.approx(0.1, rel=1.5e-4)  # CLs falls faster than 1/μ there


@pytest.mark.parametrize(("count", "background", "signal"), [(0, 0.3, 2.0), (1, 0.5, 3.5), (10, 10.0, 6.6)])
def test_fft_of_a_counting_experiment(count, background, signal):
    found = fft_cls([counting_channel("c", signal=signal, background=background, observed=count)])
    exact = poisson.cdf(count, signal + background) / poisson.cdf(count, background)
    assert found.cls == pytest.approx(exact, rel=1e-9)


@pytest.mark.long
def test_fft_against_toys_and_far_tails():
    channels = [
        binned_channel("a", signal=[0.5, 1.2, 0.3], background=[1.0, 0.4, 2.0], observed=[1, 0, 2]),
        unbinned_channel(
            "b",
            signal=2.0,
            background=1.5,
            densities=(norm(0.5, 0.02).pdf, uniform(0.2, 0.6).pdf),
            bounds=(0.2, 0.8),
            events=[0.31, 0.52],
        ),
    ]
    found = fft_cls(channels)
    toys = exact_cls(channels, rng=np.random.default_rng(4), n_toys=20_000)
    assert abs(found.cls - toys.cls) < 3.5 * toys.error
    tail = fft_cls([counting_channel("c", signal=30.0, background=5.0, observed=2)])
    assert tail.clsb == pytest.approx(poisson.cdf(2, 35.0), rel=1e-3)  # 4e-13: no plain toy gets there
