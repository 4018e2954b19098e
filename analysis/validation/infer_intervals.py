"""Feldman-Cousins intervals, goodness of fit and scans of the likelihood against tables, sums and pyhf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyhf
from feldman_cousins import counting_interval
from scipy.special import xlogy
from scipy.stats import kstest, kstwo, poisson
from validation.infer_binned import mock_workspaces
from validation.infer_toys import row

from gammastar.infer import workspace
from gammastar.infer.binned.toys import goodness_of_fit, likelihood_scan, strength_interval

TABLE = "Feldman and Cousins, Phys. Rev. D 57 (1998) 3873, Table IV, b = 3.0"
PUBLISHED = (  # intervals at 90 % CL of 1 to 10 events on a background of 3
    (0.00, 1.88),
    (0.00, 3.04),
    (0.00, 4.42),
    (0.00, 5.60),
    (0.00, 6.99),
    (0.15, 8.47),
    (0.89, 9.53),
    (1.51, 10.99),
    (1.88, 12.30),
    (2.63, 13.50),
)
LENGTHENED = 1.08  # without events: their ends do not rise with the background, those of the construction do


def interval_rows(quick: bool) -> Iterator[dict]:
    for count, (low, high) in enumerate(PUBLISHED, start=1):
        for side, ours, value in zip(
            ("low", "high"), counting_interval(count, 3.0), (low, high), strict=True
        ):
            yield row(f"interval of {count} events, b = 3, {side} end", ours, value, 0.006, TABLE)
    ours = counting_interval(0, 3.0)[1]
    label = "interval without events, b = 3, high end: the table is lengthened"
    yield row(label, ours, LENGTHENED, np.nan, TABLE) | {"measured": True}
    if not quick:
        yield from _by_toys()
    yield from _goodness(150 if quick else 1000)
    yield from _scans()


def _counting(background: float, count: int) -> dict[str, Any]:
    spec = workspace("c", background, 0.0, [count])
    spec["channels"][0]["samples"][0]["data"] = [1.0]
    return spec


def _by_toys() -> Iterator[dict]:
    low, high = strength_interval(_counting(3.0, 8), rng=np.random.default_rng(3))
    for side, ours, value in (("low", low, PUBLISHED[7][0]), ("high", high, PUBLISHED[7][1])):
        yield row(
            f"interval of 8 events, b = 3, {side} end, by toys", ours, value, 0.25, f"{TABLE}; 2000 toys"
        )


def _goodness(n: int) -> Iterator[dict]:
    """Distribution of p-values of Poisson data sets, and one p-value as a sum over counts."""
    n_toys, count, mean = 400, 9, 4.0
    found = goodness_of_fit(_counting(mean, count), rng=np.random.default_rng(1), n_toys=20_000, strength=0.0)
    every = np.arange(60)
    distance = 2.0 * (mean - every + xlogy(every, every / mean))
    exact = float(poisson.pmf(every, mean)[distance >= distance[count] - 1e-9].sum())
    label = f"saturated goodness of fit, {count} events at {mean:g}: p-value"
    yield row(label, found.p_value, exact, 4 * found.error, "Poisson sum")
    yield row(f"{label}, statistic", found.statistic, distance[count], 1e-6, "2 ln of the ratio")
    rng, means = np.random.default_rng(2), np.array([30.0, 20.0, 12.0, 40.0])
    values = []
    for counts, off in zip(rng.poisson(means, (n, len(means))), rng.normal(size=n), strict=True):
        # the background was measured too high or low by as many standard deviations
        spec = workspace("c", means * np.exp(0.1 * off), 0.1, counts.tolist())
        spec["channels"][0]["samples"][0]["data"] = [1.0] * len(means)
        values.append(goodness_of_fit(spec, rng=rng, n_toys=n_toys, strength=0.0).p_value)
    distance = float(kstest(values, "uniform").statistic)
    label = f"p-values of {n} Poisson data sets of 4 bins: distance to a flat distribution"
    yield row(label, distance, 0.0, float(kstwo.isf(1e-3, n)), "Kolmogorov-Smirnov, 0.1 %")


def _scans() -> Iterator[dict]:
    strengths = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
    for name, (spec, _) in mock_workspaces().items():
        space = pyhf.Workspace(spec)
        model = space.model()
        data = space.data(model)
        pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
        _, best = pyhf.infer.mle.fit(data, model, return_fitted_val=True)
        peer = [
            float(pyhf.infer.mle.fixed_poi_fit(mu, data, model, return_fitted_val=True)[1] - best)
            for mu in strengths.tolist()
        ]
        worst = float(np.abs(likelihood_scan(spec, strengths) - peer).max())
        label = f"MOCK, {name}: −2 ln L of μ = 0 to 4 above its minimum, largest difference"
        yield row(label, worst, 0.0, 1e-4, "pyhf 0.7.6, SLSQP")
