"""Workspaces as HS3 documents (HEP Statistics Serialization Standard 0.2) that ROOT 6.40 reads.

HS3 keeps HistFactory as distributions of the type ``histfactory_dist``. Beside names, these differences to
pyhf's JSON matter: bin-wise errors are relative, constraints of α are distributions of their own, and the
luminosity is a constrained ``normfactor``. A Gaussian ``staterror`` becomes a Gaussian ``shapesys`` with the
total error, its parameters shared by the samples: ROOT reads every ``staterror`` as a Poisson one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyhf

from gammastar.core.errors import PhysicsError
from gammastar.infer.hs3_value import hs3_nll

__all__ = ["to_hs3"]

VERSION = "0.2"
CODE = 4  # sixth-order polynomial inside one standard deviation, exponential outside
GAMMA = (1e-6, 10.0)
MATCHED = 1e-8  # of the NLL, relative


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
        For more than one measurement, a shapesys or staterror of an empty bin, or if the likelihood computed
        from the document differs from pyhf's: then the document is not handed out.

    Notes
    -----
    Interpolation is that of ROOT's HistFactory, pyhf's code4 and code4p. The likelihood of the document is
    evaluated on its own (`hs3_nll`) and compared at three points in all parameters.

    Examples
    --------
    >>> from gammastar.infer import workspace
    >>> document = to_hs3(workspace("dimuons", 0.5, 0.3, [1]))
    >>> document["distributions"][0]["type"], document["metadata"]["hs3_version"]
    ('histfactory_dist', '0.2')
    """
    if len(workspace["measurements"]) != 1:
        msg = f"to_hs3: {len(workspace['measurements'])} measurements, expected one; give one after the other"
        raise PhysicsError(msg)
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
                    _modifier(m, sample, totals, settings, constraints) for m in sample["modifiers"]
                ],
            }
            for sample in channel["samples"]
        ]
        found.append(
            {
                "name": f"model_{channel['name']}",
                "type": "histfactory_dist",
                "axes": axes,
                "samples": samples,
            }
        )
        contents = [float(n) for n in counts[channel["name"]]]
        data.append(
            {"name": f"obsData_{channel['name']}", "type": "binned", "axes": axes, "contents": contents}
        )
    names = [channel["name"] for channel in workspace["channels"]]
    document = {
        "metadata": {"hs3_version": VERSION, "packages": [{"name": "gammastar", "version": _version()}]},
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
    _compare(workspace, document)
    return document


def _version() -> str:
    from importlib.metadata import version

    return version("gammastar")


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


def _modifier(
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
        constraints[constraint] = _gaussian(constraint, f"alpha_{name}", f"nom_alpha_{name}", 1.0)
        if kind == "normsys":
            return entry | {"data": {"hi": float(data["hi"]), "lo": float(data["lo"])}}
        sides = {"hi": data["hi_data"], "lo": data["lo_data"]}
        return entry | {"data": {side: {"contents": list(map(float, v))} for side, v in sides.items()}}
    if kind == "normfactor":
        return entry | {"parameter": name}
    if kind == "lumi":
        setting = settings.get(name, {})
        constraints["lumiConstraint"] = _gaussian(
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
        msg = (
            f"to_hs3: sample {sample['name']!r}, {kind} {name!r}: bin {empty[0]} has no events or no error; "
            "a bin-wise nuisance of HS3 needs both"
        )
        raise PhysicsError(msg)
    constraint_type = "Gauss" if kind == "staterror" else "Poisson"
    return entry | {"type": "shapesys", "constraint_type": constraint_type, "data": {"vals": relative}}


def _gaussian(name: str, parameter: str, nominal: str, sigma: float) -> dict[str, Any]:
    return {"name": name, "type": "gaussian_dist", "x": parameter, "mean": nominal, "sigma": sigma}


def _used(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for distribution in found:
        for sample in distribution["samples"]:
            for modifier in sample["modifiers"]:
                yield from modifier.get("parameters", [modifier.get("parameter")])


def _setting(name: str, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
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
        setting, i = _setting(name, settings)
        start, default = (0.0, (-5.0, 5.0)) if name.startswith("alpha_") else (1.0, GAMMA)
        default = default if name.startswith(("alpha_", "gamma_")) else (0.0, 10.0)
        low, high = setting["bounds"][i] if "bounds" in setting else default
        point = {"name": name, "value": float(setting["inits"][i] if "inits" in setting else start)}
        points.append(point | ({"const": True} if setting.get("fixed") else {}))
        axes.append({"name": name, "min": float(low), "max": float(high)})
    for constraint in constraints.values():
        centre = _setting(constraint["x"], settings)[0].get("auxdata", [0.0])[0]
        points.append({"name": constraint["mean"], "value": float(centre), "const": True})
    nuisances = [axis for axis in axes if axis["name"] != poi]
    own = [axis for axis in axes if axis["name"] == poi]
    names = ("simPdf_obsData_nuisance_parameters", "simPdf_obsData_parameters_of_interest")
    return {
        "analyses": [
            {
                "name": "simPdf_obsData",
                "likelihood": "simPdf_obsData",
                "domains": list(names),
                "parameters_of_interest": [poi],
            }
        ],
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
        "combined_distributions": {
            "simPdf": shared | {"distributions": [f"model_{name}" for name in names]},
        },
    }


def _compare(workspace: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Refuse a document whose likelihood differs from pyhf's at one of three points."""
    space = pyhf.Workspace(dict(workspace))
    codes = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
    model = space.model(modifier_settings=codes)
    start = np.asarray(model.config.suggested_init(), dtype=np.float64)
    for shift in (0.0, 0.3, -0.4):
        values = np.where(start == 0.0, shift, start * (1.0 + 0.2 * shift))
        if any(np.any(bins < 0) for bins in np.atleast_2d(model.expected_actualdata(values))):
            continue
        ours = hs3_nll(document, hs3_parameters(model, values))
        peer = -float(np.asarray(model.logpdf(values, space.data(model)))[0])
        if abs(ours - peer) > MATCHED * max(1.0, abs(peer)):
            msg = f"to_hs3: the likelihood of the document, {ours:.9g}, differs from pyhf's, {peer:.9g}"
            raise PhysicsError(msg)


def hs3_parameters(model: Any, values: Any) -> dict[str, float]:
    """Return parameters of a pyhf model under their names in the document."""
    kinds: dict[str, str] = dict(model.config.modifiers)
    named: dict[str, float] = {}
    for name, place in model.config.par_map.items():
        part = np.asarray(values)[place["slice"]].tolist()
        if kinds[name] in {"normsys", "histosys"}:
            named[f"alpha_{name}"] = part[0]
        elif kinds[name] in {"normfactor", "lumi"}:
            named[name] = part[0]
        else:
            named |= {f"gamma_{name}_bin_{i}": value for i, value in enumerate(part)}
    return named
