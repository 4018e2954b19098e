"""Files from elsewhere, taken only as data: results and chunks by their digest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gammastar.core.errors import InputFileError, StoreError
from gammastar.store.manifest import file_sha256, read_json, read_manifest

MAX_JSON = 256 << 20


def read_result(folder: Path, name: str) -> Any:
    """Return a JSON result of a run if it is the one that the run wrote."""
    path = folder / name
    check_results(folder, [name])
    if path.stat().st_size > MAX_JSON:
        msg = f"{path}: larger than {MAX_JSON >> 20} MB"
        raise StoreError(msg)
    content = read_json(path)
    finite(content, str(path))
    return content


def check_results(folder: Path, names: Iterable[str], *, finished: bool = False) -> dict[str, Any]:
    """Return the manifest of a run after comparing files of its folder with it."""
    known = read_manifest(folder)
    if finished and not known["finished"]:
        msg = f"{folder}: this run is not finished; run it again, with --resume"
        raise StoreError(msg)
    for name in names:
        path, expected = folder / name, known["files"].get(name)
        if expected is None:
            msg = f"{path}: the manifest of {folder} does not know this file; it is of another run"
            raise StoreError(msg)
        try:
            found = file_sha256(path)
        except OSError as error:
            msg = f"{path}: cannot be read ({error.strerror})"
            raise StoreError(msg) from error
        if found != expected:
            msg = f"{path}: SHA-256 is {found}, the manifest has {expected}; the file was changed or damaged"
            raise StoreError(msg)
    return known


def read_tensors(path: Path, dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[np.float64]]:
    """Return arrays of a safetensors file."""
    try:
        found = {name: np.asarray(array, dtype=np.float64) for name, array in load_file(path).items()}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        msg = f"{path}: cannot be read ({error}); run again"
        raise InputFileError(msg) from error
    for name, n in dimensions.items():
        array = found.get(name)
        if array is None or array.ndim != n or not array.size or not np.isfinite(array).all():
            what = (
                "is missing" if array is None else f"has shape {array.shape}, or values that are not finite"
            )
            msg = f"{path}: {name} {what}; expected finite numbers in {n} dimensions; run again"
            raise InputFileError(msg)
    return found


def finite(content: Any, where: str) -> None:
    """Refuse numbers that are not finite: JSON as Python reads it knows NaN and Infinity."""
    waiting = [(where, content)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            msg = f"{name}: {item} is not a finite number"
            raise StoreError(msg)
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
