"""Input files, local or on a server: expanding, opening, checksums."""

from __future__ import annotations

import asyncio
import functools
import glob
import hashlib
import importlib
import os
import re
import struct
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cramjam
import numpy as np
import uproot
import xxhash
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.objects import CannotBeAwkward
from uproot.source.fsspec import FSSpecSource

from gammastar.core.errors import InputFileError
from gammastar.core.files import ANY_SIZE, regular_file, state_of
from gammastar.core.files import opened as regular

if TYPE_CHECKING:
    import aiohttp


HEADER = struct.Struct("2sBBBBBBB")  # of a compressed block: codec, method, sizes packed and plain
FIRST = 20  # branches that are looked at for their codec
SIZE = 8  # bytes of a checksum
# bytes that one byte can become at most: RFC 1951, the block formats of LZ4 and ZSTD (a block of 128 KiB in
# four bytes), and beyond what LZMA makes of zeros
RATIO = {b"ZL": 1032, b"L4": 255, b"ZS": 1 << 15, b"XZ": 1 << 13}
CODEC = {1: b"ZL", 2: b"XZ", 4: b"L4", 5: b"ZS"}  # hundreds of ROOT's compression settings


def is_rntuple(tree: Any) -> bool:
    """Return whether a tree is an RNTuple."""
    return isinstance(tree, uproot.behaviors.RNTuple.RNTuple)


def compare_checksums(tree: Any, path: str) -> None:
    """Have an RNTuple compare the checksums of every page list and page that is read from now on.

    Pages are also refused that cannot be inside the file, or cannot hold what they claim.
    """
    if "read_locator" in vars(tree):
        return
    ranged, located, source = tree.read_cluster_range, tree.read_locator, tree.file.source
    length = source.num_bytes

    def read_cluster_range(column: int, first: int, stop: int, *rest: Any, **more: Any) -> Any:
        for cluster in range(max(first, 0), stop):
            for page in _pages(tree, cluster, column):
                page.locator.page = f"field {_field(tree, column)!r}, cluster {cluster}"
                page.locator.checked = page.has_checksum
                _possible(page, tree.column_records[column].nbits, length, path)
        return ranged(column, first, stop, *rest, **more)

    def read_locator(place: Any, size: int) -> tuple[Any, Any]:
        known = vars(place)["_fields"]
        if "page" not in known:
            chunk, cursor = located(place, size)
            raw = chunk.raw_data[-size:]
            _compare(raw[:-SIZE], raw[-SIZE:], f"{path}: a list of pages")
            return chunk, cursor
        if not known["checked"]:
            found: tuple[Any, Any] = located(place, size)
            return found
        chunk = source.chunk(place.offset, place.offset + place.num_bytes + SIZE)
        raw = chunk.raw_data[: place.num_bytes + SIZE]
        _compare(raw[:-SIZE], raw[-SIZE:], f"{path}: {place.page}")
        cursor = uproot.source.cursor.Cursor(place.offset)
        if place.num_bytes < size:
            chunk = uproot.compression.decompress(chunk, cursor, {}, place.num_bytes, size)
            cursor.move_to(0)
        return chunk, cursor

    tree.read_cluster_range, tree.read_locator = read_cluster_range, read_locator


def bound_lists(branch: Any) -> None:
    """Have a branch of a TTree refuse lists that are longer than what their basket holds.

    uproot takes the offsets for true and makes room for what they say.
    """
    kind = branch.interpretation
    if isinstance(kind, AsJagged) and "basket_array" not in vars(kind):
        kind.basket_array = functools.partial(_bounded, kind.basket_array)


def check_entries(tree: Any, options: Mapping[str, Any], path: str) -> None:
    """Refuse a TTree that claims more entries than the baskets of its branches."""
    for name in () if is_rntuple(tree) else options["expressions"]:
        held = tree[name].entry_offsets[-1]
        if held < tree.num_entries:
            msg = f"{path}: is damaged: branch {name!r} holds {held} of {tree.num_entries} entries"
            raise InputFileError(msg)


def _bounded(basket_array: Callable[..., Any], *given: Any, **named: Any) -> Any:
    basket = basket_array(*given, **named)
    offsets = np.asarray(basket.offsets)
    if offsets[0] < 0 or offsets[-1] > len(basket.content) or (np.diff(offsets) < 0).any():
        msg = f"lists end at {offsets[-1]} of {len(basket.content)} numbers, or before they begin"
        raise ValueError(msg)
    return basket


def _blocks(chunk: Any, cursor: Any, compressed_bytes: int, uncompressed_bytes: int, **about: Any) -> None:
    """Refuse what claims another size than its compressed blocks, or blocks that cannot become so large."""
    if about["num_blocks"]:
        return
    here, end, total = cursor.copy(), cursor.index + compressed_bytes, 0
    while here.index < end and (total == 0 or total < uncompressed_bytes):
        codec, _, *size = here.fields(chunk, HEADER, {})
        packed, plain = (int.from_bytes(bytes(part), "little") for part in (size[:3], size[3:]))
        if plain > RATIO.get(codec, 0) * packed:
            msg = f"{packed} bytes cannot become {plain}"
            raise ValueError(msg)
        here.skip(packed)
        total += plain
    if total != uncompressed_bytes:
        msg = f"compressed blocks hold {total} bytes, {uncompressed_bytes} are claimed"
        raise ValueError(msg)


uproot.compression.decompress.hook_before_block = _blocks  # the one place before memory is taken


def _pages(tree: Any, cluster: int, column: int) -> list[Any]:
    """Return the pages that uproot reads for a column: those of another representation where it has none."""
    links = tree.page_link_list[cluster]
    if column < len(links) and links[column].suppressed:
        others = tree._column_records_dict[tree.column_records[column].field_id]
        column = next(other.idx for other in others if not links[other.idx].suppressed)
    if column >= len(links):
        return []
    found: list[Any] = links[column].pages
    for page in found:
        page.codec = CODEC.get((links[column].compression_settings or 0) // 100, b"ZS")
    return found


def _field(tree: Any, column: int) -> str:
    """Return the full name of the field of a column."""
    number, names = tree.column_records[column].field_id, []
    while True:
        record = tree.field_records[number]
        names.append(record.field_name)
        if record.parent_field_id == number:
            return ".".join(reversed(names))
        number = record.parent_field_id


def _possible(page: Any, bits: int, length: int, path: str) -> None:
    place, size = page.locator, -(-page.num_elements * bits // 8)
    if place.offset + place.num_bytes > length or size > RATIO[page.codec] * place.num_bytes:
        msg = (
            f"{path}: {place.page}: a page of {place.num_bytes} bytes at {place.offset} cannot hold {size} "
            f"bytes in a file of {length}; the file is damaged, copy it again"
        )
        raise InputFileError(msg)


def _compare(content: Any, checksum: Any, where: str) -> None:
    if xxhash.xxh3_64_intdigest(content) != int.from_bytes(bytes(checksum), "little"):
        msg = f"{where}: the checksum of the file does not fit; it is damaged, copy it again"
        raise InputFileError(msg)


def protected(tree: Any) -> bool:
    """Return whether the numbers of a tree bring checksums, judged by what it begins with.

    Pages have checksums of their own; ZLIB and LZMA check what they decompress, where a basket is compressed
    at all; LZ4 and ZSTD leave gaps.
    """
    if not is_rntuple(tree):
        return all(_codec(branch) in {b"ZL", b"XZ"} for branch in tree.branches[:FIRST])
    links = [link for cluster in tree.page_link_list[:1] for link in cluster if link.pages]
    return all(page.has_checksum for link in links for page in link.pages)


def _codec(branch: Any) -> bytes:
    """Return the codec of the first basket of a branch, b"" where it is stored as it is."""
    if not branch.num_baskets or branch.embedded_baskets:
        return b""
    key = branch.basket_key(0)
    if key.fNbytes - key.fKeylen == key.fObjlen:
        return b""
    begin = key.fSeekKey + key.fKeylen
    return bytes(branch.file.source.chunk(begin, begin + 2).raw_data[:2])


T = TypeVar("T")

BUSY = (429, 500, 502, 503, 504)
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before each further request
CONNECT = 20  # seconds to wait for a connection
SILENT = 60  # seconds without a byte after which a request is given up
XROOTD = 30  # seconds for a request to an XRootD server; the client connects again by itself within them
LONGEST = 60.0  # seconds after which a request that failed is not repeated
# what no repetition heals: invalid or forbidden requests, missing files, no files, hosts without an address
FINAL = re.compile(r"\[(3000|3001|3002|3006|3010|3011|3013|3015|3016)\]|Invalid address")
# The client waits 120 s after a connection that failed before it tries another, and 1800 s before a server
# that failed five times is asked again. What the user's environment sets (XRD_…) stays.
WINDOWS = {"ConnectionWindow": 3, "StreamErrorWindow": 1}


async def _patient(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """Send a request again while the server says that it is busy; the last answer is returned as it is."""
    for pause in PAUSES:
        response: aiohttp.ClientResponse = await handler(request)
        if response.status not in BUSY:
            return response
        response.release()
        await asyncio.sleep(pause)
    last: aiohttp.ClientResponse = await handler(request)
    return last


async def _client(**options: Any) -> aiohttp.ClientSession:
    import aiohttp

    options.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENT))
    return aiohttp.ClientSession(middlewares=(_patient,), **options)


def _xrootd(path: str) -> bool:
    return path.startswith(("root://", "xroot://"))


def address(path: str) -> str:
    """Return a URL as fsspec knows it: ``xroot`` is another name of ``root``."""
    return path.removeprefix("x") if path.startswith("xroot://") else path


def remote_options(path: str) -> dict[str, Any]:
    """Return the options with which fsspec opens a path; none for local files."""
    if _xrootd(path):
        _shorten()
        return {"timeout": XROOTD}
    return {"get_client": _client} if path.startswith(("http://", "https://")) else {}


@functools.cache
def _shorten() -> None:
    """Have the XRootD client of this process connect again soon, where it is installed."""
    try:
        client = importlib.import_module("XRootD.client")
    except ImportError:
        return  # fsspec says what to install
    for name, seconds in WINDOWS.items():
        if f"XRD_{name.upper()}" not in os.environ:
            client.EnvPutInt(name, seconds)


def source_options(path: str) -> dict[str, Any]:
    """Return the options with which uproot opens a path; none for local files."""
    return remote_options(path) | ({"handler": XRootDSource} if _xrootd(path) else {})


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the client of HTTP raises that is no OSError, once it is loaded."""
    loaded = sys.modules.get("aiohttp")
    return () if loaded is None else (loaded.ClientError,)


def answered(error: BaseException | None) -> int | None:
    """Return the status of HTTP behind an error: fsspec calls every refusal a missing file."""
    while error is not None:
        if isinstance(error, client_errors()) and hasattr(error, "status"):
            return int(error.status)
        error = error.__cause__ or error.__context__
    return None


def again(path: str, request: Callable[[], T]) -> T:
    """Return what a request to a server returns, asked again after an OSError; of files on disk once."""
    begin = time.monotonic()
    for pause in PAUSES if _xrootd(path) else ():
        try:
            return request()
        except OSError as error:
            if FINAL.search(str(error)) or time.monotonic() - begin > LONGEST:
                raise
        time.sleep(pause)
    return request()


class XRootDSource(FSSpecSource):  # type: ignore[misc]  # uproot has no types
    """Bytes of a file behind ``root://``: places as plain integers, failed requests again.

    A client that lost its server connects again within one request; what comes back as an error here is a
    server that was away for longer, or that answered with one.
    """

    def __init__(self, file_path: str, **options: Any) -> None:
        super().__init__(address(file_path), **options)

    def chunk(self, start: int, stop: int) -> Any:
        """Return one range of bytes."""
        plain = super().chunk
        return again(self._file_path_orig, lambda: plain(int(start), int(stop)))

    def chunks(self, ranges: list[tuple[int, int]], notifications: Any) -> Any:
        """Return several ranges of bytes, which fill in the background."""
        found = [(int(start), int(stop)) for start, stop in ranges]
        return super().chunks(found, notifications)

    def _open(self) -> None:
        super()._open()
        self._fs: Any = _Again(self._fs)


class _Again:
    """A file system whose lists of ranges are asked for again after an error."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    async def _cat_ranges(self, **wanted: Any) -> Any:
        begin = time.monotonic()
        for pause in PAUSES:
            try:
                return await self._system._cat_ranges(**wanted)
            except OSError as error:
                if FINAL.search(str(error)) or time.monotonic() - begin > LONGEST:
                    raise
            await asyncio.sleep(pause)
        return await self._system._cat_ranges(**wanted)


MOST = 4  # files that stay open: one with a thousand branches takes tens of MB

_KEPT: ContextVar[tuple[ExitStack, dict[Any, Any]] | None] = ContextVar("kept", default=None)


# Everything that damaged files were seen to raise inside uproot; assertions and overflows come from headers.
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    IndexError,
    KeyError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    cramjam.DecompressionError,
    uproot.DeserializationError,
    uproot.KeyInFileError,
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into an InputFileError that names the file."""
    remote = "://" in str(path)
    try:
        yield
    except FileNotFoundError as error:
        if remote and answered(error) not in {None, 404}:
            raise _refused(path, error) from error
        msg = f"{path}: there is no such file"
        raise InputFileError(msg) from error
    except (NotImplementedError, CannotBeAwkward) as error:
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path}: holds a type or layout that uproot cannot read ({type(error).__name__}: {reason}); "
            "write plain numbers or lists of them, or, if the file was read before, copy it again"
        )
        raise InputFileError(msg) from error
    except _caught() as error:
        if isinstance(error, AttributeError | TypeError) and _ours(error):
            raise
        if remote and isinstance(error, (OSError, *client_errors())):
            raise _refused(path, error) from error
        reason = " ".join(str(error).split())[:200]
        msg = (
            f"{path}: cannot be read, the file is damaged, truncated or no ROOT file "
            f"({type(error).__name__}: {reason}); copy it again and compare its SHA-256"
        )
        raise InputFileError(msg) from error


def _caught() -> tuple[type[Exception], ...]:
    return (*DAMAGE, *client_errors(), AttributeError, TypeError)


def _ours(error: Exception) -> bool:
    """Return whether an error was raised by a line of this package, not of the library that reads."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("gammastar")


def _refused(path: str | Path, error: Exception) -> InputFileError:
    status = answered(error)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    reason = reason if status is None else f"status {status}"
    return InputFileError(
        f"{path}: the server does not give it ({reason}); check the address, try another server, or go on "
        "with --resume when it is back"
    )


@contextmanager
def kept_open() -> Iterator[None]:
    """Keep the first few local files that are opened in this block open, with their parsed trees, to its end.

    To parse a tree of 1600 branches takes half a second. A file that changed is opened anew.
    """
    with ExitStack() as stack:
        token = None if _KEPT.get() else _KEPT.set((stack, {}))
        try:
            yield
        finally:
            if token is not None:
                _KEPT.reset(token)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """Open a ROOT file; what a tree holds is parsed once, arrays are never kept."""
    with ExitStack() as own, reading(path):
        stack, files = _KEPT.get() or (own, {})
        state = state_of(path)
        key = os.getpid(), path, *state  # a forked process shares the place in a file with its parent
        if key not in files:
            if state:
                regular_file(Path(path))  # no pipe to wait for
            file = uproot.open({path: None}, array_cache=None, object_cache={}, **source_options(path))
            if not state or len(files) >= MOST:
                stack, files = own, {}
            files[key] = stack.enter_context(file)
        yield files[key]


def expand(files: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Return the files of a path, a glob pattern, or a list of these, each once and in order.

    Raises
    ------
    InputFileError
        If nothing is given, or a path or pattern matches no file.
    """
    given = [files] if isinstance(files, (str, Path)) else list(files)
    paths: dict[str, None] = {}
    for item in map(str, given):
        if "://" in item or Path(item).is_file():
            paths[item] = None
            continue
        matches = sorted(glob.glob(item, recursive=True))  # noqa: PTH207 - patterns may be absolute
        if not matches:
            msg = f"{item}: no such file, and no file matches it as a pattern"
            raise InputFileError(msg)
        paths.update(dict.fromkeys(matches))
    if not paths:
        msg = "no input file given"
        raise InputFileError(msg)
    return tuple(paths)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal digits.

    Notes
    -----
    Uncompressed, ZSTD and stored LZ4 baskets carry no checksum: a flipped bit there reads back as a wrong
    value without any error. Only a digest notices.
    """
    with reading(path), regular(Path(path), ANY_SIZE) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
