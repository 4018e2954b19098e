"""Damaged ROOT files: five compressions of three formats, five kinds of damage, read in guarded children."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pickle
import resource
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import awkward as ak
import numpy as np
import pytest
import uproot
import uproot.writing._cascadentuple as writing
import xxhash

from gammastar import read
from gammastar.core.errors import GammastarError
from gammastar.core.sampling import stream
from gammastar.store.filesets import Listed, compare, identity

ROWS = 2000
SEED = 20261125
COMPRESSIONS = {
    "none": None,
    "zlib": uproot.ZLIB(1),
    "lz4": uproot.LZ4(4),
    "zstd": uproot.ZSTD(3),
    "lzma": uproot.LZMA(1),
}
MEANT = {
    "TTree": "files with a TTree",
    "RNTuple": "files with an RNTuple as ROOT writes it, with checksums of pages",
    "RNTuple without": "files with an RNTuple as uproot writes it, without checksums of pages",
}
FORMATS = tuple(MEANT)
CODECS = {f"{form} {name}": (form, codec) for form in FORMATS for name, codec in COMPRESSIONS.items()}
MODES = ("truncated", "1 bit", "20 bits", "zeroed", "header")
SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "Muon_charge",
    "kinematics": {key: f"Muon_{key}" for key in ("px", "py", "pz")},
}
MEMORY = 4 << 30
CPU = 8  # [s]
WALL = 60  # for a child that waits without working [s]


def sound_file(path: Path, codec: str) -> bytes:
    """Write a file of random muons, incompressible as data are."""
    rng = stream(1, "damage", codec)
    counts = rng.poisson(1.5, ROWS)
    total = int(counts.sum())
    branches = {
        f"Muon_{key}": ak.unflatten(rng.normal(0, s, total), counts)
        for key, s in (("px", 0.4), ("py", 0.4), ("pz", 20.0))
    }
    branches["Muon_charge"] = ak.unflatten(rng.choice(np.array([-1, 1], np.int8), total), counts)
    form, compression = CODECS[codec]
    with uproot.recreate(path, compression=compression) as file, _checksums(use=form == "RNTuple"):
        if form == "TTree":
            types = {k: "var * " + ("int8" if k.endswith("charge") else "float64") for k in branches}
            file.mktree("events", types).extend(branches)
        else:
            file.mkrntuple("events", branches)
    return path.read_bytes()


@contextlib.contextmanager
def _checksums(*, use: bool) -> Iterator[None]:
    """Let uproot write RNTuples with a checksum behind each page and its mark in the list, as ROOT does."""
    with pytest.MonkeyPatch.context() as patch:
        if use:
            blob = writing.NTuple.add_rblob

            def add_rblob(self: Any, sink: Any, raw: Any, *rest: Any, **more: Any) -> Any:
                whole = bytes(raw) + xxhash.xxh3_64_intdigest(bytes(raw)).to_bytes(8, "little")
                return blob(self, sink, whole, *rest, **more)

            def serialize(self: Any) -> bytes:
                return struct.pack("<i", -self.num_entries) + self.locator.serialize()

            patch.setattr(writing.NTuple, "add_rblob", add_rblob)
            patch.setattr(writing.NTuple_PageDescription, "serialize", serialize)
        yield


def damaged(data: bytes, mode: str, rng: np.random.Generator) -> bytes:
    """Return a damaged copy."""
    copy = bytearray(data)
    if mode == "truncated":
        return bytes(copy[: int(rng.integers(0, len(data)))])
    if mode == "zeroed":
        start = int(rng.integers(300, max(301, len(data) - 4096)))
        copy[start : start + 4096] = bytes(len(copy[start : start + 4096]))
        return bytes(copy)
    end = len(data)
    low, high, n = {"1 bit": (300, end, 1), "20 bits": (300, end, 20), "header": (0, 300, 1)}[mode]
    for position in rng.integers(low, high, n):
        copy[position] ^= 1 << int(rng.integers(8))
    return bytes(copy)


def load(path: Path) -> ak.Array:
    return ak.concatenate(list(read.open_events(path, read.load_schema(SCHEMA), step=1000)))


def outcome(path: Path, expected: ak.Array, known: Listed | None) -> str:
    """Return "error", "same" (right values) or "silent" (wrong values, no error)."""
    try:
        if known is not None:
            compare(path, known, "", identity(path))
        found = load(path)
    except GammastarError as error:
        return "error" if str(path.name) in str(error) else "unnamed error"
    return "same" if ak.array_equal(found, expected, equal_nan=True) else "silent"


def guarded(functions: Sequence[Callable[[], str]]) -> list[str]:
    """Return what functions say in a child of limited memory and time, or how a child ended with one."""
    found: list[str] = []
    while len(found) < len(functions):
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(here)
            _answer(functions[len(found) :], there)
        os.close(there)
        with os.fdopen(here, "rb") as stream_:
            found += stream_.read().decode().splitlines()
        _, status = os.waitpid(child, 0)
        if len(found) < len(functions):
            number = os.WTERMSIG(status)
            hung = number in {signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM}
            found.append("hang" if hung else f"signal {number}")
    return found


def _answer(functions: Sequence[Callable[[], str]], there: int) -> NoReturn:
    """Write a line for each function, until one of them ends this child."""
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for function in functions:
            signal.alarm(WALL)
            spent = math.ceil(time.process_time())
            resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU, resource.RLIM_INFINITY))
            try:
                answer = function()
            except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
                answer = f"raised {type(error).__name__}"
            os.write(there, f"{answer}\n".encode())
    finally:
        os._exit(0)


def cases(n: int, codecs: tuple[str, ...] = tuple(CODECS)) -> Iterator[tuple[str, str, int]]:
    """Yield codec, mode and number of `n` files per codec and mode."""
    for codec in codecs:
        for mode in MODES:
            for i in range(n):
                yield codec, mode, i


def campaign(
    n: int, *, manifest: bool, isolated: bool = True, codecs: tuple[str, ...] = tuple(CODECS)
) -> Counter[tuple[str, str, str]]:
    """Return how often each (codec, mode, outcome) occurred for `n` damaged files per codec and mode."""
    found: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.root"
        for codec in codecs:
            sound = sound_file(path, codec)
            expected = load(path)
            known = Listed(str(path), "manifest", sha256=identity(path)) if manifest else None

            def tried(mode: str, i: int, codec: str = codec, whole: bytes = sound, **about: Any) -> str:
                path.write_bytes(damaged(whole, mode, stream(SEED, codec, mode, i)))
                return outcome(path, **about)

            each = [(mode, i) for _, mode, i in cases(n, (codec,))]
            works = [functools.partial(tried, *one, expected=expected, known=known) for one in each]
            said = guarded(works) if isolated else [work() for work in works]
            found.update((codec, mode, answer) for (mode, _), answer in zip(each, said, strict=True))
    return found


def summary(found: Counter[tuple[str, str, str]]) -> Counter[str]:
    """Return the counts by outcome alone."""
    total: Counter[str] = Counter()
    for (_, _, result), count in found.items():
        total[result] += count
    return total


def pickle_bomb(marker: Path) -> bytes:
    """Return a pickle that would make a file if anybody loaded it."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {marker}",)

    return pickle.dumps(Bomb())
