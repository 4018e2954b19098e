"""Pairs as Parquet files, one per chunk: no stage needs all pairs in memory."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.documents import from_json
from gammastar.core.errors import StoreError
from gammastar.core.files import atomic
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray
from gammastar.store.folder import sweep

__all__ = ["PairChunk", "read_pairs", "write_pairs"]

FORMAT = "gammastar-pairs-1"
FIXED = ("mass", "pt", "energy", "charge", "weight", "event")
SIGNED, SEED, POSTERIOR = "signed_weight", "seed", "posterior_weight"


@dataclass(frozen=True, slots=True, eq=False)
class PairChunk:
    """Pairs of one chunk with what later stages need of them.

    Attributes
    ----------
    pairs : Pairs
    seed : NDArray of uint64, shape (n,), or None
        Seeds of the bootstrap replicas (``subtract.event_seeds``).
    signed : NDArray, shape (n,), or None
        Signed subtraction weights (``subtract.event_weights``).
    posterior : NDArray, shape (n,), or None
        Posterior weights (``subtract.posterior_weights``): what a flow trains with.
    """

    pairs: Pairs
    seed: npt.NDArray[np.uint64] | None = None
    signed: FloatArray | None = None
    posterior: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "signed", "posterior"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != (len(self.pairs),):
                msg = f"PairChunk.{name} has shape {np.shape(array)}, expected {(len(self.pairs),)}"
                raise StoreError(msg)


def _parquet() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        msg = "Parquet files need the package pyarrow: python3 -m pip install pyarrow"
        raise StoreError(msg) from error


def write_pairs(folder: Path, chunks: Iterable[PairChunk | Pairs], *, dataset: str = "") -> tuple[Path, ...]:
    """Write chunks of pairs into a folder, ``part-00000.parquet`` and on, each at once or not at all.

    Parameters
    ----------
    folder : Path
        Older parts in it are removed first; a ``part-*.parquet`` that is not of this format is renamed.
    chunks : iterable of PairChunk or Pairs
        Taken one by one: only one is in memory. Empty ones are skipped, except for the first, so that an
        empty sample still has its columns.
    dataset : str
        Name of the data set, kept in every file.

    Returns
    -------
    tuple of Path

    Raises
    ------
    StoreError
        If a column is named as one of the format, or the folder cannot be written.
    """
    arrow, parquet = _parquet()
    sweep(folder, "parts", drop=False)
    paths: list[Path] = []
    for chunk in chunks:
        part = PairChunk(chunk) if isinstance(chunk, Pairs) else chunk
        if not len(part.pairs) and paths:
            continue
        columns: dict[str, Any] = {name: getattr(part.pairs, name) for name in FIXED}
        for name, column in part.pairs.columns.items():
            if name in (*FIXED, SIGNED, SEED, POSTERIOR):
                msg = f"{folder}: a pair column is named {name!r}, a name of the format"
                raise StoreError(msg)
            columns[name] = column
        extras = {SEED: part.seed, SIGNED: part.signed, POSTERIOR: part.posterior}
        columns |= {name: extra for name, extra in extras.items() if extra is not None}
        about = {"format": FORMAT, "dataset": dataset, "columns": list(part.pairs.columns)}
        table = arrow.table({name: np.ascontiguousarray(c) for name, c in columns.items()})
        table = table.replace_schema_metadata({b"gammastar": json.dumps(about).encode()})
        path = folder / f"part-{len(paths):05d}.parquet"
        with atomic(path) as temporary:
            parquet.write_table(table, temporary, compression="zstd", compression_level=1)
        paths.append(path)
    return tuple(paths)


def read_pairs(source: Path | Sequence[Path]) -> Iterator[PairChunk]:
    """Yield the chunks that `write_pairs` wrote, one file after the other.

    Parameters
    ----------
    source : Path or sequence of Path
        A folder, or files.

    Raises
    ------
    StoreError
        If there is no file, or one is damaged or of another format.
    """
    _, parquet = _parquet()
    paths = sorted(source.glob("part-*.parquet")) if isinstance(source, Path) else list(source)
    if not paths:
        msg = f"{source}: holds no part-*.parquet"
        raise StoreError(msg)
    for path in paths:
        try:
            table = parquet.read_table(path)
            about = from_json((table.schema.metadata or {})[b"gammastar"])
            columns = {name: table.column(name).to_numpy() for name in table.column_names}
            pairs = Pairs(
                **{name: columns[name] for name in FIXED},
                columns={name: columns[name] for name in about["columns"]},
            )
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # pyarrow's derive from the first and last
            msg = f"{path}: is not a file of pairs, or damaged ({' '.join(str(error).split())[:200]})"
            raise StoreError(msg) from error
        yield PairChunk(pairs, columns.get(SEED), columns.get(SIGNED), columns.get(POSTERIOR))
