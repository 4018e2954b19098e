"""The contract of a schema, by itself and on a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gammastar.core.errors import UserError
from gammastar.read import Schema, examine, load_schema
from gammastar.testing.contract import Contract, ContractError

__all__ = ["check_schema"]


def check_schema(
    schema: Schema | Mapping[str, Any] | str | Path,
    file: str | Path | None = None,
    *,
    truth: bool = False,
    entries: int = 20_000,
    accept: tuple[str, ...] = (),
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
    accept : tuple of str
        Keys whose warnings are known and right, e.g. ``("unit",)`` for an experiment of unusual momenta.
        Errors cannot be accepted.

    Raises
    ------
    ContractError
        If the schema cannot be used or lacks branches in the file, or for any finding of `read.examine`.
    """
    name = schema if isinstance(schema, str | Path) else getattr(schema, "tree", "mapping")
    try:
        ready = schema if isinstance(schema, Schema) else load_schema(schema)
    except UserError as error:
        msg = f"schema {name} breaks its contract:\n  - {error}"
        raise ContractError(msg) from error
    contract = Contract("schema", str(name))
    found = () if file is None else examine(file, ready, truth=truth, entries=entries)
    for finding in found:
        known = finding.level == "warning" and finding.key in accept
        contract.need(known, f"{finding.where}: {finding.message}")
    contract.settle()
