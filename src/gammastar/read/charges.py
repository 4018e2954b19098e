"""The charge of leptons from a charge or a PDG code as files store them; what holds no sign is refused."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from gammastar.core.errors import BranchError
from gammastar.read.branches import typename
from gammastar.read.schema import Schema

PDG_ID = {"e": 11, "mu": 13}  # of the negative lepton


def number_type(array: ak.Array) -> np.dtype[Any] | None:
    """Return the type of the numbers in an array at any depth, or None if it holds something else."""
    layout: Any = array.layout
    while layout is not None and not layout.is_numpy:
        text = layout.parameter("__array__") in ("string", "bytestring")
        layout = None if text else _inside(layout)
    return None if layout is None else np.dtype(layout.dtype)


def numbers(array: ak.Array) -> ak.Array:
    """Return numbers in double precision; one that the file leaves out is not a number."""
    result = ak.values_astype(array, np.float64)
    return ak.fill_none(result, np.nan, axis=None) if has_missing(array) else result


def has_missing(array: ak.Array) -> bool:
    """Return whether the type of an array allows for values that are left out."""
    layout: Any = array.layout
    while layout is not None:
        if layout.is_option:
            return True
        layout = _inside(layout)
    return False


def _inside(layout: Any) -> Any:
    """Return what a list or an optional value holds; None for records, unions and numbers."""
    return (
        None if layout.is_record or layout.is_union or layout.is_numpy else getattr(layout, "content", None)
    )


def check_sign(array: ak.Array, name: str, schema: Schema, path: str) -> None:
    """Refuse a charge whose type holds no negative number, unless the schema says what it means."""
    kind = number_type(array)
    if kind is None or kind.kind not in "bu" or (schema.charge and schema.positive is not None):
        return
    key = "charge" if schema.charge else "pdg_id"
    what = (
        "name the value of a positive lepton in the schema, for instance positive = 1"
        if schema.charge
        else "give a branch with signed PDG codes, or the charge"
    )
    raise BranchError(f"{path}: {key} = {name!r} of type {typename(array)} holds no negative number; {what}")


class Charges:
    """Turn what the files hold into charges; it remembers which value stood for negative leptons."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.negative: set[float] = set()

    def of(self, values: ak.Array, path: str) -> ak.Array:
        """Return charges ±1; other values stay for a plain charge and become 0 for codes."""
        if not self.schema.charge:  # a positive PDG code is a negative lepton
            known = np.abs(values) == PDG_ID[self.schema.lepton]
            return ak.where(known, -np.sign(values), 0.0)
        positive = self.schema.positive
        if positive is None:
            return values
        flat = np.asarray(ak.to_numpy(ak.flatten(values, axis=None)))
        self.negative |= set(np.unique(flat[np.isfinite(flat) & (flat != positive)]).tolist())
        if len(self.negative) > 1:
            some = ", ".join(f"{value:g}" for value in sorted(self.negative)[:5])
            raise BranchError(
                f"{path}: charge = {self.schema.charge!r} takes the values {some} besides "
                f"positive = {float(positive):g}; only one other value can mean a negative lepton"
            )
        charge = ak.where(values == positive, 1.0, -1.0)
        return ak.where(np.isfinite(values), charge, np.nan)
