"""Names in HS3 documents of older versions of ROOT, which leave out what follows from those of modifiers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def with_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document in which every modifier of HistFactory names its parameters and its constraint.

    Notes
    -----
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
