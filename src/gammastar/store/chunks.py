"""Pieces of the measured half that may run anywhere: which entries, and where their pairs are kept.

A chunk is a range of entries of one file. Its pairs are one Parquet file whose name is the digest of all that
they depend on: selection, schema, user code, the package's own code, the file's SHA-256 and the range. It is
published whole or not at all, and its content is checked against its digest whenever it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import StoreError
from gammastar.core.files import atomic, from_json
from gammastar.core.files import opened as opened_file
from gammastar.read.events import chosen, open_tree
from gammastar.read.files import opened
from gammastar.read.schema import Schema
from gammastar.store.manifest import digest, package_digest

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Kind: TypeAlias = Literal["pairs", "truth"]


@dataclass(frozen=True)
class Source:
    """An input file: where it is, its identity ("" if it is not to be checked), its entries and UUID.

    The identity is a SHA-256, or UUID and size (``store.remote.identity``).
    """

    path: str
    sha256: str = ""
    entries: int = -1
    uuid: str = ""


@dataclass(frozen=True)
class Chunk:
    """Entries `start` to `stop` of the `index`-th file, whose own entry 0 is entry `first` of the run."""

    path: str
    index: int
    start: int
    stop: int
    first: int = 0

    @property
    def label(self) -> str:
        """Return file and range, for messages."""
        return f"{self.path}[{self.start}:{self.stop}]"


@dataclass(frozen=True)
class Job:
    """What to do with every chunk; all of it can be sent to another machine."""

    kind: Kind  # Selected pairs, or simulated photons with what was reconstructed of them
    sources: tuple[Source, ...]
    schema: Schema
    # Called where the work is done, so that functions of the user's file are imported there
    cuts: Callable[[], Any]
    step: str | int  # Size of a chunk in memory, or its number of entries; the same rule as without workers
    key: str  # Digest of selection, schema and user code
    folder: Path  # Where the Parquet files go; workers must see it under the same name

    def chunk_key(self, chunk: Chunk) -> str:
        """Return the digest of everything that the pairs of a chunk depend on."""
        source = self.sources[chunk.index]
        where = source.sha256 or chunk.path
        first = 0 if self.schema.event else chunk.first
        return digest(self.kind, self.key, package_digest(), where, chunk.start, chunk.stop, first)

    def path(self, chunk: Chunk) -> Path:
        """Return where the pairs of a chunk are kept."""
        return self.folder / f"{self.kind}-{self.chunk_key(chunk)[:32]}.parquet"


@dataclass(frozen=True)
class Kept:
    """The content of a Parquet file of pairs: arrays, content digest, and what was noted beside them."""

    arrays: Arrays
    content: str
    notes: Mapping[str, Any]


def split(
    path: str, schema: Schema, step: str | int, *, truth: bool = False
) -> tuple[int, tuple[int, ...], str]:
    """Return the number of entries of a file, the boundaries of its chunks and the file's UUID.

    The boundaries are those at which `read.open_events` divides the file, so that sums of weights per chunk,
    added in order, are equal to the last bit.
    """
    with opened(path) as file:
        tree = open_tree(file, schema.tree, path)
        total = int(tree.num_entries)
        uuid = str(file.file.uuid)
        found = chosen(tree, schema, path, truth=truth)
        if total <= 0:
            return 0, (0,), uuid
        size = step if isinstance(step, int) else int(tree.num_entries_for(step, **found.options))
    return total, (*range(0, total, max(1, size)), total), uuid


def _table(arrays: Arrays) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, array in arrays.items():
        if array.ndim == 1:
            yield name, array
        else:
            for i, column in enumerate(array.T):
                yield f"{name}_{i}", np.ascontiguousarray(column)


def write_chunk(path: Path, key: str, arrays: Arrays, notes: Mapping[str, Any]) -> str:
    """Write arrays of equal length (n,) or (n, k) as one Parquet file; return their content digest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = digest(arrays)
    head = {
        "key": key,
        "content": content,
        "notes": dict(notes),
        "arrays": {name: [array.dtype.str, *array.shape[1:]] for name, array in arrays.items()},
    }
    text = json.dumps(head, allow_nan=False, sort_keys=True)
    table = pa.table(dict(_table(arrays)))
    table = table.replace_schema_metadata({b"gammastar": text.encode(), b"sha256": digest(text).encode()})
    with atomic(path) as temporary:
        # Measured numbers do not repeat: dictionaries cost more than all the rest, split bytes compress best,
        # and a negative level is read back faster for hardly larger files.
        floats = [name for name in table.column_names if pa.types.is_floating(table[name].type)]
        options = {"use_dictionary": False, "use_byte_stream_split": floats, "write_page_checksum": True}
        pq.write_table(table, temporary, compression="zstd", compression_level=-1, **options)
    return content


def read_chunk(path: Path, key: str | None = None) -> Kept:
    """Read what `write_chunk` wrote and check its key and content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened_file(path) as stream:
            table = pq.read_table(stream, use_threads=False, page_checksum_verification=True)
        text = table.schema.metadata[b"gammastar"].decode()
        if digest(text) != table.schema.metadata[b"sha256"].decode():
            raise ValueError("its notes do not match their digest")
        head = from_json(text)
        arrays = {name: _array(table, name, kind) for name, kind in head["arrays"].items()}
        found = str(head["key"]), str(head["content"]), head["notes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise StoreError(
            f"{path}: the kept chunk cannot be read ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if key is not None and found[0] != key:
        raise StoreError(f"{path}: the chunk was made for another selection, code or input")
    if digest(arrays) != found[1]:
        raise StoreError(f"{path}: the content does not match its digest; the file is damaged")
    return Kept(arrays, found[1], found[2])


def _array(table: Any, name: str, kind: list[Any]) -> npt.NDArray[Any]:
    dtype = np.dtype(kind[0])
    if len(kind) == 1:
        return np.asarray(table[name].to_numpy(), dtype=dtype)
    columns = [np.asarray(table[f"{name}_{i}"].to_numpy(), dtype=dtype) for i in range(int(kind[1]))]
    return np.stack(columns, axis=1)
