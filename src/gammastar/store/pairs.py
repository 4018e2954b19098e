"""Kept chunks of selected pairs, and the pairs of a whole run: memory-mapped columns."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import SteeringError, StoreError, require
from gammastar.core.files import ANY_SIZE, atomic, from_json, opened
from gammastar.core.pairs import MatchedPairs, Pairs, blank
from gammastar.core.records import BoolArray, FloatArray, rescaled
from gammastar.core.sampling import event_seeds, sampled
from gammastar.read.events import chosen, open_tree
from gammastar.read.files import opened as opened_root
from gammastar.read.schema import Schema
from gammastar.store.folder import sweep
from gammastar.store.manifest import digest, file_sha256, package_digest

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Kind: TypeAlias = Literal["pairs", "truth"]


@dataclass(frozen=True)
class Source:
    """An input file: its place, identity (SHA-256, or UUID and size; "" unchecked), entries and UUID."""

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
    columns: tuple[str, ...] = ()  # Of the pairs, beside mass, pt, energy, charge, weight and event
    axes: tuple[Any, ...] = ()  # Of histograms by charge, where these are kept instead of pairs

    def wanted(self, part: Pairs | MatchedPairs) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of the job; refuse the absence of one."""
        missing = [name for name in self.columns if name not in part.columns]
        if missing and len(part):
            known = ", ".join(part.columns) or "none"
            asked = "subtract.charm.offset, [select] vertex"
            raise SteeringError(f"{asked}: the pairs have no column {', '.join(missing)}; they have {known}")
        return {name: part.columns.get(name, np.zeros(0)) for name in self.columns}

    def chunk_key(self, chunk: Chunk) -> str:
        """Return the digest of everything that the pairs of a chunk depend on."""
        source = self.sources[chunk.index]
        where = source.sha256 or chunk.path
        first = 0 if self.schema.event else chunk.first
        axes = [(axis.name, *axis.edges) for axis in self.axes]
        used = (self.kind, self.key, self.columns, axes, package_digest())
        return digest(*used, where, chunk.start, chunk.stop, first)

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
    """Return entries, chunk boundaries and UUID of a file, as `read.open_events` divides it: equal sums."""
    with opened_root(path) as file:
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
    kinds = {name: [array.dtype.str, *array.shape[1:]] for name, array in arrays.items()}
    head = {"key": key, "content": content, "notes": dict(notes), "arrays": kinds}
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
        with opened(path) as stream:
            table = pq.read_table(stream, use_threads=False, page_checksum_verification=True)
        text = table.schema.metadata[b"gammastar"].decode()
        if digest(text) != table.schema.metadata[b"sha256"].decode():
            raise ValueError("its notes do not match their digest")
        head = from_json(text)
        arrays = {name: _array(table, name, kind) for name, kind in head["arrays"].items()}
        found = str(head["key"]), str(head["content"]), head["notes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"{path}: the kept chunk cannot be read ({why})") from error
    if key is not None and found[0] != key:
        raise StoreError(f"{path}: the chunk was made for another selection, code or input")
    if digest(arrays) != found[1]:
        raise StoreError(f"{path}: the content does not match its digest; the file is damaged")
    return Kept(arrays, found[1], found[2])


def check_chunks(folder: Path) -> int:
    """Check the digest of every kept chunk below a result folder; return their number."""
    chunks = (folder / "chunks").rglob("*.parquet")
    paths = sorted(path for path in chunks if not path.name.startswith("."))  # those a killed write left
    for path in paths:
        read_chunk(path)
    return len(paths)


def _array(table: Any, name: str, kind: list[Any]) -> npt.NDArray[Any]:
    dtype = np.dtype(kind[0])
    if len(kind) == 1:
        return np.asarray(table[name].to_numpy(), dtype=dtype)
    columns = [np.asarray(table[f"{name}_{i}"].to_numpy(), dtype=dtype) for i in range(int(kind[1]))]
    return np.stack(columns, axis=1)


Part = TypeVar("Part")
View: TypeAlias = Callable[[MatchedPairs], MatchedPairs]

FORMAT = "gammastar-pairs-1"
FIXED = ("mass", "pt", "energy", "charge", "weight", "event")
SIGNED, SEED, POSTERIOR = "signed_weight", "seed", "posterior_weight"
TRUE = ("true_mass", "true_pt", "true_energy")  # a fake has none
MATCHED = ("true", "reco", "weight", "event", "fakes", "fake_weight")
LARGEST = 500_000  # pairs of one Parquet file


@dataclass(frozen=True, slots=True, eq=False)
class PairChunk:
    """Pairs of one chunk with what later stages need of them."""

    pairs: Pairs
    # Seeds of the bootstrap replicas (``core.sampling.event_seeds``), shape (n,)
    seed: npt.NDArray[np.uint64] | None = None
    signed: FloatArray | None = None  # Signed subtraction weights (``subtract.event_weights``), shape (n,)
    # Posterior weights (``subtract.posterior_weights``): what a flow trains with, shape (n,)
    posterior: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "signed", "posterior"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != (len(self.pairs),):
                raise StoreError(f"PairChunk.{name} has shape {np.shape(array)}, not {(len(self.pairs),)}")


def _parquet() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise StoreError("Parquet files need the package pyarrow: python3 -m pip install pyarrow") from error


def write_pairs(folder: Path, chunks: Iterable[PairChunk | Pairs], *, dataset: str = "") -> tuple[Path, ...]:
    """Write chunks of pairs into a folder, ``part-00000.parquet`` and on, each at once or not at all."""
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
                raise StoreError(f"{folder}: a pair column is named {name!r}, a name of the format")
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
    """Yield the chunks that `write_pairs` wrote, one file after the other."""
    _, parquet = _parquet()
    paths = sorted(source.glob("part-*.parquet")) if isinstance(source, Path) else list(source)
    require(paths, f"{source}: holds no part-*.parquet", StoreError)
    for path in paths:
        try:
            with opened(path, ANY_SIZE) as stream:  # a path would also be searched for "key=value"
                table = parquet.read_table(stream)
            about = from_json((table.schema.metadata or {})[b"gammastar"])
            columns = {name: table.column(name).to_numpy() for name in table.column_names}
            extra = {name: columns[name] for name in about["columns"]}
            pairs = Pairs(**{name: columns[name] for name in FIXED}, columns=extra)
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # pyarrow's derive from the first and last
            why = " ".join(str(error).split())[:200]
            raise StoreError(f"{path}: is not a file of pairs, or damaged ({why})") from error
        yield PairChunk(pairs, columns.get(SEED), columns.get(SIGNED), columns.get(POSTERIOR))


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """All pairs, in files that are read one after the other."""

    folder: Path
    n: int  # Number of pairs
    share: float  # Which part of the events is in the sample that stages in memory work with
    dataset: str  # Of the hash that chooses them

    def __iter__(self) -> Iterator[Pairs]:
        return (chunk.pairs for chunk in read_pairs(self.folder))

    def chosen(self, pairs: Pairs) -> BoolArray:
        """Return True for pairs whose event is in the sample: its hash decides, whatever the order."""
        return sampled(pairs.event, self.share, dataset=self.dataset)

    def sample(self) -> Pairs:
        """Return the pairs of the chosen events."""
        return Pairs.concatenate([part.select(self.chosen(part)) for part in self])

    def digests(self) -> list[str]:
        """Return the SHA-256 of every part."""
        return [file_sha256(path) for path in sorted(self.folder.glob("part-*.parquet"))]

    def to_arrays(self) -> Arrays:
        """Return what `from_arrays` needs, the digests of the parts among it."""
        parts = np.array(self.digests(), dtype=str)
        return {"stored_pairs": np.array(self.n), "stored_share": np.array(self.share), "stored_parts": parts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], folder: Path, dataset: str) -> StoredPairs | None:
        """Return the pairs in the files of a folder, None if `arrays` knows of none."""
        if "stored_pairs" not in arrays:
            return None
        stored = cls(folder, int(arrays["stored_pairs"]), float(arrays["stored_share"]), dataset)
        if stored.digests() != arrays["stored_parts"].tolist():
            raise StoreError(f"{folder}: the kept pairs are missing or changed; run without --resume")
        return stored


def _held(
    parts: Iterator[Part], limit: int, size: Callable[[Part], int]
) -> tuple[Sequence[Part], Iterator[Part] | None]:
    """Return all parts if they fit into `limit`, else nothing and an iterator over all of them."""
    first: list[Part] = []
    n = 0
    for part in parts:
        first.append(part)
        n += size(part)
        if n > limit:
            break
    else:
        return first, None

    def released() -> Iterator[Part]:
        while first:
            yield first.pop(0)

    return (), itertools.chain(released(), parts)


def _batches(parts: Iterable[Pairs], size: int) -> Iterator[Pairs]:
    """Yield parts of about `size` pairs."""
    waiting: list[Pairs] = []
    for part in parts:
        for start in range(0, len(part), size):
            waiting.append(part.select(np.arange(start, min(start + size, len(part)))))
            if sum(map(len, waiting)) >= size:
                yield Pairs.concatenate(waiting)
                waiting = []
    if waiting:
        yield Pairs.concatenate(waiting)


def collect_pairs(
    parts: Iterable[Pairs], limit: int, folder: Path, dataset: str
) -> tuple[Pairs, StoredPairs | None]:
    """Return all pairs and None; above `limit` a sample of the events, and all of them in files."""
    sweep(folder, "parts")
    first, rest = _held(iter(parts), limit, len)
    if rest is None:
        return Pairs.concatenate(first), None
    stored = _write_parts(folder, rest, limit, dataset)
    return stored.sample(), stored


def _write_parts(folder: Path, parts: Iterator[Pairs], limit: int, dataset: str) -> StoredPairs:
    """Write pairs as they come; `limit` of them, on average, are in the sample."""
    counts = [0]

    def counted() -> Iterator[Pairs]:
        for batch in _batches(parts, min(LARGEST, limit)):
            counts[0] += len(batch)
            yield batch

    write_pairs(folder, counted(), dataset=dataset)
    return StoredPairs(folder, counts[0], limit / counts[0], dataset)


def thinned(parts: Iterable[Pairs], limit: int, dataset: str) -> Pairs:
    """Return all pairs, or at most `limit` of a sample of their events, of the same sum of weights."""
    kept: list[Pairs] = []
    total, share = 0.0, 1.0

    def thin(part: Pairs) -> Pairs:
        return part.select(sampled(part.event, share, dataset=dataset))

    for part in parts:
        total += float(part.weight.sum())
        kept.append(part if share == 1.0 else thin(part))
        while sum(map(len, kept)) > limit:
            share /= 2
            kept = [thin(piece) for piece in kept]
    pairs = Pairs.concatenate(kept)
    if share == 1.0:
        return pairs
    return replace(pairs, weight=pairs.weight * (total / max(float(pairs.weight.sum()), 1e-300)))


def weighted_chunks(
    pairs: Pairs, signed: FloatArray, posterior: FloatArray, dataset: str
) -> Iterator[PairChunk]:
    """Yield pairs with their weights and seeds, file by file."""
    for start in range(0, len(pairs), LARGEST):
        part = slice(start, start + LARGEST)
        chosen = pairs.select(np.arange(start, min(start + LARGEST, len(pairs))))
        yield PairChunk(chosen, event_seeds(chosen.event, dataset=dataset), signed[part], posterior[part])


def write_weighted(
    folder: Path, stored: StoredPairs, weigh: Callable[[Pairs], tuple[FloatArray, FloatArray]]
) -> tuple[float, float]:
    """Write all pairs with seeds and weights to a folder; return the sums of the weights."""
    sums = np.zeros(2)

    def weighted() -> Iterator[PairChunk]:
        for part in stored:
            signed, posterior = weigh(part)
            sums[:] += signed.sum(), posterior.sum()
            yield PairChunk(part, event_seeds(part.event, dataset=stored.dataset), signed, posterior)

    write_pairs(folder, weighted(), dataset=stored.dataset)
    return float(sums[0]), float(sums[1])


@dataclass(frozen=True, eq=False)
class StoredTruth:
    """All simulated photons and fakes, in files that are read one after the other."""

    rows: StoredPairs
    photons: int  # Number of simulated photons in `rows`; the others are fakes
    views: tuple[View, ...] = ()  # What is done to every part

    def __iter__(self) -> Iterator[MatchedPairs]:
        return (functools.reduce(lambda part, view: view(part), self.views, _matched(p)) for p in self.rows)

    def sample(self) -> MatchedPairs:
        """Return the photons and fakes of the chosen events, scaled to the sums of all weights."""
        parts, sums = [], np.zeros(2)
        for part in self.rows:
            whole = _matched(part)
            sums += whole.weight.sum(), whole.fake_weight.sum()
            parts.append(_matched(part.select(self.rows.chosen(part))))
        chosen = MatchedPairs.concatenate(parts)
        weight, fake_weight = rescaled(chosen.weight, sums[0]), rescaled(chosen.fake_weight, sums[1])
        return replace(chosen, weight=weight, fake_weight=fake_weight)


@dataclass(frozen=True, eq=False)
class Truth:
    """The simulation of a run."""

    sample: MatchedPairs  # What is in memory: everything, or the chosen events
    stored: StoredTruth | None = None  # Everything, where `sample` is but a part

    @property
    def parts(self) -> Iterable[MatchedPairs]:
        """All photons, one part at a time."""
        return (self.sample,) if self.stored is None else self.stored

    @property
    def size(self) -> int:
        """Number of simulated photons."""
        return len(self.sample) if self.stored is None else self.stored.photons

    def seen_as(self, view: View) -> Truth:
        """Return the simulation after `view`, which works on each part."""
        stored = self.stored
        if stored is not None:
            stored = replace(stored, views=(*stored.views, view))
        return Truth(view(self.sample), stored)

    def to_arrays(self) -> Arrays:
        """Return what `from_arrays` needs: the sample, and where everything lies."""
        arrays = {name: getattr(self.sample, name) for name in MATCHED}
        arrays |= {f"column_{name}": np.asarray(column) for name, column in self.sample.columns.items()}
        if self.stored is None:
            return arrays
        return arrays | self.stored.rows.to_arrays() | {"stored_photons": np.array(self.stored.photons)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], folder: Path, dataset: str) -> Truth:
        """Return the simulation of its arrays; `folder` and `dataset` as for `collect_truth`."""
        extra = [name for name in arrays if name.startswith("column_")]
        columns = {name.removeprefix("column_"): arrays[name] for name in extra}
        sample = MatchedPairs(**{name: arrays[name] for name in MATCHED}, columns=columns)
        rows = StoredPairs.from_arrays(arrays, folder, dataset)
        return cls(sample, None if rows is None else StoredTruth(rows, int(arrays["stored_photons"])))


def collect_truth(parts: Iterable[MatchedPairs], limit: int, folder: Path, dataset: str) -> Truth:
    """Return the simulation; beyond `limit` photons and fakes, a sample of it, and all in files."""
    sweep(folder, "parts")
    first, rest = _held(iter(parts), limit, lambda part: len(part) + len(part.fakes))
    if rest is None:
        return Truth(MatchedPairs.concatenate(first))
    photons = [0]

    def counted() -> Iterator[MatchedPairs]:
        for part in rest:
            photons[0] += len(part)
            yield part

    stored = StoredTruth(_write_parts(folder, _rows(counted()), limit, dataset), photons[0])
    return Truth(stored.sample(), stored)


def _rows(parts: Iterator[MatchedPairs]) -> Iterator[Pairs]:
    """Yield photons and fakes as rows of the exchange format; each fake is an event of its own."""
    n_fakes = 0
    for part in parts:
        n, m = len(part), len(part.fakes)
        reco = np.concatenate([part.reco, part.fakes])
        true = np.concatenate([part.true, np.full((m, 3), np.nan)])
        extra = {name: np.concatenate([c, blank(m, c.dtype)]) for name, c in part.columns.items()}
        yield Pairs(
            *(reco[:, 0], reco[:, 1], reco[:, 2]),
            np.zeros(n + m, np.int8),
            np.concatenate([part.weight, part.fake_weight]),
            np.concatenate([part.event, -1 - n_fakes - np.arange(m)]),
            dict(zip(TRUE, true.T, strict=True)) | extra,
        )
        n_fakes += m


def _matched(rows: Pairs) -> MatchedPairs:
    true = np.stack([rows.columns[name] for name in TRUE], axis=1)
    reco = np.stack([rows.mass, rows.pt, rows.energy], axis=1)
    fake = np.isnan(true[:, 0])
    own = ~fake
    return MatchedPairs(
        true[own],
        reco[own],
        rows.weight[own],
        rows.event[own],
        reco[fake],
        rows.weight[fake],
        {name: column[own] for name, column in rows.columns.items() if name not in TRUE},
    )
