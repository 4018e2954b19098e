"""Workspaces of several channels or experiments as one, nuisances of equal names shared."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyhf
import pyhf.writexml

from gammastar.core.errors import PhysicsError
from gammastar.infer.channel import Channel, binned_channel
from gammastar.infer.ensemble import lint_names
from gammastar.infer.workspace import MASKED

__all__ = ["channels_of", "combine", "write_xml"]

PER_CHANNEL = {"shapesys", "staterror", "shapefactor"}
USUAL = 5.0  # bounds of a nuisance in HistFactory [standard deviations]


def combine(
    workspaces: Sequence[Mapping[str, Any]], *, prefixes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return one workspace of all channels.

    Parameters
    ----------
    workspaces : sequence of mapping
        With one measurement each and the same parameter of interest.
    prefixes : sequence of str, optional
        Put in front of the channels' names, one per workspace, e.g. of the experiments.

    Returns
    -------
    dict
        Valid HistFactory JSON. Equal names of nuisances are one nuisance (protons on target, say); names that
        differ in spelling only are refused, as are bin-wise nuisances of one name in two channels. One masked
        workspace masks the combination.

    Raises
    ------
    PhysicsError

    Examples
    --------
    >>> from gammastar.infer import workspace
    >>> both = combine([workspace(name, 0.5, pot_search_sigma=0.18) for name in ("ee", "mumu")])
    >>> pyhf.Workspace(both).channels
    ['ee', 'mumu']
    """
    if not workspaces or (prefixes is not None and len(prefixes) != len(workspaces)):
        msg = "combine: give at least one workspace, and one prefix for each or none"
        raise PhysicsError(msg)
    parts = [
        _prefixed(space, prefix)
        for space, prefix in zip(workspaces, prefixes or [""] * len(workspaces), strict=True)
    ]
    channels = [channel for part in parts for channel in part["channels"]]
    names = [channel["name"] for channel in channels]
    if len(set(names)) < len(names):
        msg = f"combine: channels {names} must have different names; give prefixes"
        raise PhysicsError(msg)
    _check(channels)
    configs = [part["measurements"][0]["config"] for part in parts]
    labels = [part["measurements"][0]["name"] for part in parts]
    pois = {config["poi"] for config in configs}
    if len(pois) > 1:
        msg = f"combine: parameters of interest {sorted(pois)} differ"
        raise PhysicsError(msg)
    parameters: dict[str, Any] = {}
    for config in configs:
        for parameter in config["parameters"]:
            other = parameters.setdefault(parameter["name"], parameter)
            if other != parameter:
                msg = f"combine: parameter {parameter['name']!r} is set up differently: {other}, {parameter}"
                raise PhysicsError(msg)
    spec = {
        "channels": channels,
        "observations": [observation for part in parts for observation in part["observations"]],
        "measurements": [
            {
                "name": MASKED if MASKED in labels else parts[0]["measurements"][0]["name"],
                "config": {"poi": configs[0]["poi"], "parameters": list(parameters.values())},
            }
        ],
        "version": "1.0.0",
    }
    pyhf.schema.validate(spec, "workspace.json")
    return spec


def channels_of(workspace: Mapping[str, Any]) -> list[Channel]:
    """Return the channels of a workspace for the exact engine.

    Parameters
    ----------
    workspace : mapping
        With a signal and one background sample per channel and log-normal normalisations only (normsys with
        lo = 1/hi), e.g. from `workspace` with a patch applied.

    Returns
    -------
    list of Channel
        Masked ones from a masked workspace.

    Raises
    ------
    PhysicsError
        For anything else, naming the modifier or the parameter: the exact engine has no bin-wise nuisances.

    Notes
    -----
    Of the measurement's parameters `fixed` takes a nuisance θ out, at its `inits`, and `auxdata` a moves the
    centre of its constraint. With θ = a + θ′ that is a unit normal around zero again, of yields times κ^a:
    those of the channels. `inits` of others are starting values, and the strength lies between zero and
    the tested one by the definition of the statistic; bounds narrower than the usual ±5 are refused.
    """
    config = workspace["measurements"][0]["config"]
    poi = config["poi"]
    used = {m["name"] for c in workspace["channels"] for s in c["samples"] for m in s["modifiers"]}
    centres, fixed = _centres(poi, [entry for entry in config["parameters"] if entry["name"] in used])
    masked = workspace["measurements"][0]["name"] == MASKED
    counts = {o["name"]: o["data"] for o in workspace["observations"]}
    found = []
    for channel in workspace["channels"]:
        signals = [s for s in channel["samples"] if any(m["name"] == poi for m in s["modifiers"])]
        others = [s for s in channel["samples"] if s not in signals]
        if len(signals) != 1 or len(others) != 1:
            msg = f"channel {channel['name']!r}: needs one signal and one background sample for exact limits"
            raise PhysicsError(msg)
        yields, sigmas = [], []
        for sample in (*signals, *others):
            moved = _log_normals(sample, poi)
            shift = sum(sigma * centres.get(name, 0.0) for name, sigma in moved.items())
            yields.append([value * math.exp(shift) for value in sample["data"]])
            sigmas.append({name: sigma for name, sigma in moved.items() if name not in fixed})
        found.append(
            binned_channel(
                channel["name"],
                signal=yields[0],
                background=yields[1],
                observed="masked" if masked else counts[channel["name"]],
                signal_sigma=sigmas[0],
                background_sigma=sigmas[1],
            )
        )
    return found


def _centres(poi: str, parameters: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], set[str]]:
    """Return where each set-up nuisance is centred or fixed, and the names of the fixed ones."""
    centres: dict[str, float] = {}
    fixed: set[str] = set()
    for entry in parameters:
        name = entry["name"]
        what = f"parameter {name!r} of the measurement"
        if name == poi:
            if entry.get("fixed") or "auxdata" in entry or "sigmas" in entry:
                msg = f"{what}: the parameter of interest can be neither fixed nor constrained"
                raise PhysicsError(msg)
            continue
        if name in centres:
            msg = f"{what} is set up twice; keep one entry"
            raise PhysicsError(msg)
        if "sigmas" in entry or "factors" in entry:
            msg = f"{what}: a log-normal nuisance has no sigmas or factors; put its size into hi and lo"
            raise PhysicsError(msg)
        values = entry.get("inits", [0.0]) if entry.get("fixed") else entry.get("auxdata", [0.0])
        if len(values) != 1 or not math.isfinite(values[0]):
            msg = f"{what}: {values} must be one finite number"
            raise PhysicsError(msg)
        if entry.get("fixed"):
            fixed.add(name)
        elif any(low > -USUAL or high < USUAL for low, high in entry.get("bounds", [])):
            msg = (
                f"{what}: bounds {entry['bounds']} are narrower than ±{USUAL:g}, and exact limits do not "
                "bound their fits; leave the bounds out, or take method = 'asymptotic'"
            )
            raise PhysicsError(msg)
        centres[name] = float(values[0])
    return centres, fixed


def write_xml(workspace: Mapping[str, Any], directory: Path, *, prefix: str = "limit") -> Path:
    """Write a workspace as HistFactory XML with ROOT histograms, for RooStats; return the top file.

    The conversion is pyhf's. Parameters and paths in the XML are relative to `directory`.
    """
    data = directory / "data"
    for folder in (directory, data, directory / "config"):
        folder.mkdir(parents=True, exist_ok=True)
    text = pyhf.writexml.writexml(
        copy.deepcopy(dict(workspace)), str(directory / "config"), str(data), prefix
    )
    top = directory / f"{prefix}.xml"
    top.write_bytes(text)
    return top


def _prefixed(workspace: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(dict(workspace))
    if len(spec["measurements"]) != 1:
        msg = f"combine: {len(spec['measurements'])} measurements in a workspace, expected one"
        raise PhysicsError(msg)
    if prefix:
        for entry in (*spec["channels"], *spec["observations"]):
            entry["name"] = f"{prefix}_{entry['name']}"
    return spec


def _check(channels: Sequence[Mapping[str, Any]]) -> None:
    names: list[str] = []
    owner: dict[str, str] = {}
    for channel in channels:
        for sample in channel["samples"]:
            for modifier in sample["modifiers"]:
                names.append(modifier["name"])
                if modifier["type"] not in PER_CHANNEL - {"shapefactor"}:
                    continue
                first = owner.setdefault(modifier["name"], channel["name"])
                if first != channel["name"]:
                    msg = (
                        f"combine: bin-wise nuisance {modifier['name']!r} occurs in channels {first!r} and "
                        f"{channel['name']!r}; give it one name per channel"
                    )
                    raise PhysicsError(msg)
    lint_names(names)


def _log_normals(sample: Mapping[str, Any], poi: str) -> dict[str, float]:
    sigmas: dict[str, float] = {}
    for modifier in sample["modifiers"]:
        if modifier["name"] == poi and modifier["type"] == "normfactor":
            continue
        data = modifier["data"]
        if modifier["type"] != "normsys" or abs(data["hi"] * data["lo"] - 1.0) > 1e-6:
            msg = (
                f"sample {sample['name']!r}: modifier {modifier['name']!r} ({modifier['type']}) is not "
                "log-normal; exact limits know normsys with lo = 1/hi only"
            )
            raise PhysicsError(msg)
        if modifier["name"] in sigmas:
            msg = f"sample {sample['name']!r}: modifier {modifier['name']!r} occurs twice; keep one of them"
            raise PhysicsError(msg)
        sigmas[modifier["name"]] = math.log(data["hi"])
    return sigmas
