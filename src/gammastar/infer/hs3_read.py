"""HS3 documents of HistFactory channels as workspaces, ours and those that ROOT exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyhf

from gammastar.core.errors import PhysicsError
from gammastar.infer.hs3_value import chosen, point_of

__all__ = ["from_hs3"]


def from_hs3(document: Mapping[str, Any], *, likelihood: str | None = None) -> dict[str, Any]:
    """Return the HistFactory workspace of an HS3 document.

    Parameters
    ----------
    document : mapping
        HS3 with distributions of the type ``histfactory_dist`` and binned data.
    likelihood : str, optional
        One of several; by default the only one whose name does not contain "asimov".

    Returns
    -------
    dict
        Valid HistFactory JSON; use pyhf's interpolations code4 and code4p with it.

    Raises
    ------
    PhysicsError
        For what pyhf's HistFactory cannot express, by name: other distributions, other interpolations, a
        Poisson staterror of several samples, a constrained normfactor that is not fixed.

    Notes
    -----
    Fixed normalisation factors (ROOT's ``Lumi``) are multiplied into the yields. A Gaussian ``shapesys`` over
    parameters that samples share becomes a ``staterror`` of equal size.
    """
    channels, data = chosen(document, likelihood)
    values, fixed = point_of(document), _fixed(document)
    gaussians = {d["name"]: d for d in document["distributions"] if d["type"] == "gaussian_dist"}
    poi = _poi(document)
    made, free, lumi = [], {poi}, {}
    for channel in channels:
        name = channel["name"].removeprefix("model_").removesuffix("_model")
        samples = []
        for sample in channel["samples"]:
            contents = np.asarray(sample["data"]["contents"], dtype=np.float64)
            modifiers: list[dict[str, Any]] = []
            for modifier in sample["modifiers"]:
                parameter = modifier.get("parameter")
                if modifier["type"] == "normfactor" and parameter in fixed and parameter != poi:
                    contents = contents * values[parameter]
                    continue
                if modifier["type"] == "normfactor" and "constraint_name" in modifier:
                    lumi[parameter] = gaussians[modifier["constraint_name"]]
                    modifiers.append({"name": parameter, "type": "lumi", "data": None})
                    continue
                if modifier["type"] == "normfactor":
                    free.add(parameter)
                modifiers.append(_modifier(modifier, channel, sample, gaussians, values))
            samples.append({"name": sample["name"], "data": contents.tolist(), "modifiers": modifiers})
        made.append({"name": name, "samples": samples})
    observed = [{"name": c["name"], "data": counts} for c, counts in zip(made, data, strict=True)]
    parameters = [_setting(document, name, values) for name in sorted(free)]
    parameters += [_luminosity(name, gaussian, values) for name, gaussian in lumi.items()]
    parameters += _held(made, values, fixed)
    config = {"poi": poi, "parameters": parameters}
    spec = {
        "channels": made,
        "observations": observed,
        "measurements": [{"name": "limit", "config": config}],
        "version": "1.0.0",
    }
    pyhf.schema.validate(spec, "workspace.json")
    return spec


def _fixed(document: Mapping[str, Any]) -> set[str]:
    points = document.get("parameter_points") or [{"parameters": []}]
    return {entry["name"] for entry in points[0]["parameters"] if entry.get("const")}


def _held(made: list[dict[str, Any]], values: Mapping[str, float], fixed: set[str]) -> list[dict[str, Any]]:
    """Return the settings of the nuisances that the document holds constant."""
    modifiers = [m for channel in made for s in channel["samples"] for m in s["modifiers"]]
    alphas = dict.fromkeys(m["name"] for m in modifiers if m["type"] in {"normsys", "histosys"})
    held = [name for name in alphas if f"alpha_{name}" in fixed]
    for name in fixed:
        if name.startswith("gamma_"):
            msg = (
                f"from_hs3: parameter {name!r} is constant; a bin-wise nuisance of pyhf is fixed in all bins"
            )
            raise PhysicsError(msg)
    return [{"name": name, "inits": [values[f"alpha_{name}"]], "fixed": True} for name in held]


def _poi(document: Mapping[str, Any]) -> str:
    names = {name for entry in document.get("analyses", []) for name in entry["parameters_of_interest"]}
    if len(names) != 1:
        msg = f"from_hs3: {len(names)} parameters of interest {sorted(names)}, expected one"
        raise PhysicsError(msg)
    return str(names.pop())


def _setting(document: Mapping[str, Any], name: str, values: Mapping[str, float]) -> dict[str, Any]:
    axes = [a for d in document.get("domains", []) for a in d["axes"] if a["name"] == name]
    setting: dict[str, Any] = {"name": name, "inits": [values.get(name, 1.0)]}
    if axes and {"min", "max"} <= set(axes[0]):
        setting["bounds"] = [[float(axes[0]["min"]), float(axes[0]["max"])]]
    return setting


def _luminosity(name: str, gaussian: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    centre, sigma = values[gaussian["mean"]], float(gaussian["sigma"])
    bounds = [[max(centre - 5.0 * sigma, 0.0), centre + 5.0 * sigma]]
    return {"name": name, "auxdata": [centre], "sigmas": [sigma], "bounds": bounds, "inits": [values[name]]}


def _modifier(
    modifier: Mapping[str, Any],
    channel: Mapping[str, Any],
    sample: Mapping[str, Any],
    gaussians: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, float],
) -> dict[str, Any]:
    kind, where = modifier["type"], f"from_hs3: {channel['name']}, {sample['name']}, {modifier['name']!r}"
    if kind == "normfactor":
        return {"name": modifier["parameter"], "type": kind, "data": None}
    if kind in {"normsys", "histosys"}:
        _unit(modifier, gaussians, values, where)
        name = modifier["parameter"].removeprefix("alpha_")
        sides = modifier["data"]
        if kind == "normsys":
            return {"name": name, "type": kind, "data": {"hi": sides["hi"], "lo": sides["lo"]}}
        shapes = {"hi_data": sides["hi"]["contents"], "lo_data": sides["lo"]["contents"]}
        return {"name": name, "type": kind, "data": shapes}
    if kind == "shapefactor":
        return {"name": _common(modifier["parameters"]), "type": kind, "data": None}
    if kind not in {"shapesys", "staterror"}:
        msg = f"{where}: a {kind} is not of pyhf's HistFactory"
        raise PhysicsError(msg)
    return _binwise(modifier, channel, sample, where)


def _unit(
    modifier: Mapping[str, Any],
    gaussians: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, float],
    where: str,
) -> None:
    """Refuse other constraints than a unit Gaussian around zero, and other interpolations."""
    code = int(modifier.get("interpolation", 4))
    if code not in {4, 5}:
        msg = f"{where}: interpolation {code}; only ROOT's default (4, also named 5) is read"
        raise PhysicsError(msg)
    found = gaussians.get(modifier.get("constraint_name", ""))
    centre = None if found is None else found["mean"]
    centre = values.get(centre, 0.0) if isinstance(centre, str) else centre
    if found is None or float(found["sigma"]) != 1.0 or centre != 0.0:
        msg = f"{where}: needs a Gaussian constraint of unit width around zero"
        raise PhysicsError(msg)


def _binwise(
    modifier: Mapping[str, Any], channel: Mapping[str, Any], sample: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return a shapesys (Poisson), staterror (Gaussian) or shapefactor (without errors)."""
    name, nominal = _common(modifier["parameters"]), np.asarray(sample["data"]["contents"], np.float64)
    sharing = [
        s
        for s in channel["samples"]
        if any(m.get("parameters") == modifier["parameters"] for m in s["modifiers"])
    ]
    total = np.sum([s["data"]["contents"] for s in sharing], axis=0)
    if modifier["type"] == "staterror":
        squares = np.sum([np.asarray(s["data"]["errors"], np.float64) ** 2 for s in sharing], axis=0)
        relative = np.sqrt(squares) / total
    else:
        relative = np.asarray(modifier["data"]["vals"], dtype=np.float64)
    if not relative.any():
        return {"name": name, "type": "shapefactor", "data": None}
    if not relative.all():
        msg = f"{where}: bin {int(np.argmin(relative))} has no error, others have"
        raise PhysicsError(msg)
    if modifier["constraint_type"] == "Gauss":  # equal shares of the total error
        errors = relative * total / np.sqrt(len(sharing))
        return {"name": name, "type": "staterror", "data": errors.tolist()}
    if len(sharing) > 1:
        msg = f"{where}: a Poisson error of {len(sharing)} samples at once has no counterpart in pyhf"
        raise PhysicsError(msg)
    return {"name": name, "type": "shapesys", "data": (relative * nominal).tolist()}


def _common(parameters: Sequence[str]) -> str:
    return parameters[0].removeprefix("gamma_").rpartition("_bin_")[0]
