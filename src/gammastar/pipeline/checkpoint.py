"""Finished stages are kept: arrays on disk, their digest in the manifest; ``--resume`` takes them again."""

from __future__ import annotations

import logging
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from gammastar.core.errors import StoreError
from gammastar.store.manifest import (
    atomic,
    digest,
    file_sha256,
    package_digest,
    read_json,
    versions,
    write_json,
)

__all__ = ["Arrays", "Book", "load_arrays", "open_book"]

Arrays = dict[str, npt.NDArray[Any]]
logger = logging.getLogger(__name__)


@dataclass
class Book:
    """The manifest of a run while it grows: inputs, digests of the stages, methods of the numbers."""

    folder: Path
    resume: bool
    seed: int
    mock: bool
    previous: Mapping[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    partial: dict[str, dict[str, Any]] = field(default_factory=dict)
    force: str | None = None
    configuration: str = ""

    def alarm(self, text: str) -> None:
        """Enter a note that whoever runs the job must see: it goes to the terminal as well."""
        self.notes.append(text)
        logger.warning("%s", text if text.startswith("warning") else f"warning: {text}")

    def key_of(self, *stages: str) -> str:
        """Return the digest of the finished stages that another one builds on."""
        return digest([self.stages[stage]["content"] for stage in stages if stage in self.stages])

    def key(self, section: BaseModel | None, *upstream: str) -> str:
        """Return the digest that decides whether a stage must run again.

        It covers the stage's section, its inputs' digests, the package's own code and the seed.
        """
        content = {} if section is None else section.model_dump(mode="json")
        return digest(content, list(upstream), package_digest(), self.seed)

    def arrays(self, stage: str, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a stage: from disk if `resume` is on and nothing upstream changed."""
        path = self.folder / "stages" / f"{stage}.npz"
        if self.resume and self.fresh(stage, key) and path.is_file():
            kept = self._kept(stage, path)
            if kept is not None:
                logger.info("%s: taken from the finished run", stage)
                self.done(stage, key, digest(kept))
                return kept
        result: dict[str, Any] = compute()
        objects = sorted(name for name, array in result.items() if np.asarray(array).dtype.hasobject)
        if objects:  # numpy would pickle them; its switch against that is newer than the lowest version
            msg = f"{stage}: {', '.join(objects)}: not plain numbers or text, cannot be kept"
            raise StoreError(msg)
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **result)
        self.done(stage, key, digest(result))
        return result

    def _kept(self, stage: str, path: Path) -> Arrays | None:
        """Return the arrays of a stage, or None if they are not what was kept."""
        try:
            found = load_arrays(path)
        except StoreError as error:
            logger.warning("%s; the stage runs again", error)
            return None
        if digest(found) == self.previous["stages"][stage]["content"]:
            return found
        logger.warning("%s: %s does not match its digest; the stage runs again", stage, path)
        return None

    def fresh(self, stage: str, key: str) -> bool:
        """Return whether the previous run finished this stage with the same key, and without loss."""
        if stage in self.previous.get("partial", {}):
            return False
        return stage != self.force and bool(self.previous.get("stages", {}).get(stage, {}).get("key") == key)

    def done(self, stage: str, key: str, content: str) -> None:
        """Record a finished stage and write the manifest, so that a killed run can resume."""
        self.stages[stage] = {"key": key, "content": content}
        self.write(finished=False)

    def finish(self) -> None:
        """Enter the digests of the result files and write the finished manifest."""
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name != "manifest.json" and not path.name.startswith("."):
                self.files[path.name] = file_sha256(path)
        self.write(finished=True)

    def write(self, *, finished: bool) -> None:
        """Write ``manifest.json``."""
        kept = {
            name: entry for name, entry in self.previous.get("stages", {}).items() if name not in self.stages
        }
        partial = {"partial": self.partial} if self.partial else {}
        write_json(
            self.folder / "manifest.json",
            {
                **partial,
                "finished": finished,
                "mock": self.mock,
                "seed": self.seed,
                "configuration": self.configuration,
                "code": package_digest(),
                "inputs": self.inputs,
                "versions": versions(),
                "stages": self.stages if finished else {**kept, **self.stages},
                "files": self.files,
                "methods": self.methods,
                "numbers": self.numbers,
                "notes": self.notes,
            },
        )


def load_arrays(path: Path) -> Arrays:
    """Read the arrays of a kept stage.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{path}: the kept stage is damaged ({type(error).__name__}: {str(error)[:200]}); run again"
        raise StoreError(msg) from error


def open_book(folder: Path, *, resume: bool, seed: int, mock: bool) -> Book:
    """Open the manifest of a result folder; leftovers of killed writes are swept."""
    for stale in folder.rglob(".*.tmp*"):
        stale.unlink(missing_ok=True)
    path = folder / "manifest.json"
    previous = read_json(path) if resume and path.is_file() else {}
    book = Book(folder, resume, seed, mock, previous)
    if previous and previous.get("code") != package_digest():
        book.notes.append("the code of gammastar changed since the run that is resumed: its stages run again")
        logger.warning("%s: %s", folder, book.notes[-1])
    return book
