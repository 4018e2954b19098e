"""Published likelihoods: archives and workspaces of elsewhere, read within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jsonpatch

from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import Pathlike, bytes_of, from_json, opened
from gammastar.infer.histfactory.cards import is_card, read_card
from gammastar.infer.histfactory.hs3 import from_hs3

LARGEST = 64 << 20  # bytes of one JSON file
TOTAL = 256 << 20  # bytes of all JSON files
UNPACKED = 1 << 30  # bytes of an unpacked archive, of which only the JSON files are kept
VALUES = 10_000_000  # numbers, lists and objects of all JSON files; each takes some 70 bytes of memory
MEMBERS = 10_000
BLOCK = 1 << 20
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


class _Budget:
    """What the JSON files may hold together."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.values = path, 0, 0

    def spend(self, name: str, size: int) -> None:
        """Refuse a file that is too large, before it is read."""
        self.bytes += size
        if size > LARGEST or self.bytes > TOTAL:
            raise InputFileError(
                f"{self.path}: {name[:200]} of {size} bytes is too large: {LARGEST >> 20} MB a file and "
                f"{TOTAL >> 20} MB together are read; choose a directory inside with --region"
            )

    def text(self, name: str, content: bytes) -> str:
        """Return the text of a file that does not hold too many values."""
        self.values += sum(map(content.count, (b",", b"[", b"{")))
        if self.values > VALUES:
            raise InputFileError(
                f"{self.path}: {name[:200]} brings more than {VALUES} values; no likelihood needs so many"
            )
        return content.decode("utf-8", errors="replace")


def json_texts(path: Path, region: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and contents of the JSON files of a file, directory or tar archive, one after the other."""
    budget = _Budget(path)
    if path.is_dir():
        files = (file for file in (path / region).glob("*.json") if not file.name.startswith("."))
        for file in sorted(files):
            yield str(file), _plain(file, budget)
    elif not path.is_file():
        raise InputFileError(f"{path}: no such file or directory")
    elif _is_archive(path):
        yield from _members(path, region, budget)
    else:
        yield str(path), _plain(path, budget)


def _plain(path: Path, budget: _Budget) -> str:
    try:
        budget.spend(path.name, path.stat().st_size)
        return budget.text(path.name, bytes_of(path))
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error


def _is_archive(path: Path) -> bool:
    """Return whether a file is packed, or a plain tar archive."""
    try:
        with opened(path, UNPACKED) as stream:
            head = stream.read(262)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror})") from error
    return head.startswith(tuple(PACKED)) or head.endswith(b"ustar")


class _Unpacked:
    """An archive as it is unpacked: of bounded size, whatever its headers and members claim."""

    def __init__(self, path: Path, stream: io.BufferedReader) -> None:
        magic = stream.peek(6)
        unpack: Any = next((how for start, how in PACKED.items() if magic.startswith(start)), None)
        self.path, self.stream, self.bytes = path, stream if unpack is None else unpack(stream), 0
        self.end = b""  # the last block: where an archive is whole it holds zeros

    def read(self, size: int) -> bytes:
        content: bytes = self.stream.read(size)
        self.bytes += len(content)
        too_long = f"{self.path}: unpacks to more than {UNPACKED >> 20} MB"
        require(self.bytes <= UNPACKED, too_long, InputFileError)
        self.end = (self.end + content)[-tarfile.BLOCKSIZE :]
        return content


def _members(path: Path, region: str, budget: _Budget) -> Iterator[tuple[str, str]]:
    """Yield the JSON files of a tar archive, which is read to its end: there checksums are compared."""
    try:
        with opened(path, UNPACKED) as packed:
            stream: Any = _Unpacked(path, packed)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for count, member in enumerate(archive):
                    require(count < MEMBERS, f"{path}: has more than {MEMBERS} members", InputFileError)
                    parts = Path(member.name)
                    inside = parts.parent == Path(region) or not region
                    if member.isfile() and parts.suffix == ".json" and inside:
                        budget.spend(member.name, member.size)
                        handle = archive.extractfile(member)
                        yield member.name, budget.text(member.name, b"" if handle is None else handle.read())
            while stream.read(BLOCK):
                pass
        cut = f"{path}: is cut off: the empty blocks at its end are missing; copy it again"
        require(not any(stream.end), cut, InputFileError)
    except InputFileError:
        raise
    except DAMAGE as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputFileError(f"{path}: damaged archive ({what}); copy it again") from error


LARGEST_YIELD = 1e15  # events per bin; beyond, a count is no number to double precision

CONVENTION = "gammastar"
"""Key in the metadata of a patch set under which a run says how it set its limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Likelihood:
    """A background-only workspace and its patches."""

    workspace: dict[str, Any]  # Valid HistFactory JSON
    patches: Mapping[str, list[dict[str, Any]]]  # JSON patches (RFC 6902) by name
    values: Mapping[str, tuple[float | str, ...]]  # Parameters of each patch, where a patch set gives them
    labels: tuple[str, ...]  # Names of these parameters
    # How the run that wrote the patch set has set its limits (`method`, `cl`); empty for
    # likelihoods of others
    convention: Mapping[str, Any] = field(default_factory=dict)

    def patched(self, name: str) -> dict[str, Any]:
        """Return the workspace of one signal; without any patch the workspace itself, ``"workspace"``."""
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
            raise InputFileError(
                f"scan, patch {name!r} does not fit the workspace: {_short(error)}"
            ) from error
        _valid(f"workspace with patch {name!r}", spec, "workspace.json")
        return dict(spec)


def read_likelihood(path: Pathlike, *, patches: Pathlike | None = None, region: str = "") -> Likelihood:
    """Read a likelihood as HEPData publishes it.

    Parameters
    ----------
    path : path
        A workspace (JSON, an HS3 document of HistFactory channels, or a counting card of Combine), or a
        directory or tar archive that holds one workspace together with one patch set or many single patches.
    patches : path, optional
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
    patches = None if patches is None else Path(patches)
    path = Path(path)
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
            raise InputFileError(
                f"{name}: is neither a patch set (with `patches`) nor a patch (a list of JSON operations)"
            )
    return Likelihood(workspace, found, values, labels, convention)


def _documents(path: Path, region: str = "") -> dict[str, Any]:
    """Return the JSON files of a file, directory or archive by their names."""
    found = {}
    for name, text in json_texts(path, region):
        where = name if name.startswith(str(path)) else f"{path}: {name}"
        found[name] = read_card(text, where) if is_card(text) else _parsed(where, text)
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
    import pyhf

    _valid(name, document, "patchset.json")
    try:
        pyhf.PatchSet(document).verify(workspace)
    except pyhf.exceptions.PatchSetVerificationError as error:
        raise InputFileError(
            f"{name}: the patch set belongs to another workspace than {space}: its digest differs; give the "
            f"workspace that was published with it, unchanged ({_short(error)})"
        ) from error
    except (
        pyhf.exceptions.InvalidPatchSet,
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
    ) as error:
        raise InputFileError(f"{name}: not a valid patch set: {_short(error)}") from error


def _of_run(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the limits of the run were set that wrote a patch set, from its metadata."""
    found = metadata.get(CONVENTION, {})
    if not isinstance(found, dict):
        raise InputFileError(
            f"{name}: metadata.{CONVENTION} = {_short(found)} must be an object with `method`"
        )
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
        raise InputFileError(f"{name}: holds {constant}, which is no number of a likelihood")

    try:
        return from_json(text, refuse=refuse)
    except ValueError as error:  # also a number of too many digits
        raise InputFileError(f"{name}: not JSON ({_short(error)}), nor a tar archive") from error


def _from_hs3(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return from_hs3(document)
    except (PhysicsError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputFileError(
            f"{name}: HS3 document that is not read as HistFactory: {_short(error)}"
        ) from error


def _valid(name: str, document: Any, schema: str) -> None:
    import pyhf

    try:
        pyhf.schema.validate(document, schema)
    except pyhf.exceptions.InvalidSpecification as error:
        raise InputFileError(
            f"{name}: not a valid {schema.removesuffix('.json')} of HistFactory: {_short(error)}"
        ) from error
    except RecursionError as error:
        raise InputFileError(f"{name}: JSON nested too deep to be a likelihood") from error
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
            raise InputFileError(f"{where}: bin {wrong[0]} holds {_short(counts[wrong[0]], 30)} events")
        if len(counts) != bins.get(observation["name"], len(counts)):
            raise InputFileError(f"{where}: {len(counts)} counts for {bins[observation['name']]} bins")
    missing = set(bins) - {observation["name"] for observation in document["observations"]}
    if missing:
        raise InputFileError(f"{name}: no observation for channel {min(missing)!r}")


def _checked_yields(name: str, channels: Iterable[Mapping[str, Any]]) -> None:
    """Refuse negative yields and log-normal factors that are not positive: fits would fail late."""
    for channel in channels:
        for sample in channel["samples"]:
            where = f"{name}: channel {channel['name']!r}, sample {sample['name']!r}"
            low = [i for i, value in enumerate(sample["data"]) if not 0 <= value <= LARGEST_YIELD]
            if low:
                raise InputFileError(
                    f"{where}: bin {low[0]} holds {_short(sample['data'][low[0]], 30)} events"
                )
            for modifier in sample["modifiers"]:
                if modifier["type"] == "normsys" and min(modifier["data"].values()) <= 0:
                    raise InputFileError(
                        f"{where}: normsys {modifier['name']!r} has a factor that is not positive"
                    )
