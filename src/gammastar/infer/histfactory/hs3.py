"""Workspaces as HS3 documents (HEP Statistics Serialization Standard 0.2) that ROOT 6.40 reads.

HS3 keeps HistFactory as distributions of the type ``histfactory_dist``. Beside names, these differences to
pyhf's JSON matter: bin-wise errors are relative, constraints of α are distributions of their own, and the
luminosity is a constrained ``normfactor``. A Gaussian ``staterror`` becomes a Gaussian ``shapesys`` with the
total error, its parameters shared by the samples: ROOT reads every ``staterror`` as a Poisson one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gammastar.core.errors import PhysicsError

VERSION = "0.2"
CODE = 4  # sixth-order polynomial inside one standard deviation, exponential outside
GAMMA = (1e-6, 10.0)
BEYOND = 3.0  # standard deviations of all shapes together up to which a template must not be negative


def to_hs3(workspace: Mapping[str, Any]) -> dict[str, Any]:
    """Return a HistFactory workspace as an HS3 document.

    Parameters
    ----------
    workspace : mapping
        Valid HistFactory JSON with one measurement. Observed counts, or the expected ones of a masked
        search, become the data ``obsData_<channel>``.

    Returns
    -------
    dict
        With the nuisance parameters of ROOT's names: ``alpha_<name>`` for normsys and histosys,
        ``gamma_<name>_bin_<i>`` for bin-wise ones.

    Raises
    ------
    PhysicsError
        For more than one measurement, a shapesys or staterror of an empty bin, numbers that are not finite,
        or templates that their shapes pull below zero within three standard deviations.

    Notes
    -----
    Interpolation is that of ROOT's HistFactory, pyhf's code4 and code4p.

    Examples
    --------
    >>> from gammastar.infer import workspace
    >>> document = to_hs3(workspace("dimuons", 0.5, 0.3, [1]))
    >>> document["distributions"][0]["type"], document["metadata"]["hs3_version"]
    ('histfactory_dist', '0.2')
    """
    from importlib.metadata import version

    about = {"name": "gammastar", "version": version("gammastar")}
    if len(workspace["measurements"]) != 1:
        raise PhysicsError(
            f"to_hs3: {len(workspace['measurements'])} measurements, expected one; give one after the other"
        )
    config = workspace["measurements"][0]["config"]
    settings = {entry["name"]: entry for entry in config["parameters"]}
    counts = {o["name"]: o["data"] for o in workspace["observations"]}
    constraints: dict[str, dict[str, Any]] = {}
    found, data = [], []
    for channel in workspace["channels"]:
        bins = len(channel["samples"][0]["data"])
        axes = [{"name": f"obs_x_{channel['name']}", "min": 0.0, "max": float(bins), "nbins": bins}]
        totals = staterrors(channel)
        samples = [
            {
                "name": sample["name"],
                "data": {"contents": [float(value) for value in sample["data"]]},
                "modifiers": [
                    _written_modifier(m, sample, totals, settings, constraints) for m in sample["modifiers"]
                ],
            }
            for sample in channel["samples"]
        ]
        found.append(
            {"name": f"model_{channel['name']}", "type": "histfactory_dist", "axes": axes, "samples": samples}
        )
        contents = [float(n) for n in counts[channel["name"]]]
        data.append(
            {"name": f"obsData_{channel['name']}", "type": "binned", "axes": axes, "contents": contents}
        )
    names = [channel["name"] for channel in workspace["channels"]]
    document = {
        "metadata": {"hs3_version": VERSION, "packages": [about]},
        "distributions": [*found, *constraints.values()],
        "data": data,
        "likelihoods": [
            {
                "name": "simPdf_obsData",
                "distributions": [f"model_{name}" for name in names],
                "data": [f"obsData_{name}" for name in names],
            }
        ],
        **_parameters(found, constraints, settings, config["poi"]),
        "misc": {"ROOT_internal": _simultaneous(names, constraints)},
    }
    _check_templates(workspace)
    return document


def _check_templates(workspace: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite, and templates that shapes pull below zero, where ROOT cuts."""
    for channel in workspace["channels"]:
        for sample in channel["samples"]:
            where = f"to_hs3: channel {channel['name']!r}, sample {sample['name']!r}"
            nominal = np.asarray(sample["data"], dtype=np.float64)
            pulls = np.zeros(len(nominal))
            for modifier in sample["modifiers"]:
                data = modifier["data"]
                parts = list(data.values()) if isinstance(data, Mapping) else [] if data is None else [data]
                if not all(np.isfinite(np.asarray(part, dtype=np.float64)).all() for part in parts):
                    raise PhysicsError(
                        f"{where}, {modifier['type']} {modifier['name']!r}: holds numbers that are not finite"
                    )
                if modifier["type"] == "histosys":
                    sides = (np.asarray(data[side], dtype=np.float64) for side in ("hi_data", "lo_data"))
                    pulls += np.minimum(0.0, np.minimum(*(side - nominal for side in sides))) ** 2
            lowest = nominal - BEYOND * np.sqrt(pulls)
            if not (np.isfinite(lowest).all() and (lowest >= -1e-9 * max(nominal.max(), 1.0)).all()):
                bad = int(np.argmin(lowest))
                raise PhysicsError(
                    f"{where}: its shapes pull bin {bad} to {lowest[bad]:.4g} events at {BEYOND:g} standard "
                    "deviations, where ROOT reads zero and pyhf a negative number; merge bins, smooth the "
                    "shapes, or add them to a larger sample"
                )


def staterrors(channel: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the relative errors of each staterror of a channel, over all samples that carry it."""
    sums: dict[str, list[np.ndarray[Any, np.dtype[np.float64]]]] = {}
    for sample in channel["samples"]:
        for modifier in sample["modifiers"]:
            if modifier["type"] == "staterror":
                nominal, errors = (
                    np.asarray(sample["data"], np.float64),
                    np.asarray(modifier["data"], np.float64),
                )
                total = sums.setdefault(modifier["name"], [np.zeros(len(nominal)), np.zeros(len(nominal))])
                total[0] += nominal
                total[1] += errors**2
    return {
        name: np.divide(np.sqrt(v), n, out=np.zeros(len(n)), where=n > 0).tolist()
        for name, (n, v) in sums.items()
    }


def _written_modifier(
    modifier: Mapping[str, Any],
    sample: Mapping[str, Any],
    totals: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
    constraints: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    name, kind, data = modifier["name"], modifier["type"], modifier["data"]
    nominal = [float(value) for value in sample["data"]]
    entry: dict[str, Any] = {"name": name, "type": kind}
    if kind in {"normsys", "histosys"}:
        constraint = f"alpha_{name}Constraint"
        entry |= {"parameter": f"alpha_{name}", "constraint_name": constraint, "interpolation": CODE}
        constraints[constraint] = _unit_constraint(constraint, f"alpha_{name}", f"nom_alpha_{name}", 1.0)
        if kind == "normsys":
            return entry | {"data": {"hi": float(data["hi"]), "lo": float(data["lo"])}}
        sides = {"hi": data["hi_data"], "lo": data["lo_data"]}
        return entry | {"data": {side: {"contents": list(map(float, v))} for side, v in sides.items()}}
    if kind == "normfactor":
        return entry | {"parameter": name}
    if kind == "lumi":
        setting = settings.get(name, {})
        constraints["lumiConstraint"] = _unit_constraint(
            "lumiConstraint", name, f"nominal_{name}", float(setting["sigmas"][0])
        )
        return entry | {"type": "normfactor", "parameter": name, "constraint_name": "lumiConstraint"}
    entry["parameters"] = [f"gamma_{name}_bin_{i}" for i in range(len(nominal))]
    if kind == "shapefactor":
        return entry
    if kind == "staterror":
        relative = list(totals[name])
    else:
        relative = [float(e) / n if n > 0 else 0.0 for n, e in zip(nominal, data, strict=True)]
    empty = [i for i, error in enumerate(relative) if error <= 0]
    if empty:
        raise PhysicsError(
            f"to_hs3: sample {sample['name']!r}, {kind} {name!r}: bin {empty[0]} has no events or no error; "
            "a bin-wise nuisance of HS3 needs both"
        )
    constraint_type = "Gauss" if kind == "staterror" else "Poisson"
    return entry | {"type": "shapesys", "constraint_type": constraint_type, "data": {"vals": relative}}


def _unit_constraint(name: str, parameter: str, nominal: str, sigma: float) -> dict[str, Any]:
    return {"name": name, "type": "gaussian_dist", "x": parameter, "mean": nominal, "sigma": sigma}


def _used(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for distribution in found:
        for sample in distribution["samples"]:
            for modifier in sample["modifiers"]:
                yield from modifier.get("parameters", [modifier.get("parameter")])


def _setting_of(name: str, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Return what the measurement says of a parameter under its name in ROOT, and which of its bins it is."""
    if name in settings:
        return settings[name], 0
    if name.startswith("alpha_"):
        return settings.get(name.removeprefix("alpha_"), {}), 0
    own, _, i = name.removeprefix("gamma_").rpartition("_bin_")
    return (settings.get(own, {}), int(i)) if name.startswith("gamma_") else ({}, 0)


def _parameters(
    found: Sequence[Mapping[str, Any]],
    constraints: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    poi: str,
) -> dict[str, Any]:
    """Return analyses, domains and parameter points."""
    points, axes = [], []
    for name in sorted(set(_used(found))):
        setting, i = _setting_of(name, settings)
        start, default = (0.0, (-5.0, 5.0)) if name.startswith("alpha_") else (1.0, GAMMA)
        default = default if name.startswith(("alpha_", "gamma_")) else (0.0, 10.0)
        low, high = setting["bounds"][i] if "bounds" in setting else default
        point = {"name": name, "value": float(setting["inits"][i] if "inits" in setting else start)}
        points.append(point | ({"const": True} if setting.get("fixed") else {}))
        axes.append({"name": name, "min": float(low), "max": float(high)})
    for constraint in constraints.values():
        centre = _setting_of(constraint["x"], settings)[0].get("auxdata", [0.0])[0]
        points.append({"name": constraint["mean"], "value": float(centre), "const": True})
    nuisances = [axis for axis in axes if axis["name"] != poi]
    own = [axis for axis in axes if axis["name"] == poi]
    names = ("simPdf_obsData_nuisance_parameters", "simPdf_obsData_parameters_of_interest")
    one = {"name": "simPdf_obsData", "likelihood": "simPdf_obsData", "domains": list(names)}
    return {
        "analyses": [one | {"parameters_of_interest": [poi]}],
        "domains": [
            {"name": name, "type": "product_domain", "axes": part}
            for name, part in zip((*names, "default_domain"), (nuisances, own, axes), strict=True)
        ],
        "parameter_points": [{"name": "default_values", "parameters": points}],
    }


def _simultaneous(names: Sequence[str], constraints: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ROOT needs to put the channels together; other readers ignore it."""
    shared = {"index_cat": "channelCat", "indices": list(range(len(names))), "labels": list(names)}
    fixed = {entry["mean"]: {"tags": ["Constant"]} for entry in constraints.values()}
    binned = {f"model_{name}": {"tags": ["BinnedLikelihood"]} for name in names}
    return {
        "ModelConfigs": {"simPdf_obsData": {"mcName": "ModelConfig", "pdfName": "simPdf"}},
        "attributes": fixed | binned,
        "combined_datasets": {"obsData": shared},
        "combined_distributions": {"simPdf": shared | {"distributions": [f"model_{name}" for name in names]}},
    }


def from_hs3(document: Mapping[str, Any], *, likelihood: str | None = None) -> dict[str, Any]:
    """Return the HistFactory workspace of an HS3 document.

    Fixed normalisation factors (ROOT's ``Lumi``) are multiplied into the yields. A Gaussian ``shapesys`` over
    parameters that samples share becomes a ``staterror`` of equal size.
    """
    document = with_names(document)
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
                modifiers.append(_read_modifier(modifier, channel, sample, gaussians, values))
            samples.append({"name": sample["name"], "data": contents.tolist(), "modifiers": modifiers})
        made.append({"name": name, "samples": samples})
    observed = [{"name": c["name"], "data": counts} for c, counts in zip(made, data, strict=True)]
    parameters = [_free_setting(document, name, values) for name in sorted(free)]
    parameters += [_luminosity(name, gaussian, values) for name, gaussian in lumi.items()]
    parameters += _held(made, values, fixed)
    config = {"poi": poi, "parameters": parameters}
    spec = {
        "channels": made,
        "observations": observed,
        "measurements": [{"name": "limit", "config": config}],
        "version": "1.0.0",
    }
    import pyhf

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
            raise PhysicsError(
                f"from_hs3: parameter {name!r} is constant; a bin-wise nuisance of pyhf is fixed in all bins"
            )
    return [{"name": name, "inits": [values[f"alpha_{name}"]], "fixed": True} for name in held]


def _poi(document: Mapping[str, Any]) -> str:
    names = {name for entry in document.get("analyses", []) for name in entry["parameters_of_interest"]}
    if len(names) != 1:
        raise PhysicsError(f"from_hs3: {len(names)} parameters of interest {sorted(names)}, expected one")
    return str(names.pop())


def _free_setting(document: Mapping[str, Any], name: str, values: Mapping[str, float]) -> dict[str, Any]:
    axes = [a for d in document.get("domains", []) for a in d["axes"] if a["name"] == name]
    setting: dict[str, Any] = {"name": name, "inits": [values.get(name, 1.0)]}
    if axes and {"min", "max"} <= set(axes[0]):
        setting["bounds"] = [[float(axes[0]["min"]), float(axes[0]["max"])]]
    return setting


def _luminosity(name: str, gaussian: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    centre, sigma = values[gaussian["mean"]], float(gaussian["sigma"])
    bounds = [[max(centre - 5.0 * sigma, 0.0), centre + 5.0 * sigma]]
    return {"name": name, "auxdata": [centre], "sigmas": [sigma], "bounds": bounds, "inits": [values[name]]}


def _read_modifier(
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
        raise PhysicsError(f"{where}: a {kind} is not of pyhf's HistFactory")
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
        raise PhysicsError(f"{where}: interpolation {code}; only ROOT's default (4, also named 5) is read")
    found = gaussians.get(modifier.get("constraint_name", ""))
    centre = None if found is None else found["mean"]
    centre = values.get(centre, 0.0) if isinstance(centre, str) else centre
    if found is None or float(found["sigma"]) != 1.0 or centre != 0.0:
        raise PhysicsError(f"{where}: needs a Gaussian constraint of unit width around zero")


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
        raise PhysicsError(f"{where}: bin {int(np.argmin(relative))} has no error, others have")
    if modifier["constraint_type"] == "Gauss":  # equal shares of the total error
        errors = relative * total / np.sqrt(len(sharing))
        return {"name": name, "type": "staterror", "data": errors.tolist()}
    if len(sharing) > 1:
        raise PhysicsError(
            f"{where}: a Poisson error of {len(sharing)} samples at once has no counterpart in pyhf"
        )
    return {"name": name, "type": "shapesys", "data": (relative * nominal).tolist()}


def _common(parameters: Sequence[str]) -> str:
    return parameters[0].removeprefix("gamma_").rpartition("_bin_")[0]


def point_of(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of the first parameter point (none if there is none)."""
    points = document.get("parameter_points") or [{"parameters": []}]
    return {entry["name"]: float(entry["value"]) for entry in points[0]["parameters"]}


def chosen(
    document: Mapping[str, Any], likelihood: str | None
) -> tuple[list[Mapping[str, Any]], list[list[float]]]:
    """Return the channels of a likelihood and their counts; by default the one whose data are observed."""
    entries = {entry["name"]: entry for entry in document["likelihoods"]}
    if likelihood is None:
        observed = [name for name in entries if "asimov" not in name.casefold()]
        likelihood = (observed or list(entries))[0] if len(observed) == 1 or len(entries) == 1 else None
    if likelihood not in entries:
        raise PhysicsError(f"HS3: choose one of the likelihoods {sorted(entries)}, not {likelihood!r}")
    distributions = {d["name"]: d for d in document["distributions"]}
    data = {d["name"]: d for d in document["data"]}
    entry = entries[likelihood]
    channels = [distributions[name] for name in entry["distributions"]]
    for channel in channels:
        if channel["type"] != "histfactory_dist":
            raise PhysicsError(
                f"HS3: distribution {channel['name']!r} is a {channel['type']}, not a histfactory_dist"
            )
    counts = [[float(n) for n in data[name]["contents"]] for name in entry["data"]]
    return channels, counts


def with_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document in which every modifier of HistFactory names its parameters and its constraint.

    As ROOT itself reads them (``JSONFactories_HistFactory.cxx``): the parameter of a normsys or histosys is
    ``alpha_<name>`` with a unit Gaussian around zero, that of a normfactor its name; a shapesys has
    ``constraint`` for ``constraint_type`` and ``gamma_<name>_bin_<i>``; staterrors have one ``constraint`` a
    channel, Poisson if it is not given, and ``gamma_stat_<channel>_bin_<i>``.
    """
    found = copy.deepcopy(dict(document))
    known = {entry["name"] for entry in found["distributions"]}
    added: dict[str, dict[str, Any]] = {}
    for channel in found["distributions"]:
        if channel.get("type") != "histfactory_dist":
            continue
        for sample in channel["samples"]:
            for modifier in sample["modifiers"]:
                constraint = _named(modifier, channel, len(sample["data"]["contents"]))
                if constraint and constraint["name"] not in known:
                    added[constraint["name"]] = constraint
    found["distributions"] += list(added.values())
    return found


def _named(modifier: dict[str, Any], channel: Mapping[str, Any], bins: int) -> dict[str, Any] | None:
    """Fill in the names of a modifier in place; return the constraint that it implies, if any."""
    name, kind = modifier.get("name", "staterror"), modifier["type"]
    modifier.setdefault("name", name)
    if kind == "normfactor":
        modifier.setdefault("parameter", name)
    elif kind in {"normsys", "histosys"}:
        parameter = modifier.setdefault("parameter", f"alpha_{name}")
        own = modifier.setdefault("constraint_name", f"{parameter}Constraint")
        return {"name": own, "type": "gaussian_dist", "x": parameter, "mean": 0.0, "sigma": 1.0}
    elif kind in {"shapesys", "staterror"}:
        stem = name if kind == "shapesys" else f"stat_{channel['name'].removeprefix('model_')}"
        modifier.setdefault("parameters", [f"gamma_{stem}_bin_{i}" for i in range(bins)])
        usual = channel.get("staterror", {}).get("constraint", "Poisson")
        modifier.setdefault("constraint_type", modifier.pop("constraint", usual))
    elif kind == "shapefactor":
        modifier.setdefault("parameters", [f"gamma_{name}_bin_{i}" for i in range(bins)])
    return None
