"""What protects the numbers of a file: checksums of RNTuple that uproot does not compare, possible sizes.

Notes
-----
Every envelope of an RNTuple, and every page that ROOT writes, ends in the XXH3-64 of its bytes. TTree has no
checksum; those of a codec (Adler-32 in ZLIB, xxHash in LZ4, CRC in LZMA) are compared by uproot, where a
basket is compressed at all.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import uproot
import xxhash
from uproot.interpretation.jagged import AsJagged

from gammastar.core.errors import InputFileError

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
    found = basket_array(*given, **named)
    offsets = np.asarray(found.offsets)
    if offsets[0] < 0 or offsets[-1] > len(found.content) or (np.diff(offsets) < 0).any():
        msg = f"lists end at {offsets[-1]} of {len(found.content)} numbers, or before they begin"
        raise ValueError(msg)
    return found


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
