"""Finished stages are kept: arrays on disk, their digest in the manifest; ``--resume`` takes them again."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.files import atomic, opened, state_of
from gammastar.core.records import ArrayRecord, Arrays
from gammastar.store import manifest
from gammastar.store.folder import MARK, claim, prune, published, set_aside, sweep, sweep_temporaries

DAMAGE = (
    *(OSError, MemoryError, AttributeError, ValueError, KeyError, EOFError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
RESUMABLE = {"stages/": "", "flow": "flow", "input/": "simulate"}  # what --resume keeps, for which stage
logger = logging.getLogger(__name__)


RecordType = TypeVar("RecordType", bound=ArrayRecord)


class CachedArrays(Arrays):
    """Arrays of a kept stage; one that a later stage looks for in vain is an error that names the file."""

    def __init__(self, arrays: Mapping[str, Any], *, path: Path) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise StoreError(f"{self.path}: the kept stage has no array {name!r}; run without --resume")


def _gaps(arrays: Arrays) -> dict[str, int]:
    """Return how many numbers of an array are not finite, as where nothing is known; no array without."""
    counts = {name: int((~np.isfinite(a)).sum()) for name, a in arrays.items() if a.dtype.kind == "f"}
    return {name: count for name, count in counts.items() if count}


@dataclass
class StageCache:
    """The manifest of a run while it grows: inputs, digests of the stages, methods of the numbers."""

    folder: Path
    resume: bool
    seed: int
    mock: bool
    previous: Mapping[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    partial: dict[str, dict[str, Any]] = field(default_factory=dict)
    old: Mapping[str, Any] = field(default_factory=dict)
    wanted: Collection[str] | None = None
    force: str | None = None
    finished: bool = False
    configuration: str = ""
    known: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    companions: dict[str, str] = field(default_factory=dict)  # versions on workers
    taken: list[str] = field(default_factory=list)

    def alarm(self, text: str) -> None:
        """Add a note to the manifest and warn of it in the terminal."""
        self.notes.append(text)
        logger.warning("%s", text if text.startswith("warning") else f"warning: {text}")

    def key_of(self, *stages: str) -> str:
        """Return the digest of the finished stages that another one builds on."""
        return manifest.digest([self.stages[stage]["content"] for stage in stages if stage in self.stages])

    def key(self, section: BaseModel | None, *upstream: str) -> str:
        """Return the digest that decides whether a stage runs again: section, inputs, code and seed."""
        content = {} if section is None else section.model_dump(mode="json")
        return manifest.digest(content, list(upstream), manifest.package_digest(), self.seed)

    def arrays(self, stage: str, key: str, compute: Callable[[], Arrays], *, of: str = "") -> Arrays:
        """Return the arrays of a stage, or of a part `of` it, from disk if nothing upstream changed."""
        path = self.folder / "stages" / f"{stage}.npz"
        if self.resume and (of or stage) != self.force and self.fresh(stage, key) and path.is_file():
            kept = self._kept(stage, path)
            if kept is not None:
                logger.info("%s: taken from the finished run", stage)
                self.taken.append(stage)
                self.done(stage, key, manifest.digest(kept), _gaps(kept))
                return kept
        # rows first, as they come back: sums in another order differ in their last digit
        result: dict[str, Any] = {name: np.asarray(array, order="C") for name, array in compute().items()}
        objects = sorted(name for name, array in result.items() if array.dtype.hasobject)
        if objects:  # numpy would pickle them; its switch against that is newer than the lowest version
            raise StoreError(f"{stage}: {', '.join(objects)}: not plain numbers or text, cannot be kept")
        with atomic(path) as temporary:
            with temporary.open("wb") as stream:
                np.savez(stream, **result)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.comment = MARK
        self.done(stage, key, manifest.digest(result), _gaps(result))
        return result

    def keep(
        self, stage: str, key: str, compute: Callable[[], RecordType], kind: type[RecordType]
    ) -> RecordType:
        """Return the record of a stage through its arrays: a resumed run goes on with the same one."""
        return kind.from_arrays(self.arrays(stage, key, lambda: compute().to_arrays()))

    def _kept(self, stage: str, path: Path) -> Arrays | None:
        """Return the arrays of a stage, or None if they are not what was kept."""
        try:
            found = load_arrays(path)
        except StoreError as error:
            logger.warning("%s; the stage runs again", error)
            return None
        entry = self.previous["stages"][stage]
        if manifest.digest(found) != entry["content"]:
            logger.warning("%s: %s does not match its digest; the stage runs again", stage, path)
            return None
        now, before = _gaps(found), entry.get("gaps", {})
        if now != before:
            names = ", ".join(sorted(n for n in {*now, *before} if now.get(n) != before.get(n))[:3])
            logger.warning("%s: %s: other gaps in %s than it kept; the stage runs again", stage, path, names)
            return None
        return found

    @contextlib.contextmanager
    def wrap_errors(self, stage: str) -> Iterator[None]:
        """Name the section where a formula has no answer, and kept stages on which one breaks."""
        try:
            yield
        except PhysicsError as error:
            error.args = (f"[{stage}] {error}",)
            raise
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            if not self.taken:
                raise
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            places = ", ".join(str(self.folder / "stages" / f"{name}.npz") for name in self.taken)
            msg = f"{stage}: fails with what was kept ({why}); run without --resume. Kept: {places}"
            raise StoreError(msg) from error

    def fresh(self, stage: str, key: str) -> bool:
        """Return whether the previous run finished this stage with the same key, and without loss."""
        if stage in self.previous.get("partial", {}):
            return False
        return stage != self.force and bool(self.previous.get("stages", {}).get(stage, {}).get("key") == key)

    def done(self, stage: str, key: str, content: str, gaps: Mapping[str, int] | None = None) -> None:
        """Record a finished stage; `gaps`: numbers that are not finite in its arrays, None if not kept."""
        self.stages[stage] = {"key": key, "content": content, "kept": gaps is not None}
        if gaps:
            self.stages[stage]["gaps"] = dict(gaps)
        self.write(finished=False)

    def enter(self, inputs: Mapping[Any, str]) -> None:
        """Enter input files and their SHA-256: by full name, those in the folder by their place in it."""
        for path, sha in inputs.items():
            self.inputs[input_name(path, self.folder)] = sha

    @property
    def loss(self) -> str:
        """What was skipped of the input, in a sentence; "" if nothing was."""
        return skipped_input_message(self.partial)

    def finish(self) -> None:
        """Write the finished manifest; results of earlier runs go unless somebody changed them."""
        self.write(finished=True)
        left = prune(self.folder)
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            self.notes.append(f"of earlier runs, changed since then: {', '.join(left[:5])}{more}")
            logger.warning("%s: %s", self.folder, self.notes[-1])
            self.write(finished=True)

    def begin(self) -> None:
        """Sweep what killed writes left, set aside what this run will not write, and write the manifest."""
        sweep_temporaries(self.folder)
        set_aside(self.folder, self.old, keep=self._survives)
        if not self.resume:
            for kind in ("pairs", "truth"):
                sweep(self.folder / "chunks" / kind, "chunks")
                sweep(self.folder / "stages" / kind, "parts")
        self.write(finished=False)

    def _survives(self, name: str) -> bool:
        """Return whether a file of an earlier run stays: what a resumed run may take again."""
        stage = next((stage for start, stage in RESUMABLE.items() if name.startswith(start)), None)
        return self.resume and stage is not None and (not stage or stage in (self.wanted or (stage,)))

    @contextlib.contextmanager
    def write_on_exit(self) -> Iterator[None]:
        """Enter what lies in the folder when the block ends, be it with an error: the next run knows it."""
        try:
            yield
        finally:
            if not self.finished:
                self.write(finished=False)

    def write(self, *, finished: bool) -> None:
        """Write ``manifest.json``; what the run published so far lies in its folder."""
        self.finished = finished
        before = self.previous.get("stages", {})
        kept = {} if finished else {name: entry for name, entry in before.items() if name not in self.stages}
        lost = {name: entry for name, entry in self.previous.get("partial", {}).items() if name in kept}
        files = [name for name in published(self.folder) if not name.startswith("input/")]
        manifest.write_manifest(
            self.folder,
            {
                "finished": finished,
                "mock": self.mock,
                "seed": self.seed,
                "configuration": self.configuration,
                "code": manifest.package_digest(),
                "inputs": self.inputs,
                "versions": {**manifest.versions(), **self.companions},
                "stages": kept | self.stages,
                "files": {name: self._sha256(name) for name in files},
                "partial": lost | self.partial,
                "methods": self.methods,
                "numbers": self.numbers,
                "notes": self.notes,
                "checks": self.checks,
            },
        )

    def _sha256(self, name: str) -> str:
        """Return the SHA-256 of a file of the folder, computed once while it stays as it is."""
        path = self.folder / name
        now = state_of(path)
        if name not in self.known or self.known[name][0] != now:
            self.known[name] = (now, manifest.file_sha256(path))
        return self.known[name][1]


def input_name(path: Any, folder: Path) -> str:
    """Return the name of an input in the manifest: absolute, or relative inside the folder of results."""
    if not isinstance(path, Path):
        return str(path)
    full, root = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(full)


def skipped_input_message(partial: Mapping[str, Any]) -> str:
    """Return what was skipped of the input, in a sentence; "" if nothing was."""
    parts = []
    for stage, entry in partial.items():
        what = "protons on target" if stage == "select" else "simulated events"
        files = list(dict.fromkeys(str(one.get("file", "?")) for one in entry["skipped"]))
        names = ", ".join(Path(name).name for name in files[:5])
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        plural = "" if len(files) == 1 else "s"
        lost = f"{entry['lost_fraction']:.3%} of the {what}"
        parts.append(f"{lost} skipped with {len(files)} file{plural}: {names}{more}")
    return f"PARTIAL data: {'; '.join(parts)}" if parts else ""


def load_arrays(path: Path) -> Arrays:
    """Read the arrays of a kept stage."""
    try:
        with opened(path) as stream, np.load(stream, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > path.stat().st_size:
                raise ValueError("compressed, as no run writes it")
            return CachedArrays({name: file[name] for name in file.files}, path=path)
    except DAMAGE as error:
        msg = f"{path}: the kept stage is damaged ({type(error).__name__}: {str(error)[:200]}); run again"
        raise StoreError(msg) from error


def kept_arrays(folder: Path, stage: str) -> Arrays:
    """Read the arrays of a kept stage of a finished run."""
    path = folder / "stages" / f"{stage}.npz"
    entry, found = manifest.read_manifest(folder)["stages"].get(stage, {}), load_arrays(path)
    if entry.get("content") != manifest.digest(found):
        where = folder / manifest.MANIFEST
        raise StoreError(f"{path}: does not match its digest in {where}; changed or damaged; run again")
    return found


def open_cache(
    folder: Path,
    *,
    resume: bool,
    seed: int,
    mock: bool,
    stages: Collection[str] | None = None,
    begin: bool = True,
) -> StageCache:
    """Open the manifest of a result folder for a new run."""
    old, previous = claim(folder), {}
    if resume and old:
        try:
            previous = manifest.read_manifest(folder)
        except StoreError as error:
            raise StoreError(f"{error}; or run without --resume") from error
    cache = StageCache(folder, resume, seed, mock, previous, old=old, wanted=stages)
    if previous and previous["code"] != manifest.package_digest():
        cache.notes.append("the code of gammastar changed since the resumed run: its stages run again")
        logger.warning("%s: %s", folder, cache.notes[-1])
    before, now = previous.get("versions", {}), manifest.versions()
    others = ", ".join(f"{name} {before.get(name, 'none')}" for name in now if before.get(name) != now[name])
    if previous and others:
        cache.alarm(f"stages that are kept from the run before are of other versions: {others}")
    if begin:
        cache.begin()
    return cache
