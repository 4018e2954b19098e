"""Every signal of a published likelihood tested: asymptotic CLs of pyhf, or exact ones at few events."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import write_whole
from gammastar.core.records import FloatArray
from gammastar.infer.binned.model import binned_model
from gammastar.infer.binned.toys import binned_asymptotic, binned_cls, binned_limits
from gammastar.infer.channel_limits import exact_cls, strength_at
from gammastar.infer.channels import Channel
from gammastar.infer.counting import ASYMPTOTIC_FROM, QUANTILES, expected_counts, tail
from gammastar.infer.discovery import expected_data
from gammastar.infer.histfactory.hs3 import to_hs3
from gammastar.infer.histfactory.likelihoods import Likelihood
from gammastar.infer.histfactory.workspaces import MASKED, channels_of
from gammastar.infer.toys import (
    TIE,
    CLs,
    Convention,
    cls_of_tails,
    draw_weighted_toys,
    statistics,
    toy_limits,
    toy_model,
)

SMALLEST_LEVEL = 1e-12  # CLs of which nothing more is known

ScanMethod: TypeAlias = Literal["asymptotic", "exact", "auto"]


@dataclass(frozen=True, slots=True, eq=False)
class ScanPoint:
    """CLs of one patch."""

    name: str
    values: tuple[float | str, ...]
    observed: float  # nan for a masked workspace, whose counts are the expected ones
    expected: FloatArray  # At −2 … +2 standard deviations, shape (5,)
    parameters: int
    method: str
    error: float = 0.0  # Monte Carlo error of the observed CLs
    # Expected background of the one bin that is as sensitive as all bins together (`expected_events`); nan
    # without signal. Below some twenty, asymptotic CLs are too small
    events: float = float("nan")
    failure: str = ""  # Why there is no CLs

    @property
    def doubtful(self) -> bool:
        """Whether asymptotic formulae were used where too few events are expected for them."""
        return self.method.startswith("asymptotic") and self.events < ASYMPTOTIC_FROM


def scan(
    likelihood: Likelihood,
    names: Sequence[str] | None = None,
    *,
    strength: float = 1.0,
    method: ScanMethod = "asymptotic",
    convention: Convention | None = None,
    rng: np.random.Generator | None = None,
) -> Iterator[ScanPoint]:
    """Test the signal of each patch: asymptotic CLs (q̃μ), or exact ones.

    Parameters
    ----------
    names : sequence of str, optional
        Patches to be tested; all of them by default. Without any patch the workspace itself is tested.
    strength : float
        Signal strength to be tested.
    method : {"asymptotic", "exact", "auto"}
        "auto": exact, averaged over the nuisances, at any count.
    convention : Convention, optional
        Of exact CLs; the ratio of profiled likelihoods with fixed auxiliary measurements by default, with
        averaged ones for "auto".
    rng : numpy.random.Generator, optional
        Of the toys of exact CLs; of seed 1 by default.

    Yields
    ------
    ScanPoint

    Raises
    ------
    PhysicsError
        For a name that is no patch, or a fit that fails.
    InputFileError
        For a workspace without any signal: background only, or waiting for a patch.

    Notes
    -----
    A patch that fails is a point whose `failure` says why; with nothing else to test it is raised. Where
    fewer than some twenty events are expected asymptotic formulae give too small a CLs. Exact ones are sums
    over counts where one bin is averaged over log-normal nuisances, weighted toys of `toys` where all
    nuisances are such of one signal and one background per channel, and toys of `binned.toys` elsewhere.
    """
    chosen = _chosen(likelihood, names)
    rng = np.random.default_rng(1) if rng is None else rng
    for name in chosen:
        try:
            yield _point(likelihood, name, strength, method, convention, rng)
        except (InputFileError, PhysicsError) as error:
            if len(chosen) == 1:
                raise
            events, values = np.full(5, np.nan), likelihood.values.get(name, ())
            yield ScanPoint(name, values, np.nan, events, 0, "failed", failure=str(error))


def _point(
    likelihood: Likelihood,
    name: str,
    strength: float,
    method: ScanMethod,
    convention: Convention | None,
    rng: np.random.Generator,
) -> ScanPoint:
    """Return the test of one signal."""
    spec = likelihood.patched(name)
    events, values = _tested(likelihood, name, spec), likelihood.values.get(name, ())
    if not events >= 0:
        level = np.nan if spec["measurements"][0]["name"] == MASKED else 1.0
        return ScanPoint(name, values, level, np.ones(5), 0, "no signal event is expected, so CLs = 1")
    convention = averaged(convention) if method == "auto" else convention
    try:
        if method != "asymptotic":
            found, expected = exact_point(spec, strength, rng, convention=convention)
            names = {m["name"] for c in spec["channels"] for s in c["samples"] for m in s["modifiers"]}
            return ScanPoint(
                name,
                values,
                found.cls,
                expected,
                len(names),
                found.method,
                found.error,
                expected_events(spec),
            )
        model = binned_model(spec)
        observed, expected = binned_asymptotic(model, strength)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        what = f"{type(error).__name__}: {str(error)[:300]}"
        raise InputFileError(f"scan, patch {name!r}: no likelihood can be made of it: {what}") from error
    except PhysicsError as error:
        raise PhysicsError(f"scan, patch {name!r}: {error}") from error
    label = "asymptotic CLs (q̃μ)"
    point = ScanPoint(name, values, observed, expected, len(model.names), label, events=events)
    if point.doubtful:
        label += f"; too small at fewer than {ASYMPTOTIC_FROM:g} events, {events:.3g} are expected"
    return replace(point, method=label)


def strength_limits(
    likelihood: Likelihood, name: str, *, cl: float, seed: int = 1, **how: Any
) -> tuple[float, FloatArray]:
    """Return upper limits on the strength μ of a signal: where its CLs falls to 1 − `cl`."""
    spec = likelihood.patched(name)
    exactly, convention = how.get("method", "asymptotic") != "asymptotic", how.get("convention")
    convention = averaged(convention) if how.get("method") == "auto" else convention
    channels = _simple(spec)
    if exactly and expected_events(spec) >= 0 and channels is None:
        return _bounded(name, *binned_limits(spec, cl=cl, seed=seed, convention=convention))

    @functools.cache
    def levels(strength: float) -> FloatArray:
        rng = np.random.default_rng(seed)
        point = next(scan(likelihood, [name], strength=strength, rng=rng, **how))
        return np.array([point.observed, *point.expected])

    def level(i: int, strength: float) -> float:
        return float(levels(strength)[i])

    if exactly and not (channels and _counted(channels, convention)):
        limits, _ = toy_limits(levels, 1.0 - cl, SMALLEST_LEVEL)
    else:
        limits = np.array([strength_at(functools.partial(level, i), 1.0 - cl, 1.0) for i in range(6)])
    return _bounded(name, float(limits[0]), np.asarray(limits[1:]))


def _bounded(name: str, observed: float, expected: FloatArray) -> tuple[float, FloatArray]:
    """Return limits; refuse an observed one where CLs does not fall."""
    if np.isinf(observed):
        what = "nothing bounds the signal, or no toy without it is as extreme as the data"
        raise PhysicsError(f"scan, patch {name!r}: CLs stays above its level at every strength: {what}")
    return observed, expected


def _chosen(likelihood: Likelihood, names: Sequence[str] | None) -> list[str]:
    known = list(likelihood.patches) or ["workspace"]
    chosen = known if names is None else list(names)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        more = f" … and {len(known) - 5} more" if len(known) > 5 else ""
        raise PhysicsError(f"scan: no patch {unknown[0]!r}; there are {', '.join(known[:5])}{more}")
    return chosen


def _tested(likelihood: Likelihood, name: str, spec: Mapping[str, Any]) -> float:
    """Return the expected events under the signal, nan for a patch of no events."""
    poi = spec["measurements"][0]["config"]["poi"]
    carriers = [
        sample
        for channel in spec["channels"]
        for sample in channel["samples"]
        if any(modifier["name"] == poi for modifier in sample["modifiers"])
    ]
    where = f"scan, patch {name!r}" if likelihood.patches else "scan, workspace"
    if not carriers:
        what = f"no sample carries the parameter of interest {poi!r}, so there is no signal to test"
    elif not likelihood.patches and not any(np.any(sample["data"]) for sample in carriers):
        what = f"the signal {carriers[0]['name']!r} holds no events and waits for a patch"
    else:
        return expected_events(spec)
    how = "" if likelihood.patches else " (background only)"
    raise InputFileError(
        f"{where}{how}: {what}; give the signals with --patches (a patch set, or a patch, of this workspace)"
    )


def write_hs3(likelihood: Likelihood, folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write signals of a likelihood as HS3 documents, ``<name>.json`` each; return the files."""
    written, chosen = [], _chosen(likelihood, names)
    for name in chosen:
        if name in ("", ".", "..") or not name.isprintable() or {"/", "\\"} & set(name):
            raise PhysicsError(
                f"write_hs3, patch {name!r}: is no name of a file in {folder}; rename the patch"
            )
    for name in chosen:
        document = to_hs3(likelihood.patched(name))
        path = folder / f"{name}.json"
        write_whole(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
        written.append(path)
    return written


def expected_events(workspace: Mapping[str, Any]) -> float:
    """Return the expected background of the one bin that is as sensitive as all bins together."""
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


def averaged(convention: Convention | None) -> Convention:
    """Return the convention averaged over the nuisances; one that already says what toys do stays."""
    convention = Convention() if convention is None else convention
    return replace(convention, auxiliary="averaged") if convention.auxiliary == "fixed" else convention


def _simple(workspace: Mapping[str, Any]) -> list[Channel] | None:
    """Return channels of the engine of weighted toys, None for workspaces that it does not know."""
    try:
        return channels_of(workspace)
    except PhysicsError:
        return None


def exact_point(
    workspace: Mapping[str, Any],
    strength: float,
    rng: np.random.Generator,
    *,
    convention: Convention | None = None,
    n_toys: int = 20_000,
) -> tuple[CLs, FloatArray]:
    """Return observed and expected exact CLs of a workspace."""
    channels = _simple(workspace)
    if channels is None:
        return binned_cls(workspace, strength, rng=rng, convention=convention, n_toys=max(n_toys // 5, 1))
    if sizes := _counted(channels, convention):
        return _enumerated(channels[0], strength, sizes, convention or Convention())
    masked = any(channel.observed is None for channel in channels)
    known = [expected_data(channel) if channel.observed is None else channel for channel in channels]
    convention = Convention() if convention is None else convention
    model = toy_model(known, convention)
    toys = draw_weighted_toys(model, convention, model.data(), (strength,), n_toys, rng)
    q = statistics(model, toys.toys, strength, convention.statistic)
    with_signal, without = np.exp(toys.log_weight(strength)), np.exp(toys.log_weight(0.0))
    order = np.argsort(q, kind="stable")
    cumulative = np.cumsum(without[order]) / without.sum()
    at = q[order][np.minimum(np.searchsorted(cumulative, QUANTILES), len(q) - 1)]
    beyond = convention.beyond(q[None, :], at[:, None], TIE)
    clsb = beyond @ with_signal / with_signal.sum()
    expected = cls_of_tails(clsb, beyond @ without / without.sum())
    found = exact_cls(known, rng=rng, convention=convention, strength=strength, n_toys=n_toys)
    if masked:
        found = CLs(np.nan, 0.0, np.nan, np.nan, np.nan, found.toys, found.effective, found.method)
    return found, np.sort(expected)


def _counted(channels: Sequence[Channel], convention: Convention | None) -> tuple[float, float] | None:
    """Return ln κ of signal and background of one bin whose CLs is a sum over counts; None for others."""
    (one, *more) = channels
    both = set(one.signal_sigma) & set(one.background_sigma)
    plain = Convention("ratio", "averaged", ties="whole" if convention is None else convention.ties)
    if more or both or len(one.ratio) > 1 or convention != plain:
        return None
    signal, background = (
        float(np.hypot.reduce([0.0, *s.values()])) for s in (one.signal_sigma, one.background_sigma)
    )
    return signal, background


def _enumerated(
    channel: Channel, strength: float, sizes: tuple[float, float], convention: Convention
) -> tuple[CLs, FloatArray]:
    """Return observed and expected CLs of a count, averaged over its nuisances."""
    counts, masked = expected_counts(channel.background, sizes[1]), channel.observed is None
    every = np.r_[0.0 if channel.observed is None else float(len(channel.observed)), counts]
    half = convention.ties == "mid-p"
    own, b = np.full(6, strength * channel.signal), channel.background
    both = tail(own, every, b, sizes, half=half)
    none = tail(np.zeros(6), every, b, (0.0, sizes[1]), half=half)
    label, level = f"exact CLs by enumeration, {convention}", both / none
    if masked:
        return CLs(np.nan, 0.0, np.nan, np.nan, np.nan, 0, np.inf, label), level[1:]
    return CLs(float(level[0]), 0.0, float(both[0]), float(none[0]), np.nan, 0, np.inf, label), level[1:]
