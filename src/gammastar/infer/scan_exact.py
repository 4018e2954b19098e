"""Exact CLs of a published workspace, where the exact engine knows its nuisances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.cloud import TIE, CLs, cloud
from gammastar.infer.combine import channels_of
from gammastar.infer.discovery import BANDS
from gammastar.infer.ensemble import Convention, compiled, statistics
from gammastar.infer.ranking import expected_data
from gammastar.infer.unbinned import exact_cls

__all__ = ["exact_point", "expected_events", "suits"]


def expected_events(workspace: Mapping[str, Any]) -> float:
    """Return the expected background of the one bin that is as sensitive as all bins together.

    Parameters
    ----------
    workspace : mapping
        Of one signal point.

    Returns
    -------
    float
        (Σ s)² / Σ (s²/b) over all bins, nominal yields: the background b of a single bin, the sum of equal
        ones, and of a bin with few events beside a control region about its own. nan without signal.

    Examples
    --------
    >>> poi = [{"name": "mu", "type": "normfactor", "data": None}]
    >>> samples = [{"data": [1.0, 0.0], "modifiers": poi}, {"data": [0.5, 900.0], "modifiers": []}]
    >>> measurements = [{"config": {"poi": "mu"}}]
    >>> expected_events({"channels": [{"samples": samples}], "measurements": measurements})
    0.5
    """
    poi = workspace["measurements"][0]["config"]["poi"]
    total, squares = 0.0, 0.0
    for channel in workspace["channels"]:
        parts = [np.zeros(len(channel["samples"][0]["data"])) for _ in range(2)]
        for sample in channel["samples"]:
            carries = any(modifier["name"] == poi for modifier in sample["modifiers"])
            parts[0 if carries else 1] += np.asarray(sample["data"], dtype=np.float64)
        signal, background = parts
        here = signal > 0
        total += float(signal.sum())
        squares += float(np.sum(signal[here] ** 2 / np.maximum(background[here], 1e-9)))
    return total**2 / squares if squares > 0 else float("nan")


def suits(workspace: Mapping[str, Any], asymptotic_from: float) -> tuple[bool, str]:
    """Return whether a workspace should be tested exactly, and why not.

    Parameters
    ----------
    workspace : mapping
        Of one signal point.
    asymptotic_from : float
        Expected background or observed events, whichever is smaller, from which asymptotic formulae do.
    """
    poi = workspace["measurements"][0]["config"]["poi"]
    backgrounds = [
        np.sum(sample["data"])
        for channel in workspace["channels"]
        for sample in channel["samples"]
        if all(modifier["name"] != poi for modifier in sample["modifiers"])
    ]
    events = min(float(np.sum(backgrounds)), float(sum(np.sum(o["data"]) for o in workspace["observations"])))
    if events >= asymptotic_from:
        return False, f"{events:.3g} events, asymptotic from {asymptotic_from:g}"
    try:
        channels_of(workspace)
    except PhysicsError as error:
        return False, f"only {events:.3g} events, too few for asymptotic formulae, but {error}"
    return True, f"{events:.3g} events, exact below {asymptotic_from:g}"


def exact_point(
    workspace: Mapping[str, Any],
    strength: float,
    rng: np.random.Generator,
    *,
    convention: Convention | None = None,
    n_toys: int = 20_000,
) -> tuple[CLs, FloatArray]:
    """Return observed and expected exact CLs of a workspace.

    Parameters
    ----------
    workspace : mapping
        As `channels_of` takes it.
    strength : float
    rng : numpy.random.Generator
    convention : Convention, optional
        By default the ratio of profiled likelihoods with fixed auxiliary measurements, as NA62.
    n_toys : int
        Of each hypothesis.

    Returns
    -------
    CLs
        With nan for a masked workspace.
    expected : NDArray, shape (5,)
        CLs at the quantiles of the statistic without signal, −2 … +2 standard deviations, in order of CLs.
    """
    channels = channels_of(workspace)
    masked = any(channel.observed is None for channel in channels)
    known = [expected_data(channel) if channel.observed is None else channel for channel in channels]
    convention = Convention() if convention is None else convention
    model = compiled(known, convention)
    toys = cloud(model, convention, model.data(), (strength,), n_toys, rng)
    q = statistics(model, toys.toys, strength, convention.statistic)
    with_signal, without = np.exp(toys.log_weight(strength)), np.exp(toys.log_weight(0.0))
    order = np.argsort(q, kind="stable")
    cumulative = np.cumsum(without[order]) / without.sum()
    at = q[order][np.minimum(np.searchsorted(cumulative, BANDS), len(q) - 1)]
    beyond = q[None, :] >= at[:, None] - TIE
    clsb = beyond @ with_signal / with_signal.sum()
    expected = clsb / np.maximum(beyond @ without / without.sum(), 1e-300)
    found = exact_cls(known, rng=rng, convention=convention, strength=strength, n_toys=n_toys)
    if masked:
        found = CLs(np.nan, 0.0, np.nan, np.nan, np.nan, found.toys, found.effective, found.method)
    return found, np.sort(expected)
