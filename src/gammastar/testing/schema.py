"""The contract of a schema, by itself and on a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray
from gammastar.read import Schema, load_schema, open_events
from gammastar.testing.contract import Contract, ContractError

__all__ = ["check_schema"]

_MOMENTA = (1e-2, 5e3)  # GeV: a median outside is a wrong unit, not an experiment


def check_schema(
    schema: Schema | Mapping[str, Any] | str | Path,
    file: str | Path | None = None,
    *,
    truth: bool = False,
    entries: int = 10_000,
) -> None:
    """Check a schema and, with a file, that its branches hold what it says.

    Parameters
    ----------
    schema : Schema, mapping, TOML file or name of a schema that comes with the package
    file : path, optional
        ROOT file to read with it.
    truth : bool
        Read the true virtual photons as well.
    entries : int
        How many entries of the file to look at.

    Raises
    ------
    ContractError
        If the schema cannot be used or lacks branches in the file; if the entries hold no pair of leptons,
        charges other than ±1 or of one sign only, momenta that look like another unit, one identifier
        for all events, no weight, or truth that is not physical.
    """
    name = schema if isinstance(schema, str | Path) else getattr(schema, "tree", "mapping")
    contract = Contract("schema", str(name))
    try:
        ready = schema if isinstance(schema, Schema) else load_schema(schema)
        chunk = None if file is None else next(open_events(file, ready, step=entries, truth=truth), None)
    except UserError as error:
        msg = f"schema {name} breaks its contract:\n  - {error}"
        raise ContractError(msg) from error
    if file is not None and contract.need(chunk is not None and len(chunk) > 0, f"{file} holds no events"):
        _events(contract, ready, chunk)
        if truth:
            _truth(contract, ready, chunk)
    contract.settle()


def _flat(array: Any) -> FloatArray:
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None)), dtype=np.float64)


def _events(contract: Contract, schema: Schema, chunk: Any) -> None:
    leptons = chunk["lepton"]
    pairs = int(ak.sum(ak.num(leptons) >= 2))
    contract.need(pairs > 0, f"no event of {len(chunk)} has two leptons; are charge and row_filter right?")
    momentum = np.sqrt(sum(_flat(leptons[key]) ** 2 for key in ("px", "py", "pz")))
    momentum = momentum[np.isfinite(momentum) & (momentum > 0)]
    if contract.need(len(momentum) > 0, "kinematics: no lepton has a finite momentum"):
        median, (low, high) = float(np.median(momentum)), _MOMENTA
        contract.need(
            low < median < high, f"unit: the median momentum is {median:.3g} GeV; MeV need unit = 1e-3"
        )
    charges = set(np.unique(_flat(leptons["charge"])).tolist())
    contract.need(charges <= {-1.0, 1.0}, f"charge: values {sorted(charges)}, must be +1 and -1")
    contract.need(len(charges) > 1, f"charge: all leptons have {sorted(charges)}; there is no opposite sign")
    events = np.unique(ak.to_numpy(chunk["event"]))
    contract.need(
        len(chunk) == 1 or len(events) > 1, f"event: {schema.event} is the same for all {len(chunk)} entries"
    )
    weight = ak.to_numpy(chunk["weight"])
    contract.need(bool((weight != 0).any()), "weight: all entries have weight zero")


def _truth(contract: Contract, schema: Schema, chunk: Any) -> None:
    mass, pt, energy = (_flat(chunk["truth"][key]) for key in ("mass", "pt", "energy"))
    photon = np.isfinite(mass) & (mass > 0)
    mass, pt, energy = mass[photon], pt[photon], energy[photon]
    if contract.need(len(mass) > 0, "truth: no entry has a virtual photon"):
        threshold = 2 * LEPTON_MASS[schema.lepton]
        contract.need(
            bool((mass >= threshold * (1 - 1e-5)).all()),
            f"truth: masses down to {mass.min():.4g} GeV, below the threshold {threshold:.4g} GeV; unit?",
        )
        contract.need(
            bool((energy**2 >= (mass**2 + pt**2) * (1 - 1e-5)).all()), "truth: energies below √(mass² + pt²)"
        )
