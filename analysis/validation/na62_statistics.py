"""The statistic of the NA62 beam-dump search: conventions, closed form, FFT and profiled toys."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import norm
from validation._rows import row as _row

from gammastar import infer
from gammastar.core.sampling import stream
from gammastar.infer.channel_limits import fft_cls, zero_event_cls

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "na62_dump"))
import likelihood


def conventions() -> Iterator[dict]:
    source = "closed form at n = 0; marginalised: hybrid toys"
    for label, options, expected, tolerance in (
        ("no nuisance", {"method": "none"}, 2.3026, 1e-4),
        ("POT κ = 1.2, plug-in", {"signal_sigma": np.log(1.2), "method": "exact"}, 2.4857, 1e-4),
        ("POT 20 %, plug-in", {"signal_sigma": 0.20, "method": "exact"}, 2.5247, 1e-4),
        (
            "POT κ = 1.2, marginalised",
            {"signal_sigma": np.log(1.2), "method": "marginalised"},
            2.3527,
            1e-3,
        ),
    ):
        value = infer.counting_limit(0, 0.0094, **options)
        yield _row(f"S at 90 % CL, {label}", value, expected, tolerance, source)
    one = infer.counting_channel(
        "ee",
        signal=1.0,
        background=0.0094,
        observed=0,
        signal_sigma={"pot": np.log(1.2)},
        background_sigma={"b_ee": np.log(4.0)},
    )
    posterior = infer.Convention(constraint="posterior")
    value = infer.exact_limit([one], rng=stream(3), convention=posterior).strength
    expected = np.log(10) * np.exp(np.log(1.2) ** 2 * (1 + np.log(10)))
    yield _row("S at 90 % CL, maximised in the yield itself", value, expected, 2e-3, source)
    half = [
        infer.counting_channel(
            name,
            signal=0.5,
            background=0.01,
            observed=0,
            signal_sigma={"pot": np.log(1.2)},
            background_sigma={name: 0.1},
        )
        for name in ("a", "b")
    ]
    value = infer.exact_limit(half, rng=stream(4)).events
    yield _row("S of two equal halves that share the protons", value, 2.4857, 1e-3, "one POT nuisance")
    point = likelihood.channel("ee", 2.4857, 0.1, 2e-3)
    for label, value in (
        ("closed form", zero_event_cls([point]).cls),
        ("FFT at fitted nuisances", fft_cls([point]).cls),
    ):
        yield _row(f"CLs without events at S = 2.4857, {label}", value, 0.1, 1e-4, "closed form")
    both = [likelihood.channel(state, 1.243, 0.3, 2.5e-3) for state in ("ee", "mumu")]
    found = infer.exact_cls(both, rng=stream(9), n_toys=20_000)
    label = "CLs of both channels, 1.243 events each at 300 MeV, dimuon event far away"
    yield _row(label, found.cls, 0.1023, 0.003 + 3 * found.error, "independent profiled toys, 2e4")
    limit = infer.upper_limit(0.0094, np.log(4.0), 0, signal_sigma=np.log(1.2), method="asymptotic")
    source = "pyhf 0.7.6: the asymptotic formula fails below some 3 events, 2.49 is exact"
    yield _row("asymptotic limit without events, too strong", limit.observed, 1.40, 0.02, source)


def observed_dimuon(mass: float, signal: float, *, nuisances: bool) -> infer.Channel:
    """Return dimuons with the event at 411 MeV: 2.5 MeV resolution, background over 200 to 800 MeV."""
    return infer.unbinned_channel(
        "mumu",
        signal=signal,
        background=0.016,
        densities=(norm(mass, 2.5e-3).pdf, lambda x: np.where((x > 0.2) & (x < 0.8), _wide(x), 0.0)),
        bounds=(0.2, 0.8),
        events=[0.411],
        signal_sigma={"pot": np.log(1.2)} if nuisances else {},
        background_sigma={"b_mumu": np.log(1.125)} if nuisances else {},
    )


def event(quick: bool) -> Iterator[dict]:
    """Compare CLs around the observed dimuon of 411 MeV: FFT at fixed nuisances, profiled toys."""
    table = {
        0.411: (0.3286, 0.1970, 0.0916, 0.0666),
        0.405: (0.1037, 0.0522, 0.0196, 0.0134),
        0.414: (0.1535, 0.0845, 0.0353, 0.0251),
    }
    for mass, values in table.items():
        for signal, expected in zip((2.303, 3.0, 4.0, 4.4), values, strict=True):
            value = fft_cls([observed_dimuon(mass, signal, nuisances=False)], fitted=False).cls
            label = f"CLs by FFT, S = {signal:g} at {1e3 * mass:g} MeV"
            yield _row(label, value, expected, 0.004, "independent FFT and 1e5 toys")
    if quick:
        return
    for mass, expected in ((0.408, 2.95), (0.405, 2.51), (0.402, 2.43)):
        found = infer.exact_limit(
            [observed_dimuon(mass, 1.0, nuisances=True)], rng=stream(5, str(mass)), precision=0.01
        )
        label = f"S at 90 % CL, profiled toys, {1e3 * mass:g} MeV"
        yield _row(label, found.events, expected, 0.06 + 3 * found.error, "independent profiled toys, 2e4")


def _wide(x: np.ndarray) -> np.ndarray:
    """Return the Bernstein density with its range set to 200 to 800 MeV."""
    low, high = likelihood.BERNSTEIN_RANGE
    return likelihood.bernstein(low + (x - 0.2) / 0.6 * (high - low)) * (high - low) / 0.6
