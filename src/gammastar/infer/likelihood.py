"""Likelihoods that somebody published: pyhf workspaces with patches, read, checked and scanned."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jsonpatch
import numpy as np
import pyhf

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.hs3_read import from_hs3
from gammastar.infer.workspace import MASKED

__all__ = ["CODES", "Likelihood", "ScanPoint", "read_likelihood", "scan"]

CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
"""Interpolation codes of ROOT's HistFactory, with which published likelihoods are made."""

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


@dataclass(frozen=True, slots=True, eq=False)
class ScanPoint:
    """CLs of one patch.

    Attributes
    ----------
    name : str
    values : tuple of float
    observed : float
        nan for a masked workspace, whose counts are the expected ones.
    expected : NDArray, shape (5,)
        At −2 … +2 standard deviations.
    parameters : int
    method : str
    """

    name: str
    values: tuple[float, ...]
    observed: float
    expected: FloatArray
    parameters: int
    method: str


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


def scan(
    likelihood: Likelihood,
    names: Sequence[str] | None = None,
    *,
    strength: float = 1.0,
    codes: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[ScanPoint]:
    """Test the signal of each patch with pyhf's asymptotic CLs (q̃μ).

    Parameters
    ----------
    likelihood : Likelihood
    names : sequence of str, optional
        Patches to be tested; all of them by default. Without any patch the workspace itself is tested.
    strength : float
        Signal strength to be tested.
    codes : mapping, optional
        Interpolation codes; those of ROOT's HistFactory by default.

    Yields
    ------
    ScanPoint

    Raises
    ------
    PhysicsError
        For a name that is no patch, or a fit that fails.

    Notes
    -----
    Minimised with SLSQP. Where fewer than some twenty events are expected asymptotic CLs are too small.
    """
    patches = dict(likelihood.patches) or {"workspace": []}
    chosen = list(patches) if names is None else list(names)
    unknown = [name for name in chosen if name not in patches]
    if unknown:
        msg = f"scan: no patch {unknown[0]!r}; there are {', '.join(list(patches)[:5])}, …"
        raise PhysicsError(msg)
    settings = {name: dict(code) for name, code in (CODES if codes is None else codes).items()}
    masked = likelihood.workspace["measurements"][0]["name"] == MASKED
    for name in chosen:
        try:
            space = pyhf.Workspace(jsonpatch.apply_patch(likelihood.workspace, patches[name]))
            model = space.model(modifier_settings=settings, measurement_name=None)
            observed, expected = pyhf.infer.hypotest(
                strength, space.data(model), model, test_stat="qtilde", return_expected_set=True
            )
        except pyhf.exceptions.FailedMinimization as error:
            msg = f"scan, patch {name!r}: the fit failed; look for empty or negative bins ({error})"
            raise PhysicsError(msg) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            msg = f"scan, patch {name!r} does not fit the workspace: {error}"
            raise InputFileError(msg) from error
        yield ScanPoint(
            name,
            likelihood.values.get(name, ()),
            np.nan if masked else float(observed),
            np.asarray(expected, dtype=np.float64),
            int(model.config.npars),
            f"asymptotic CLs (pyhf {pyhf.__version__}, q̃μ, SLSQP)",
        )


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
