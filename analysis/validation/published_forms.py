"""A published table written in every form that is read, by other code than that which reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hist
import numpy as np
import uproot
import yaml

from gammastar.read.published import Column, PublishedTable, TableAxis

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # compiled where it can be


def contiguous(table: PublishedTable) -> bool:
    """Return whether a table is one axis of bins that join."""
    if len(table.axes) != 1:
        return False
    low, high = table.axes[0].low, table.axes[0].high
    joined = np.allclose(low[1:], high[:-1], rtol=1e-12, atol=0)
    return bool((high > low).all() and joined and np.isfinite(table.columns[0].values).all())


def axis_entry(axis: TableAxis, i: int) -> dict:
    if axis.text:
        return {"value": axis.text[i]}
    if axis.low[i] == axis.high[i]:
        return {"value": float(axis.value[i])}
    return {"low": float(axis.low[i]), "high": float(axis.high[i]), "value": float(axis.value[i])}


def value_entry(column: Column, i: int) -> dict:
    value = column.values[i]
    entry = {"value": "-" if np.isnan(value) else f"< {value!r}" if column.limits[i] else float(value)}
    errors = []
    for error in column.errors:
        low, high = float(error.minus[i]), float(error.plus[i])
        if np.isnan(low) and np.isnan(high):
            continue
        size = {"symerror": high} if low == -high else {"asymerror": {"minus": low, "plus": high}}
        errors.append({"label": error.label, **size})
    return entry | ({"errors": errors} if errors else {})


def write_record(folder: Path, tables: list[PublishedTable]) -> Path:
    """Write a HEPData record: ``submission.yaml`` and a file per table."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"comment": "written by a test"}]
    for k, table in enumerate(tables):
        rows = range(len(table))
        content = {
            "independent_variables": [
                {"header": {"name": a.name, "units": a.unit}, "values": [axis_entry(a, i) for i in rows]}
                for a in table.axes
            ],
            "dependent_variables": [
                {
                    "header": {"name": c.name, "units": c.unit},
                    "qualifiers": [{"name": name, "value": value} for name, value in c.qualifiers.items()],
                    "values": [value_entry(c, i) for i in rows],
                }
                for c in table.columns
            ],
        }
        (folder / f"data{k}.yaml").write_text(yaml.dump(content, Dumper=DUMPER))
        listed.append({"name": f"Table {k + 1}", "description": table.name, "data_file": f"data{k}.yaml"})
    (folder / "submission.yaml").write_text(yaml.dump_all(listed, Dumper=DUMPER))
    return folder


def as_hist(table: PublishedTable, k: int = 0) -> hist.Hist:
    """Return the first column with its error k, as `hist` holds it."""
    axis, column = table.axes[0], table.columns[0]
    edges = [*axis.low.tolist(), float(axis.high[-1])]
    label = f"{axis.name} [{axis.unit}]"
    found = hist.Hist(hist.axis.Variable(edges, name="mass", label=label), storage=hist.storage.Weight())
    found.view().value = column.values
    found.view().variance = column.errors[k].plus ** 2 if column.errors else 0.0
    return found


def write_root(path: Path, table: PublishedTable) -> Path:
    with uproot.recreate(path) as file:
        file["h"] = as_hist(table)
    return path


FORMS = (("ROOT", write_root, "m.root"),)


def differences(table: PublishedTable, again: PublishedTable, *, columns: int | None = None) -> Iterator[str]:
    """Yield what differs between two tables; numbers to a part in 10¹²."""

    def same(a, b) -> bool:
        return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-12, atol=1e-300, equal_nan=True)

    for one, other in zip(table.axes, again.axes, strict=True):
        if not (same(one.low, other.low) and same(one.high, other.high)):
            yield f"edges of {one.name}"
        if one.unit != other.unit or one.text != other.text:
            yield f"unit or text of {one.name}"
    for one, other in zip(table.columns[:columns], again.columns[:columns], strict=True):
        if not same(one.values, other.values):
            yield f"values of {one.name}"
        kept = len(other.errors) if columns else None  # a histogram holds one
        for error, found in zip(one.errors[:kept], other.errors, strict=True):
            if not (same(error.minus, found.minus) and same(error.plus, found.plus)):
                yield f"error {error.label} of {one.name}"
