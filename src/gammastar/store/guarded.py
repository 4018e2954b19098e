"""Files from elsewhere, taken only as data: results and chunks by their digest."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gammastar.core.errors import InputFileError, PhysicsError, StoreError
from gammastar.core.files import bytes_of, write_whole
from gammastar.store.manifest import file_sha256, is_published, manifest_like, read_json, read_manifest

MAX_JSON = 256 << 20


def read_result(folder: Path, name: str) -> Any:
    """Return a JSON result of a run if it is the one that the run wrote."""
    path = folder / name
    check_results(folder, [name])
    content = read_json(path, MAX_JSON)
    finite(content, str(path))
    if not isinstance(content, dict) or not content:
        raise StoreError(
            f"{path}: holds {'nothing' if content == {} else type(content).__name__}, no result of a run"
        )
    return content


def check_beside(path: Path) -> None:
    """Compare a file in a folder of results with the manifest there; others lie where they like."""
    if is_published(path.name) and manifest_like(path.parent) is not None:
        check_results(path.parent, [path.name])


@contextlib.contextmanager
def of_this_version(path: Path) -> Iterator[None]:
    """Name the file whose content is not what this version writes, where the block shows it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, PhysicsError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"{path}: is not what a run of this version writes ({why})") from error


def check_results(folder: Path, names: Iterable[str], *, finished: bool = False) -> dict[str, Any]:
    """Return the manifest of a run after comparing files of its folder with it."""
    known = read_manifest(folder)
    if finished and not known["finished"]:
        raise StoreError(f"{folder}: this run is not finished; run it again, with --resume")
    for name in names:
        path, expected = folder / name, known["files"].get(name)
        if expected is None:
            raise StoreError(
                f"{path}: the manifest of {folder} does not know this file; it is of another run"
            )
        try:
            found = file_sha256(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
        if found != expected:
            raise StoreError(
                f"{path}: SHA-256 is {found}, the manifest has {expected}; the file was changed or damaged"
            )
    return known


def read_tensors(path: Path, dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[np.float64]]:
    """Return arrays of a safetensors file."""
    try:
        found = {name: np.asarray(array, dtype=np.float64) for name, array in load(bytes_of(path)).items()}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise InputFileError(f"{path}: cannot be read ({error}); run again") from error
    for name, n in dimensions.items():
        array = found.get(name)
        if array is None or array.ndim != n or not array.size or not np.isfinite(array).all():
            what = (
                "is missing" if array is None else f"has shape {array.shape}, or values that are not finite"
            )
            raise InputFileError(
                f"{path}: {name} {what}; expected finite numbers in {n} dimensions; run again"
            )
    return found


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as safetensors; its own writing to a file names no full disk."""
    write_whole(path, save({name: np.ascontiguousarray(values) for name, values in arrays.items()}))


def finite(content: Any, where: str) -> None:
    """Refuse numbers that are not finite: JSON as Python reads it knows NaN and Infinity."""
    waiting = [(where, content)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise StoreError(f"{name}: {item} is not a finite number")
        if isinstance(item, dict):
            waiting.extend((f"{name}.{key}", value) for key, value in item.items())
        elif isinstance(item, list):
            waiting.extend((f"{name}[{i}]", value) for i, value in enumerate(item))


def check_chunks(folder: Path) -> int:
    """Check the digest of every kept chunk below a result folder; return their number."""
    from gammastar.store.chunks import read_chunk  # here: it takes libraries that a record does not need

    found = (folder / "chunks").rglob("*.parquet")
    paths = sorted(
        path for path in found if not path.name.startswith(".")
    )  # a killed write leaves hidden ones
    for path in paths:
        read_chunk(path)
    return len(paths)
