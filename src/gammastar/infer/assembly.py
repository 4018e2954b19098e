"""Samples with their modifiers assembled into channels and workspaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyhf

from gammastar.core.errors import PhysicsError
from gammastar.infer.effects import Modifiers, log_normal
from gammastar.infer.ensemble import lint_names
from gammastar.infer.template import check_modifiers, yields_of
from gammastar.infer.workspace import MASKED, observations

__all__ = ["assemble", "in_domain_samples", "like_sign_channel", "sample"]


def in_domain_samples(
    signal: npt.ArrayLike,
    in_domain: npt.ArrayLike,
    *,
    sigma: float,
    modifiers: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return the signal as two samples, measured and extrapolated, the second with a nuisance of its own.

    Parameters
    ----------
    signal, in_domain : array_like, shape (n,)
        Expected events in all, and those from where dileptons were measured.
    sigma : float
        Standard deviation of the logarithm of the extrapolated part.
    modifiers : sequence of mapping
        Of both parts; ``mu`` is added here.
    """
    total, inside = yields_of(signal, "signal"), yields_of(in_domain, "signal in the measured domain")
    if total.shape != inside.shape or (inside > total * (1 + 1e-9)).any():
        msg = "in_domain_samples: the measured part must fit the signal and not exceed it in any bin"
        raise PhysicsError(msg)
    outside = np.maximum(total - inside, 0.0)
    return [
        sample("signal_measured", inside, modifiers, signal=True),
        sample("signal_extrapolated", outside, modifiers, log_normal("extrapolation", sigma), signal=True),
    ]


def sample(
    name: str, nominal: npt.ArrayLike, *modifiers: Iterable[Mapping[str, Any]], signal: bool = False
) -> dict[str, Any]:
    """Return a sample of a channel from its expected events and lists of modifiers."""
    first: Modifiers = [{"name": "mu", "type": "normfactor", "data": None}] if signal else []
    listed = [dict(modifier) for group in modifiers for modifier in group]
    check_modifiers([*first, *listed], f"sample {name!r}")
    return {
        "name": name,
        "data": yields_of(nominal, f"sample {name!r}").tolist(),
        "modifiers": first + listed,
    }


def like_sign_channel(
    name: str, counts: npt.ArrayLike, *, r_factor: float = 1.0, modifiers: Sequence[Mapping[str, Any]] = ()
) -> tuple[dict[str, Any], npt.NDArray[np.int64], dict[str, Any]]:
    """Return like-sign counts as a channel of their own, valid also where a bin has none.

    Parameters
    ----------
    name : str
        Channel of the search.
    counts : array_like of int, shape (n,)
        Like-sign pairs per bin.
    r_factor : float
        Opposite-sign background per like-sign pair.
    modifiers : sequence of mapping
        Of the background in the search, e.g. ``log_normal("r_factor", 0.05)``.

    Returns
    -------
    channel : dict
        The control channel, ``<name>_like_sign``.
    counts : NDArray of int
        Its observation.
    background : dict
        Sample for the search: R times the same free yield per bin.
    """
    observed = yields_of(counts, f"{name}, like-sign counts")
    if not np.array_equal(observed, np.rint(observed)):
        msg = f"{name}: like-sign counts {observed} must be whole numbers"
        raise PhysicsError(msg)
    start = np.maximum(observed, 1.0)  # the free factors have their bounds at ten times this
    free: Modifiers = [{"name": f"like_sign_{name}", "type": "shapefactor", "data": None}]
    channel = {"name": f"{name}_like_sign", "samples": [sample("like_sign", start, free)]}
    return channel, observed.astype(np.int64), sample("combinatorial", r_factor * start, free, modifiers)


Observed: TypeAlias = npt.ArrayLike | Literal["masked", "asimov"]


def assemble(
    channels: Mapping[str, Sequence[Mapping[str, Any]]],
    observed: Mapping[str, Observed],
    *,
    poi_maximum: float = 30.0,
) -> dict[str, Any]:
    """Return a workspace from samples per channel.

    Parameters
    ----------
    channels : mapping of str to samples
        From `sample`; one of the samples carries ``mu``.
    observed : mapping of str to counts, "masked" or "asimov"
        Per channel; channels without an entry stay masked and hold the expected background. One masked
        channel masks the whole workspace.
    poi_maximum : float

    Returns
    -------
    dict
        Valid HistFactory JSON.

    Raises
    ------
    PhysicsError, NegativeYieldError
        For names of nuisances that differ in spelling only, or observations that do not fit.
    """
    lint_names([m["name"] for samples in channels.values() for s in samples for m in s["modifiers"]])
    unknown = set(observed) - set(channels)
    if unknown:
        msg = f"assemble: observations of unknown channels {sorted(unknown)}"
        raise PhysicsError(msg)
    measured = []
    masked = any(isinstance(observed.get(name, "masked"), str) for name in channels)
    label = MASKED if masked else "limit"
    for name, samples in channels.items():
        others = [s["data"] for s in samples if all(m["name"] != "mu" for m in s["modifiers"])]
        background = np.sum(others, axis=0) if others else np.zeros(len(samples[0]["data"]))
        counts = observations(name, np.asarray(background, np.float64), observed.get(name, "masked"))
        measured.append({"name": name, "data": counts.tolist()})
    bounds = {"name": "mu", "inits": [1.0], "bounds": [[0.0, float(poi_maximum)]]}
    spec: dict[str, Any] = {
        "channels": [{"name": name, "samples": list(samples)} for name, samples in channels.items()],
        "observations": measured,
        "measurements": [{"name": label, "config": {"poi": "mu", "parameters": [bounds]}}],
        "version": "1.0.0",
    }
    pyhf.schema.validate(spec, "workspace.json")
    return spec
