"""Likelihoods that somebody published: pyhf workspaces with patches or HS3 documents, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jsonpatch
import pyhf

from gammastar.core.documents import from_json
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer.histfactory.archive import json_texts
from gammastar.infer.histfactory.hs3 import from_hs3

__all__ = ["CONVENTION", "Likelihood", "read_likelihood"]

LARGEST_YIELD = 1e15  # events per bin; beyond, a count is no number to double precision

CONVENTION = "gammastar"
"""Key in the metadata of a patch set under which a run says how it set its limits."""


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
    convention : mapping
        How the run that wrote the patch set has set its limits (`method`, `asymptotic_from`, `cl`); empty for
        likelihoods of others.
    """

    workspace: dict[str, Any]
    patches: Mapping[str, list[dict[str, Any]]]
    values: Mapping[str, tuple[float | str, ...]]
    labels: tuple[str, ...]
    convention: Mapping[str, Any] = field(default_factory=dict)

    def patched(self, name: str) -> dict[str, Any]:
        """Return the workspace of one signal; without any patch the workspace itself, ``"workspace"``.

        Raises
        ------
        InputFileError
            If the patch does not fit the workspace, or leaves one that is not valid.
        """
        if not self.patches:
            return dict(self.workspace)
        try:
            spec = jsonpatch.apply_patch(self.workspace, self.patches[name])
        except (
            jsonpatch.JsonPatchException,
            jsonpatch.JsonPointerException,
            TypeError,
            ValueError,
            LookupError,
        ) as error:
            msg = f"scan, patch {name!r} does not fit the workspace: {_short(error)}"
            raise InputFileError(msg) from error
        _valid(f"workspace with patch {name!r}", spec, "workspace.json")
        return dict(spec)


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
    documents = _documents(path, region)
    if patches is not None:
        documents |= _documents(patches)
    for name, document in documents.items():
        if isinstance(document, dict) and "distributions" in document:
            documents[name] = _from_hs3(name, document)
    spaces = [name for name, d in documents.items() if isinstance(d, dict) and "channels" in d]
    if len(spaces) != 1:
        raise InputFileError(_no_workspace(path, documents, spaces))
    workspace = documents.pop(spaces[0])
    _valid(spaces[0], workspace, "workspace.json")
    found: dict[str, list[dict[str, Any]]] = {}
    values: dict[str, tuple[float | str, ...]] = {}
    labels: tuple[str, ...] = ()
    convention: dict[str, Any] = {}
    asked = set() if patches is None or patches.is_dir() else {str(patches)}
    for name, document in documents.items():
        if isinstance(document, list):
            _valid(name, document, "jsonpatch.json")
            found[Path(name).stem.removeprefix("patch.")] = document
        elif isinstance(document, dict) and "patches" in document:
            _verified(name, document, spaces[0], workspace)
            labels = tuple(document["metadata"]["labels"])
            convention |= _of_run(name, document["metadata"])
            for patch in document["patches"]:
                found[patch["metadata"]["name"]] = patch["patch"]
                values[patch["metadata"]["name"]] = tuple(map(_number, patch["metadata"]["values"]))
        elif name in asked:
            msg = f"{name}: is neither a patch set (with `patches`) nor a patch (a list of JSON operations)"
            raise InputFileError(msg)
    return Likelihood(workspace, found, values, labels, convention)


def _documents(path: Path, region: str = "") -> dict[str, Any]:
    """Return the JSON files of a file, directory or archive by their names."""
    found = {}
    for name, text in json_texts(path, region):
        found[name] = _parsed(name if name.startswith(str(path)) else f"{path}: {name}", text)
    return found


def _no_workspace(path: Path, documents: Mapping[str, Any], spaces: list[str]) -> str:
    """Return what to do where there is not one workspace."""
    if not documents:
        return f"{path}: holds no JSON file here; give a workspace, or the directory inside with --region"
    if not spaces:
        held = "no workspace"
        if any(isinstance(d, list) or (isinstance(d, dict) and "patches" in d) for d in documents.values()):
            held = "patches but no workspace"
        return (
            f"{path}: holds {held} (an object with `channels`); give the workspace as PATH and its patch set "
            "or patch with --patches"
        )
    folders = sorted({str(Path(name).parent) for name in spaces})
    shown = ", ".join(spaces[:5]) + (f" … and {len(spaces) - 5} more" if len(spaces) > 5 else "")
    if len(folders) == len(spaces):
        return f"{path}: {len(spaces)} workspaces, {shown}; choose the directory of one with --region"
    return (
        f"{path}: {len(spaces)} workspaces, {shown}; give one of these files as PATH and its patch set "
        "with --patches"
    )


def _verified(name: str, document: Any, space: str, workspace: dict[str, Any]) -> None:
    """Refuse a patch set that is no valid one, or belongs to another workspace."""
    _valid(name, document, "patchset.json")
    try:
        pyhf.PatchSet(document).verify(workspace)
    except pyhf.exceptions.PatchSetVerificationError as error:
        msg = (
            f"{name}: the patch set belongs to another workspace than {space}: its digest differs; give the "
            f"workspace that was published with it, unchanged ({_short(error)})"
        )
        raise InputFileError(msg) from error
    except (
        pyhf.exceptions.InvalidPatchSet,
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
    ) as error:
        msg = f"{name}: not a valid patch set: {_short(error)}"
        raise InputFileError(msg) from error


def _of_run(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the limits of the run were set that wrote a patch set, from its metadata."""
    found = metadata.get(CONVENTION, {})
    if not isinstance(found, dict):
        msg = f"{name}: metadata.{CONVENTION} = {_short(found)} must be an object with `method`"
        raise InputFileError(msg)
    return found


def _number(value: Any) -> float | str:
    """Return a parameter of a patch, which may also be text."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return str(value)


def _short(value: Any, length: int = 300) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[:length]} …"


def _parsed(name: str, text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        msg = f"{name}: holds {constant}, which is no number of a likelihood"
        raise InputFileError(msg)

    try:
        return from_json(text, refuse=refuse)
    except ValueError as error:  # also a number of too many digits
        msg = f"{name}: not JSON ({_short(error)}), nor a tar archive"
        raise InputFileError(msg) from error


def _from_hs3(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return from_hs3(document)
    except (PhysicsError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        msg = f"{name}: HS3 document that is not read as HistFactory: {_short(error)}"
        raise InputFileError(msg) from error


def _valid(name: str, document: Any, schema: str) -> None:
    try:
        pyhf.schema.validate(document, schema)
    except pyhf.exceptions.InvalidSpecification as error:
        msg = f"{name}: not a valid {schema.removesuffix('.json')} of HistFactory: {_short(error)}"
        raise InputFileError(msg) from error
    except RecursionError as error:
        msg = f"{name}: JSON nested too deep to be a likelihood"
        raise InputFileError(msg) from error
    if schema == "workspace.json":
        _checked_yields(name, document["channels"])
        _checked_counts(name, document)


def _checked_counts(name: str, document: Mapping[str, Any]) -> None:
    """Refuse counts that are negative, or do not fit the bins of their channel."""
    bins = {c["name"]: len(c["samples"][0]["data"]) for c in document["channels"] if c["samples"]}
    for observation in document["observations"]:
        where, counts = f"{name}: observation of channel {observation['name']!r}", observation["data"]
        wrong = [i for i, value in enumerate(counts) if not 0 <= value <= LARGEST_YIELD]
        if wrong:
            msg = f"{where}: bin {wrong[0]} holds {_short(counts[wrong[0]], 30)} events"
            raise InputFileError(msg)
        if len(counts) != bins.get(observation["name"], len(counts)):
            msg = f"{where}: {len(counts)} counts for {bins[observation['name']]} bins"
            raise InputFileError(msg)
    missing = set(bins) - {observation["name"] for observation in document["observations"]}
    if missing:
        msg = f"{name}: no observation for channel {min(missing)!r}"
        raise InputFileError(msg)


def _checked_yields(name: str, channels: Iterable[Mapping[str, Any]]) -> None:
    """Refuse negative yields and log-normal factors that are not positive: fits would fail late."""
    for channel in channels:
        for sample in channel["samples"]:
            where = f"{name}: channel {channel['name']!r}, sample {sample['name']!r}"
            low = [i for i, value in enumerate(sample["data"]) if not 0 <= value <= LARGEST_YIELD]
            if low:
                msg = f"{where}: bin {low[0]} holds {_short(sample['data'][low[0]], 30)} events"
                raise InputFileError(msg)
            for modifier in sample["modifiers"]:
                if modifier["type"] == "normsys" and min(modifier["data"].values()) <= 0:
                    msg = f"{where}: normsys {modifier['name']!r} has a factor that is not positive"
                    raise InputFileError(msg)
