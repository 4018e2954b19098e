"""Toys against the compound Poisson distribution, published numbers and the definition of a level."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm, uniform

from gammastar.infer import Convention, binned_channel, exact_cls, exact_limit, unbinned_channel
from gammastar.infer.channel_limits import fft_cls

POT = float(np.log(1.2))


def toy_rows(quick: bool) -> Iterator[dict]:
    yield from _one_event(quick)
    yield from _random_models(20)


def _dimuon(mass, signal, events, background=0.016, **sigmas):
    return unbinned_channel(
        "mumu",
        signal=signal,
        background=background,
        densities=(norm(mass, 0.0025).pdf, uniform(0.2, 0.6).pdf),
        bounds=(0.2, 0.8),
        events=events,
        **sigmas,
    )


def _one_event(quick: bool) -> Iterator[dict]:
    """One event at 411 MeV: FFT against published FFT values; profiled toys."""
    source = "FFT with 32768 points, up to 0.5 % low where the event sits on the peak"
    for mass, signal, value in (
        (0.411, 2.303, 0.3286),
        (0.411, 4.0, 0.0916),
        (0.411, 4.4, 0.0666),
        (0.405, 2.303, 0.1037),
        (0.414, 3.0, 0.0845),
        (0.405, 4.4, 0.0134),
    ):
        ours = fft_cls([_dimuon(mass, signal, [0.411])]).cls
        yield row(
            f"CLs by FFT, event at 411, M = {1e3 * mass:.0f} MeV, S = {signal:g}", ours, value, 2e-3, source
        )
    if quick:
        return
    convention, sigmas = Convention("ratio", "fixed"), {"pot": POT}
    for mass, value in ((0.408, 2.95), (0.405, 2.51), (0.402, 2.43)):
        channel = _dimuon(mass, 1.0, [0.411], signal_sigma=sigmas, background_sigma={"b": np.log(1.125)})
        rng = np.random.default_rng(4)
        found = exact_limit([channel], rng=rng, convention=convention, precision=0.006)
        yield row(
            f"profiled limit, event at 411, M = {1e3 * mass:.0f} MeV",
            found.events,
            value,
            0.10,
            "2e4 toys, twice their error",
        )


def _random_models(n: int) -> Iterator[dict]:
    rng, pulls = np.random.default_rng(1), []
    while len(pulls) < n:
        channels = []
        for j in range(rng.integers(1, 4)):
            if rng.random() < 0.4:
                b = rng.uniform(0.1, 3.0, rng.integers(1, 6))
                s, counts = rng.uniform(0.1, 2.0, b.size), rng.poisson(b)
                channels.append(binned_channel(f"c{j}", signal=s, background=b, observed=counts))
                continue
            b, m, width = rng.uniform(0.02, 4.0), rng.uniform(0.3, 0.7), rng.uniform(0.003, 0.05)
            channels.append(
                unbinned_channel(
                    f"c{j}",
                    signal=rng.uniform(1.0, 4.0),
                    background=b,
                    densities=(norm(m, width).pdf, uniform(0.2, 0.6).pdf),
                    bounds=(0.2, 0.8),
                    events=rng.uniform(0.2, 0.8, rng.poisson(b)),
                )
            )
        toys = exact_cls(channels, rng=rng, n_toys=20_000)
        if toys.error > 0:
            pulls.append((toys.cls - fft_cls(channels).cls) / toys.error)
    pulls = np.abs(pulls)
    source = "compound Poisson by FFT"
    yield row(f"toys against FFT, {n} random models: largest deviation [σ]", pulls.max(), 0.0, 3.0, source)
    yield row("the same: r.m.s. deviation [σ]", np.sqrt(np.mean(pulls**2)), 1.0, 0.5, source)


def pair(signal: float) -> list:
    """Two channels that share protons on target and efficiency."""
    options = {
        "densities": (norm(0.4, 0.003).pdf, uniform(0.2, 0.6).pdf),
        "bounds": (0.2, 0.8),
        "events": [0.3],
    }
    shared = {"pot": POT, "efficiency": 0.029}
    return [
        unbinned_channel(
            name,
            signal=s,
            background=b,
            signal_sigma=shared,
            background_sigma={f"b_{name}": sigma},
            **options,
        )
        for name, s, b, sigma in (("ee", signal, 1.0, np.log(1.5)), ("mumu", 0.6 * signal, 2.0, 0.2))
    ]


def row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(np.asarray(ours)),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }
