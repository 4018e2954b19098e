"""Atomic files, content digests, the manifest of a folder of results, its spectra and its tables."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import functools
import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from hist import Hist
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from gammastar.core.errors import PhysicsError, StoreError, require
from gammastar.core.files import ANY_SIZE, MAX_FILE, atomic, bytes_of, cell, from_json, opened
from gammastar.core.records import MASS, Exposure, PairHists, Spectrum, filled, variable
from gammastar.spectrum import mass_histogram

MANIFEST, FORMAT = "manifest.json", "gammastar-results-1"
MAX_MANIFEST = 64 << 20
_PUBLISHED = re.compile(
    r"(pairs|spectrum)\.root|(spectrum|steering)\.json|(domain|extrapolation|mass_counts|spin_density)\.safetensors"
    r"|flow(_members\.\d\d)?\.(json|safetensors)|flow_members\.pairs\.json"
    r"|(reach|workspace|patchset|hs3)(_[^/]+)?\.json|reach(_[^/]+)?\.csv"
    r"|(corrections|systematics|regularisation|joint_pairs)\.csv|(report|explorer)\.html"
    r"|figures/[^/]+\.(png|pdf|svg)|detectors/[^/]+\.toml|pairs/part-\d{5,}\.parquet"
    r"|(hepdata|histfactory|joint)(_[^/]+)?/.+|input/mock_[a-z]+\.root",
    re.DOTALL,
)

_PACKAGES = (
    *("gammastar", "awkward", "boost-histogram", "hist", "numba", "numpy", "pydantic", "pyhf", "safetensors"),
    *("scipy", "torch", "uproot", "vector", "zuko"),
)
READ_AT_ONCE = {".json", ".toml", ".csv", ".html", ".npz", ".safetensors", ".png", ".pdf", ".svg", ".yaml"}


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON at once or not at all; values that are not finite are refused."""
    try:
        text = None if indent else _quickly(content)
        text = text or json.dumps(content, indent=indent, allow_nan=False, default=_plain)
    except ValueError as error:
        raise StoreError(f"{path}: holds a value that is not finite ({error})") from error
    write_text(path, text + "\n")


def _quickly(content: Any) -> str | None:
    """Return JSON in a fifth of the time; None where a number may not be finite, or a text not be written."""
    try:
        text = to_json(content, fallback=_plain)
    except PydanticSerializationError:
        return None
    return None if b"NaN" in text or b"Infinity" in text else text.decode()


def read_json(path: Path, most: int = MAX_FILE) -> Any:
    """Read JSON of so many bytes at most."""
    try:
        return from_json(bytes_of(path, most))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({str(error)[:200]})") from error


def is_published(name: str) -> bool:
    """Return whether a run publishes files of this name, relative to its folder."""
    return _PUBLISHED.fullmatch(name) is not None and not {"..", ".", ""} & set(name.split("/"))


def _result(name: str) -> str:
    require(is_published(name), "is no file of results", ValueError)
    return name


def _stage(name: str) -> str:
    require(re.fullmatch(r"[a-z0-9_]+", name), "is no name of a stage", ValueError)
    return name


class _Stage(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    key: str
    content: str
    kept: bool = False  # as arrays in stages/
    gaps: dict[str, int] = {}  # how many numbers of an array are not finite


class _Loss(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    lost_fraction: float
    skipped: list[dict[str, Any]]


class _Check(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    number: str
    threshold: str
    cure: str
    verdict: Literal["ok", "alarm", "error"]
    of_file: bool = False  # known from the files of the user alone


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["gammastar-results-1"] = "gammastar-results-1"
    finished: bool = False
    mock: bool = False
    seed: int = 0
    configuration: str = ""
    code: str = ""
    inputs: dict[str, str] = {}
    versions: dict[str, str] = {}
    stages: dict[Annotated[str, AfterValidator(_stage)], _Stage] = {}
    files: dict[Annotated[str, AfterValidator(_result)], str] = {}
    partial: dict[str, _Loss] = {}
    methods: dict[str, str] = {}
    numbers: dict[str, str] = {}
    notes: list[str] = []
    checks: list[_Check] = []
    digest: str


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` with the digest of all that it says."""
    given = {key: value for key, value in content.items() if key != "digest"}
    plain = json.loads(json.dumps({"format": FORMAT, **given}, allow_nan=False, default=_plain))
    write_json(folder / MANIFEST, plain | {"digest": _manifest_digest(plain)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of results."""
    path = folder / MANIFEST
    content = _bounded(path)
    try:
        found = _Manifest.model_validate(content)
        wanted = _manifest_digest({key: value for key, value in content.items() if key != "digest"})
    except RecursionError as error:
        raise StoreError(f"{path}: is nested too deep for a manifest; run again") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise StoreError(
            f"{path}: {where[:200]}: {first['msg'][:200]}; not a manifest of this version, run again"
        ) from error
    if found.digest != wanted:
        raise StoreError(f"{path}: does not match the digest of itself; it was edited or damaged, run again")
    return found.model_dump()


def manifest_like(folder: Path) -> dict[str, Any] | None:
    """Return what tells which files were ours of a manifest, also an edited or older one, or None."""
    try:
        found = _bounded(folder / MANIFEST)
    except StoreError:
        return None
    if not all(isinstance(found.get(name), dict) for name in ("stages", "files", "inputs", "versions")):
        return None
    digests = ((name, found[name].items()) for name in ("files", "inputs"))
    named = {name: {key: sha for key, sha in rows if isinstance(sha, str)} for name, rows in digests}
    return {"finished": found.get("finished") is True, "stages": list(found["stages"]), **named}


def _bounded(path: Path) -> dict[str, Any]:
    content = read_json(path, MAX_MANIFEST)
    if not isinstance(content, dict):
        raise StoreError(f"{path}: is not a manifest but a {type(content).__name__}; run again")
    return content


def _manifest_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; only events and pairs may be of any size."""
    with opened(path, MAX_FILE if path.suffix in READ_AT_ONCE else ANY_SIZE) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*content: Any) -> str:
    """Return the SHA-256 of values and arrays: of content, never of file bytes."""
    result = hashlib.sha256()
    for item in content:
        _update(result, item)
    return result.hexdigest()


def _update(result: Any, item: Any) -> None:
    if isinstance(item, np.ndarray):
        array = np.ascontiguousarray(item)
        result.update(f"{array.dtype.str}{array.shape}".encode())
        if array.size:  # without a copy, and letting other threads work
            result.update(array.reshape(-1).view(np.uint8))
    elif isinstance(item, Mapping):
        for key in sorted(item):
            result.update(f"{key}=".encode())
            _update(result, item[key])
    elif isinstance(item, list | tuple):
        result.update(f"[{len(item)}]".encode())
        for element in item:
            _update(result, element)
    else:
        result.update(f"{type(item).__name__}:{item!r};".encode())


@functools.cache
def package_digest() -> str:
    """Return the SHA-256 of the package's own code, tables and schemas, which a version does not tell."""
    root = Path(__file__).resolve().parents[1]
    paths = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    paths = [path for path in paths if path.relative_to(root).parts[0] != "data"]  # digested where it is read
    return digest({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions that a result depends on, for the manifest and for bug reports."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return MappingProxyType(found)


def write_spectrum(path: Path, spectrum: Spectrum) -> None:
    """Write a spectrum as JSON of UHI, without flow bins, with covariance, sources, exposure, domain."""
    hist = spectrum.hist
    no_flow = {"underflow": False, "overflow": False, "circular": False}
    content = {
        "uhi_schema": 1,
        "axes": [
            {"type": "variable", "edges": axis.edges.tolist(), **no_flow, "metadata": {"name": axis.name}}
            for axis in hist.axes
        ],
        "storage": {
            "type": "weighted",
            "values": hist.values().tolist(),
            "variances": np.asarray(hist.variances()).tolist(),
        },
        "metadata": {
            "quantity": spectrum.quantity,
            "exposure": None if spectrum.exposure is None else asdict(spectrum.exposure),
        },
        "covariance": spectrum.cov.tolist(),
        "domain": spectrum.domain.astype(int).tolist(),
        "sources": {name: shift.tolist() for name, shift in spectrum.shifts.items()},
    }
    write_json(path, content, indent=None)


def digest_of(spectrum: Spectrum) -> str:
    """Return the digest of what a spectrum says: contents, covariance, domain and named sources."""
    return digest(spectrum.values, spectrum.cov, spectrum.domain, dict(spectrum.shifts))


def read_spectrum(path: Path) -> Spectrum:
    """Read what `write_spectrum` wrote."""
    content = read_json(path)
    try:
        axes = tuple(variable(axis["metadata"]["name"], axis["edges"]) for axis in content["axes"])
        storage, metadata = content["storage"], content["metadata"]
        exposure = metadata["exposure"]
        return Spectrum(
            hist=filled(axes, np.asarray(storage["values"]), np.asarray(storage["variances"])),
            cov=np.asarray(content["covariance"], dtype=np.float64),
            quantity=metadata["quantity"],
            exposure=None if exposure is None else Exposure(**exposure),
            domain=np.asarray(content["domain"], dtype=bool),
            shifts={
                name: np.asarray(row, dtype=np.float64) for name, row in content.get("sources", {}).items()
            },
        )
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, PhysicsError) as error:
        raise StoreError(f"{path}: is not a spectrum ({error})") from error


@contextlib.contextmanager
def root_file(path: Path, **options: Any) -> Iterator[Any]:
    """Open a ROOT file for writing; it appears under its name when the block ends without an error."""
    import uproot

    now = dt.datetime.now()
    said = f"{path}: this machine's clock says {now:%Y-%m-%d}, ROOT files hold dates of 1995 to 2058; set it"
    require(1995 <= now.year < 2059, said, StoreError)
    with atomic(path) as temporary, uproot.recreate(temporary, **options) as file:
        yield file


def write_histograms(path: Path, histograms: Mapping[str, Hist[Any]]) -> None:
    """Write histograms as TH1 and TH2 with their variances (three axes are projected onto the first)."""
    with root_file(path) as file:
        for name, hist in histograms.items():
            file[name] = hist if hist.ndim <= 2 else hist.project(hist.axes[0].name)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as CSV; names that look like formulae get an apostrophe."""
    lengths = {name: len(values) for name, values in columns.items()}
    require(len(set(lengths.values())) <= 1, f"{path}: columns of different length {lengths}", StoreError)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(map(cell, columns))
        writer.writerows(map(cell, row) for row in zip(*columns.values(), strict=True))


def write_mass_histograms(folder: Path, hists: PairHists, subtracted: Spectrum) -> None:
    """Write ``pairs.root``: opposite-sign, like-sign and subtracted mass spectra."""
    named = {
        "opposite_sign": hists.os.project(MASS),
        "plus_plus": hists.pp.project(MASS),
        "minus_minus": hists.mm.project(MASS),
        "subtracted": mass_histogram(subtracted),
    }
    write_histograms(folder / "pairs.root", named)


def write_spectrum_files(folder: Path, spectrum: Spectrum, unfolded: Spectrum | None) -> None:
    """Write ``spectrum.json`` (all axes, covariance, domain) and ``spectrum.root`` (projections)."""
    write_spectrum(folder / "spectrum.json", spectrum)
    axes = [axis.name for axis in spectrum.hist.axes]
    measured = mass_histogram(spectrum, "measured")
    named = {"mass_per_pot": mass_histogram(spectrum), "mass_per_pot_measured": measured}
    if unfolded is not None:
        named["mass_counts"] = mass_histogram(unfolded)
    others = [name for name in axes if name != MASS]
    projections = {f"{MASS}_{name}_per_pot": spectrum.hist.project(MASS, name) for name in others}
    write_histograms(folder / "spectrum.root", named | projections)


def write_reach(path: Path, columns: dict[str, Any]) -> None:
    """Write the rows of a reach as CSV."""

    def shown(value: Any) -> Any:
        number = isinstance(value, float | np.floating)
        return value if not number else "" if np.isnan(value) else f"{value:.6g}"

    write_table(path, {name: list(map(shown, values)) for name, values in columns.items()})
