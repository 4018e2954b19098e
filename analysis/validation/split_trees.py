"""Writes ROOT trees of layouts that uproot does not write: objects split into members, lists of leaves.

The baskets are those of a flat tree that uproot writes; the tree itself is streamed anew, as ROOT does it.
"""

import struct

import awkward as ak
import numpy as np
import uproot

__all__ = ["write_flat", "write_split"]

MASK = 0x40000000
EMPTY = bytes.fromhex("40000015 0003 0001 00000000 03000000 00 00000000 00000000")  # a TObjArray


def counted(content):
    """Return a byte count and what it counts."""
    return struct.pack(">I", len(content) | MASK) + content


def tobjarray(items):
    head = bytes.fromhex("0003 0001 00000000 03000000 00") + struct.pack(">ii", len(items), 0)
    return counted(head + b"".join(items))


def key_size(name, title):
    """Return the bytes of the key of a TTree, from which references count."""
    return uproot.reading._key_format_big.size + 6 + 1 + len(name) + 1 + len(title)


def size_at(blob, at):
    return (struct.unpack_from(">I", blob, at)[0] & ~MASK) + 4


def tbranch(title, body):
    """Return a TBranch of a name; `body` is all that follows the name and title."""
    named = b"\x00\x01" + b"\x00\x01" + bytes(4) + struct.pack(">I", 0x03400000)
    name = title.encode()
    named += bytes([len(name)]) + name + bytes([len(name)]) + name
    return counted(b"\xff\xff\xff\xffTBranch\x00" + counted(b"\x00\x0d" + counted(named) + body))


def body_of(blob):
    """Return what follows name and title in a streamed TBranch."""
    at = 8 + len("TBranch") + 1 + 6
    return blob[at + size_at(blob, at) :]


def parent(name, children, entries):
    """Return a TBranch without leaves that holds others, as ROOT writes an object split into members."""
    body = bytes.fromhex("40000006 0002 0000 03e9")  # TAttFill
    body += struct.pack(">iiiiq", 0, 32000, 0, 0, entries) + bytes.fromhex("40000007 0000 1aa12f10 00")
    body += struct.pack(">iIiqqqq", 0, 1, 1, entries, 0, 0, 0)
    body += tobjarray(children) + EMPTY + EMPTY
    return tbranch(name, body + b"\x01" + bytes(4) + b"\x01" + bytes(8) + b"\x01" + bytes(8) + b"\x00")


def leaf_list(body, names):
    """Return the body of a branch of a fixed array with its leaf replaced by a list, such as px/D:py/D."""
    at = body.index(EMPTY) + len(EMPTY)
    leaves = []
    for k, name in enumerate(names):
        text = (bytes([len(name)]) + name.encode()) * 2
        named = counted(b"\x00\x01\x00\x01" + bytes(4) + bytes.fromhex("03000000") + text)
        plain = counted(b"\x00\x02" + named + struct.pack(">iii??", 1, 8, 8 * k, False, False) + bytes(4))
        leaves.append(counted(b"\xff\xff\xff\xffTLeafD\x00" + counted(b"\x00\x01" + plain + bytes(16))))
    return body[:at] + tobjarray(leaves) + body[at + size_at(body, at) :]


def write_split(path, branches, name="events", leaves=()):
    """Write a tree whose branches ``object/member`` are split objects: uproot itself writes flat trees only.

    Counters of lists stay beside the objects. Of ``object#2`` and ``member#2`` the end is left out, so that
    several branches have the very same path. A fixed array becomes a list of `leaves`.
    """
    entries = len(next(iter(branches.values())))
    types = {}
    for key, array in branches.items():
        kind = ak.type(ak.Array(array)).content
        fixed = np.dtype((np.float64, array.shape[1:])) if isinstance(array, np.ndarray) else None
        types[key] = f"var * {kind.content}" if fixed is None else fixed if fixed.shape else str(kind)
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree("flat", types, counter_name=lambda key: "n" + key.partition("/")[0])
        tree.extend(branches)
        flat = tree._cascading
        raw = b"".join(flat._build_out())
        at = raw.index(b"TBranch\x00") - 8
        head, parts, groups = raw[6 : at - 25], [], {}
        for k, datum in enumerate(flat._branch_data):
            blob = raw[at : at + size_at(raw, at)]
            body = body_of(blob)
            leaf = datum["tleaf_reference_number"] - 2 - key_size(flat._name, flat._title) - at
            parts.append(
                (datum, leaf_list(body, leaves) if datum["shape"] else body, leaf - len(blob) + len(body))
            )
            group, _, member = datum["fName"].rpartition("/")
            groups.setdefault(group or k, []).append(tbranch(member.partition("#")[0], parts[-1][1]))
            at += len(blob)
        top = [
            members[0] if isinstance(group, int) else parent(group.partition("#")[0], members, entries)
            for group, members in groups.items()
        ]
        array = tobjarray(top)
        start = len(head) + len(array) + 6
        links = tobjarray([bytes(4)] * len(parts))
        whole = bytearray(counted(b"\x00\x14" + head + array + links + raw[at + size_at(raw, at) :]))
        new = {}
        for k, (datum, body, leaf) in enumerate(parts):
            reference = struct.pack(">I", whole.index(body) + leaf + 2 + key_size(name, ""))
            new[datum["fName"]] = reference
            whole[start + 25 + 4 * k : start + 29 + 4 * k] = reference
        for datum, body, leaf in parts:
            if datum["counter"] is not None:
                old = struct.pack(">I", datum["counter"]["tleaf_reference_number"])
                place = whole.index(body) + body.index(old, leaf)
                whole[place : place + 4] = new[datum["counter"]["fName"]]
        file._cascading.add_object(file._file.sink, "TTree", name, "", bytes(whole), len(whole), big=True)
    return path


def write_flat(path, branches, name="events"):
    """Write a TTree of numbers, of lists of numbers, and of lists of records as branches ``record.field``."""
    types = {
        key: array.dtype if isinstance(array, np.ndarray) else ak.type(array).content
        for key, array in branches.items()
    }
    with uproot.recreate(path) as file:
        tree = file.mktree(
            name, types, field_name=lambda outer, inner: f"{outer}.{inner}" if inner else outer
        )
        tree.extend(dict(branches))
    return path
