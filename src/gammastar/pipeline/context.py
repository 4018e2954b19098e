"""What every stage of a run shares: steering, folders, the book of finished stages, progress."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from gammastar.config import Steering
from gammastar.core.axes import ENERGY, KINEMATICS, MASS, PT, filled, variable
from gammastar.core.documents import shortened
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.files import data_path, is_file
from gammastar.core.records import Exposure, FloatArray, Spectrum
from gammastar.core.resolve import UserCode, freeze, python_names
from gammastar.pipeline.cache import Arrays, Book
from gammastar.store.manifest import digest
from gammastar.store.remote import Remote

if TYPE_CHECKING:
    from gammastar.core.pairs import MatchedPairs, Pairs
    from gammastar.select import Cutflow
    from gammastar.store.chunks import Job

__all__ = [
    "Context",
    "Farm",
    "Tell",
    "axes_of",
    "detector_files",
    "find_file",
    "pack_spectrum",
    "shipped",
    "unpack_spectrum",
]

LONGEST_NAME = 200  # characters of a name in a message
Tell: TypeAlias = Callable[[str, float | None, str], None]


class Farm(Protocol):
    """Workers elsewhere, as ``facility.open_farm`` gives them."""

    name: str
    skip_bad: bool
    events: list[str]
    skipped: list[dict[str, Any]]
    flows: dict[str, Cutflow]
    tell: Tell | None
    companions: dict[str, str]

    def pairs(self, job: Job) -> tuple[Iterator[Pairs], Cutflow]:
        """Return the selected pairs of all files chunk by chunk, in their order."""

    def truth(self, job: Job) -> Iterator[MatchedPairs]:
        """Return the simulated photons of all files chunk by chunk, in their order."""

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, stage: str | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]`` and report progress under the name `stage`."""

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers that see other files than this process, or not the folder."""

    def lost_fraction(self, kind: str = "pairs") -> float:
        """Return which part of the entries was skipped."""


@dataclass(frozen=True)
class Context:
    """A run: `base` is the steering file's folder, `folder` that of the results.

    ``tell(stage, fraction, text)`` reports progress; a fraction of None means that it is not known. With a
    `farm` chunks and grid points are worked on there; `allow_partial` allows limits from part of the data.
    `code` is the user's Python code as it was when the run began.
    """

    steering: Steering
    base: Path
    folder: Path
    book: Book
    tell: Tell
    farm: Farm | None = None
    allow_partial: bool = False
    code: UserCode = field(init=False)

    def __post_init__(self) -> None:
        content = self.steering.model_dump(mode="json")
        self.book.configuration = digest(content)
        object.__setattr__(self, "code", freeze(python_names(content), self.base))
        if self.farm is not None:
            self.farm.tell = self.tell
            self.book.companions |= self.farm.companions

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.steering.analysis.seed

    def each(
        self, function: Callable[[int], Any], n: int, stage: str, describe: Callable[[int], str]
    ) -> list[Any]:
        """Return ``function(i)`` of 0 … n − 1, from the farm if there is one.

        For grid points, toys, pseudo-experiments and members of an ensemble: `function` takes its random
        numbers from ``core.sampling.stream`` under the name of its item, so that the place does not matter.
        With workers `describe` is not used; they report how many are finished.
        """
        if self.farm is not None:
            return self.farm.map(function, range(n), stage=stage)
        found = []
        for i in range(n):
            found.append(function(i))
            self.tell(stage, (i + 1) / n, describe(i))
        return found


def find_file(name: str, base: Path) -> list[Path | Remote]:
    """Return the files of a name or glob pattern; a URL stands for itself.

    Looked for beside the steering file, then among the shipped data, then in the folder
    ``GAMMASTAR_TESTDATA``, then in the cache of scikit-hep-testdata.

    Raises
    ------
    InputFileError
        If nothing is found, or folders alone; the message names them.
    """
    if "://" in name:
        return [Remote(name)]
    folders = [base]
    if os.environ.get("GAMMASTAR_TESTDATA"):
        folders.append(Path(os.environ["GAMMASTAR_TESTDATA"]))
    folders.append(Path.home() / ".local" / "skhepdata")
    shown = shortened(name, LONGEST_NAME)
    try:
        found = _matches(name, folders)
    except (OSError, ValueError, NotImplementedError) as error:
        msg = f"{shown!r}: is no name of a file ({str(error)[:100]})"
        raise InputFileError(msg) from error
    if not found:
        msg = f"{shown}: no such file in {', '.join(str(folder) for folder in folders)}"
        raise InputFileError(msg)
    return [*found]


def _matches(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the file of a name, or those of a pattern, in the first folder that has any."""
    if not (folders[0] / name).is_file():
        with contextlib.suppress(InputFileError):
            return [data_path(name)]
    for folder in folders:
        path = folder / name
        if path.is_file():
            return [path]
        found = [folder / one for one in sorted(glob.glob(name, root_dir=folder, recursive=True))]  # noqa: PTH207
        files = [one for one in found if one.is_file()]
        if files:
            return files
        if found:
            msg = f"{name}: {found[0]} is a folder; name its files, for instance {name.rstrip('/')}/*.root"
            raise InputFileError(msg)
    return []


def shipped(name: str, base: Path, kind: str) -> Path:
    """Return a file beside the steering file, or a shipped one of this kind by its name.

    Raises
    ------
    InputFileError
        If there is neither.
    """
    path = base / name
    if is_file(path):
        return path
    try:
        return data_path(f"{kind}/{name}.toml")
    except InputFileError as error:
        short = shortened(name, LONGEST_NAME)
        msg = f"{short}: no such file in {base}, and no {kind}/{short}.toml is shipped in data/"
        raise InputFileError(msg) from error


def detector_files(names: Sequence[str], base: Path, key: str) -> dict[str, Path]:
    """Return the files of detectors by their stems, under which results are kept.

    Raises
    ------
    SteeringError
        If two files have one stem: the results of one would overwrite those of the other.
    """
    found: dict[str, Path] = {}
    for path in (shipped(name, base, "detectors") for name in names):
        if path.stem in found:
            msg = (
                f"{key}: {found[path.stem]} and {path} are both named {path.stem!r}; rename one of the files"
            )
            raise SteeringError(msg)
        found[path.stem] = path
    return found


def axes_of(section: Any, fallback: Any = None) -> tuple[Any, ...]:
    """Return the axes mass, pt and energy of a section, each taken from `fallback` where it is not given."""
    edges: list[Sequence[float]] = []
    for name in (MASS, PT, ENERGY):
        value = getattr(section, name, None)
        edges.append(getattr(fallback, name) if value is None else value)
    return tuple(variable(name, list(e)) for name, e in zip(KINEMATICS, edges, strict=True))


def pack_spectrum(spectrum: Spectrum, prefix: str = "") -> Arrays:
    """Return the arrays of a spectrum, to be kept by the book."""
    return {
        f"{prefix}values": spectrum.values,
        f"{prefix}cov": spectrum.cov,
        f"{prefix}domain": spectrum.domain,
    }


def unpack_spectrum(
    arrays: Arrays, axes: tuple[Any, ...], quantity: Any, exposure: Exposure | None = None, prefix: str = ""
) -> Spectrum:
    """Return the spectrum of packed arrays."""
    cov: FloatArray = arrays[f"{prefix}cov"]
    hist = filled(axes, arrays[f"{prefix}values"], cov.diagonal())
    return Spectrum(hist, cov, quantity, exposure, arrays[f"{prefix}domain"])
