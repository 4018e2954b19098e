"""Likelihoods that somebody published: pyhf workspaces with patches or HS3 documents, read and checked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyhf

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer.hs3_read import from_hs3

__all__ = ["Likelihood", "read_likelihood"]

LARGEST = 64 * 2**20  # bytes of one member of an archive


@dataclass(frozen=True, slots=True, eq=False)
class Likelihood:
    """A background-only workspace and its patches.

    Attributes
    ----------
    workspace : dict
        Valid HistFactory JSON.
    patches : mapping of str to list
        JSON patches (RFC 6902) by name.
    values : mapping of str to tuple of float
        Parameters of each patch, where a patch set gives them.
    labels : tuple of str
        Names of these parameters.
    """

    workspace: dict[str, Any]
    patches: Mapping[str, list[dict[str, Any]]]
    values: Mapping[str, tuple[float, ...]]
    labels: tuple[str, ...]


def read_likelihood(path: Path, *, patches: Path | None = None, region: str = "") -> Likelihood:
    """Read a likelihood as HEPData publishes it.

    Parameters
    ----------
    path : Path
        A workspace (JSON, or an HS3 document of HistFactory channels), or a directory or tar archive that
        holds one workspace together with one patch set or many single patches.
    patches : Path, optional
        A patch set or a single patch, next to a workspace.
    region : str
        Directory inside the directory or archive, where it holds several workspaces.

    Returns
    -------
    Likelihood

    Raises
    ------
    InputFileError
        If files are missing, not JSON, hold NaN, are no valid HistFactory documents, or the digest of a patch
        set does not belong to the workspace.
    """
    texts = dict(_texts(path, region))
    if patches is not None:
        texts |= dict(_texts(patches, ""))
    documents = {name: _parsed(name, text) for name, text in texts.items()}
    for name, document in documents.items():
        if isinstance(document, dict) and "distributions" in document:
            documents[name] = _from_hs3(name, document)
    spaces = [name for name, d in documents.items() if isinstance(d, dict) and "channels" in d]
    if len(spaces) != 1:
        msg = (
            f"{path}: {len(spaces)} workspaces found {spaces[:5]}, expected one; name its directory as region"
        )
        raise InputFileError(msg)
    workspace = documents.pop(spaces[0])
    _valid(spaces[0], workspace, "workspace.json")
    found: dict[str, list[dict[str, Any]]] = {}
    values: dict[str, tuple[float, ...]] = {}
    labels: tuple[str, ...] = ()
    for name, document in documents.items():
        if isinstance(document, list):
            _valid(name, document, "jsonpatch.json")
            found[Path(name).stem.removeprefix("patch.")] = document
        elif "patches" in document:
            _valid(name, document, "patchset.json")
            try:
                pyhf.PatchSet(document).verify(workspace)
            except pyhf.exceptions.PatchSetVerificationError as error:
                msg = f"{name}: the patch set belongs to another workspace than {spaces[0]} ({error})"
                raise InputFileError(msg) from error
            labels = tuple(document["metadata"]["labels"])
            for patch in document["patches"]:
                found[patch["metadata"]["name"]] = patch["patch"]
                values[patch["metadata"]["name"]] = tuple(map(float, patch["metadata"]["values"]))
    return Likelihood(workspace, found, values, labels)


def _texts(path: Path, region: str) -> Iterator[tuple[str, str]]:
    """Yield names and contents of the JSON files of a file, directory or archive."""
    if path.is_dir():
        yield from ((str(p), p.read_text("utf-8")) for p in sorted((path / region).glob("*.json")))
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            yield from _members(archive, path, region)
    elif path.is_file():
        yield str(path), path.read_text("utf-8", errors="replace")
    else:
        msg = f"{path}: no such file or directory"
        raise InputFileError(msg)


def _members(archive: tarfile.TarFile, path: Path, region: str) -> Iterator[tuple[str, str]]:
    for member in archive:
        parts = Path(member.name)
        inside = parts.parent == Path(region) or not region
        if not (member.isfile() and parts.suffix == ".json" and inside):
            continue
        handle = archive.extractfile(member)
        if handle is None or member.size > LARGEST:
            msg = f"{path}: member {member.name} of {member.size} bytes cannot be read"
            raise InputFileError(msg)
        yield member.name, handle.read().decode("utf-8", errors="replace")


def _parsed(name: str, text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        msg = f"{name}: holds {constant}, which is no number of a likelihood"
        raise InputFileError(msg)

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        msg = f"{name}: not JSON ({error})"
        raise InputFileError(msg) from error


def _from_hs3(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return from_hs3(document)
    except (PhysicsError, KeyError, TypeError, AttributeError) as error:
        msg = f"{name}: HS3 document that is not read as HistFactory: {error}"
        raise InputFileError(msg) from error


def _valid(name: str, document: Any, schema: str) -> None:
    try:
        pyhf.schema.validate(document, schema)
    except pyhf.exceptions.InvalidSpecification as error:
        msg = f"{name}: not a valid {schema.removesuffix('.json')} of HistFactory: {str(error)[:300]}"
        raise InputFileError(msg) from error
    if schema == "workspace.json":
        _checked_yields(name, document["channels"])


def _checked_yields(name: str, channels: Iterable[Mapping[str, Any]]) -> None:
    """Refuse negative yields and log-normal factors that are not positive: fits would fail late."""
    for channel in channels:
        for sample in channel["samples"]:
            where = f"{name}: channel {channel['name']!r}, sample {sample['name']!r}"
            low = [i for i, value in enumerate(sample["data"]) if value < 0]
            if low:
                msg = f"{where}: bin {low[0]} holds {sample['data'][low[0]]:g} events"
                raise InputFileError(msg)
            for modifier in sample["modifiers"]:
                if modifier["type"] == "normsys" and min(modifier["data"].values()) <= 0:
                    msg = f"{where}: normsys {modifier['name']!r} has a factor that is not positive"
                    raise InputFileError(msg)
