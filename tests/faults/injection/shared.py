"""Parts of shared results: other numbers, odd documents, pipes and devices in their place."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gammastar as gs
from gammastar.core.errors import GammastarError
from gammastar.results.show import show_results, verify_results
from gammastar.store.manifest import file_sha256, read_manifest, write_manifest
from injection.adversarial import Tried

ODD = ("{}", "[]", "null", "0", '"x"', '{"rows": []}', '{"rows": {}}', '{"rows": [{}]}')
PLACES = ("a pipe", "a device", "a folder", "nothing")


def _reaches(folder: Path) -> None:
    for found in dict(gs.load(folder).reach).values():
        found.summary()


DOORS: dict[str, Callable[[Path], Any]] = {
    "rate": lambda folder: gs.load(folder).rate,
    "signal": lambda folder: dict(gs.load(folder).signal),
    "spectrum": lambda folder: gs.load(folder).spectrum,
    "steering": lambda folder: gs.load(folder).steering,
    "flow": lambda folder: gs.load(folder).flow,
    "reach": _reaches,
    "likelihood": lambda folder: gs.load(folder).likelihood(),
    "show": show_results,
    "verify": lambda folder: list(verify_results(folder)),
}
READS = {
    "rate": ("stages/predict.npz",),
    "signal": ("stages/accept.npz",),
    "spectrum": ("spectrum.json",),
    "steering": ("steering.json",),
    "flow": ("flow.json", "flow.safetensors"),
    "reach": ("reach.json",),
    "likelihood": ("workspace.json", "patchset.json", "reach.json"),
    "show": ("reach.json",),
}

UNSEEN = {("likelihood", "workspace.json"), ("likelihood", "reach.json")}
UNSEEN |= {("verify", name) for names in READS.values() for name in names}  # digests that fit are fine to it


def numbers(path: Path) -> None:
    """Change one number of a kept stage or a file of results, and nothing else."""
    if path.suffix == ".npz":
        arrays = dict(np.load(path, allow_pickle=False))
        name = next(name for name, array in arrays.items() if array.dtype.kind == "f" and array.size)
        arrays[name] = np.asarray(arrays[name] * 7.0)
        np.savez(path, **arrays)
        return
    content = bytearray(path.read_bytes())
    place = max(i for i, c in enumerate(content) if chr(c) in "123456789")
    content[place] = ord("1") + (content[place] - ord("0")) % 9
    path.write_bytes(bytes(content))


def put(path: Path, what: str) -> None:
    """Put something that is no regular file in the place of one."""
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a device":
        path.symlink_to("/dev/zero")
    elif what == "a folder":
        path.mkdir()


def opened(results: Path, path: Path, doors: tuple[str, ...]) -> Iterator[str]:
    """Open results by these doors; yield those that say nothing, or do not name the file."""
    for door in doors:
        try:
            DOORS[door](results)
        except GammastarError as error:
            if path.name not in str(error):
                yield f"{door}: does not name it: {error}"
        else:
            yield f"{door}: no error"


def campaign(finished: Path, folder: Path, doors: tuple[str, ...] = tuple(DOORS)) -> tuple[Tried, Tried]:
    """Return what became of changed parts, and of odd documents with digests that fit."""
    changed, odd = Tried(), Tried()
    work = folder / "shared"

    def copied(name: str) -> Path:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(finished, work)
        return work / name

    parts = dict.fromkeys(name for names in READS.values() for name in names)
    for name in (name for name in parts if (finished / name).is_file()):
        reading = tuple(door for door in doors if name in READS.get(door, (name,)))
        changes: dict[str, Callable[[Path], None]] = {"another number": numbers}
        changes |= {what: functools.partial(put, what=what) for what in PLACES}
        for what, change in changes.items():
            path = copied(name)
            change(path)
            for door in reading:
                found = functools.partial(opened, work, path, (door,))
                changed.attempt(f"{name}, {what}", lambda f=found: list(f()))
        for text in ODD if name.endswith(".json") else ():
            path = copied(name)
            path.write_text(text)
            known = read_manifest(finished)
            known["files"][name] = file_sha256(path)
            write_manifest(work, {key: value for key, value in known.items() if key != "digest"})
            for door in reading:
                if (door, name) not in UNSEEN:
                    found = functools.partial(opened, work, path, (door,))
                    odd.attempt(f"{name} = {text}", lambda f=found: list(f()))
    return changed, odd
