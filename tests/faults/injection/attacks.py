"""The adversarial campaign: portions of hostile values, names, documents and folders, and what they show."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from injection import adversarial, names, tampered
from injection.adversarial import Tried
from injection.hostile import NAMES

PORTIONS, RESUMED = 8, 4
VALUES = "hostile and random steering files: crashed, hung or refused without the key"
RUNS = "hostile steering values that are taken, run on a small sample: crashed or hung"
SHOWN = "hostile names in pages, tables, figures, submissions, terminal: obeyed, changed or crashed"
DOCUMENTS = "hostile detectors, cards, schemas, limits and JSON results: crashed, hung or not named"
KEPT = "kept stages changed with their digests: crashed, or gaps that gave other numbers"
FOLDERS = "tampered folders and manifests: followed, lost, or taken in silence"
Found = Iterator[tuple[str, Tried]]


def values(folder: Path, portion: int) -> Found:
    """Check steering files of hostile values, and run some of those that are taken."""
    found, taken = adversarial.try_values(folder, adversarial.cases(portion, PORTIONS, 8))
    found += adversarial.try_mutations(folder, 300, portion)
    yield VALUES, found
    yield RUNS, adversarial.try_runs(folder, taken, 4)


def some_values(folder: Path) -> Found:
    """Check a few steering files of hostile values."""
    few = itertools.islice(adversarial.cases(3, PORTIONS, 90), 14)
    found = adversarial.try_values(folder, few)[0]
    found += adversarial.try_mutations(folder, 40, 3)
    yield VALUES, found


def shown(folder: Path, *, every: int = 1, figures: int = 1) -> Found:
    """Send every so many names through every writer, through the slow ones fewer of them."""
    found = Tried()
    for writer in names.WRITERS:
        slow = writer in (names.in_figures, names.in_submissions)
        for name in NAMES[:: figures if slow else every]:
            found.n += 1
            found.wrong += names.through(name, writer, folder)
    yield SHOWN, found


def documents(folder: Path, *, every: int = 4) -> Found:
    """Read documents with hostile values."""
    found = tampered.try_documents(folder, every)
    found += tampered.try_json(folder, max(1, every // 4))
    yield DOCUMENTS, found


def folders(folder: Path, *, hand_made: bool = True, every: int = 1) -> Found:
    """Look at folders of results in which somebody changed something."""
    found = tampered.try_manifests(folder, every)
    if hand_made:
        found += tampered.try_folders()
    yield FOLDERS, found


def stages(folder: Path, portion: int, *, n: int = 15) -> Found:
    """Resume runs of which kept stages were changed."""
    yield KEPT, tampered.try_stages(folder, n, portion)


ONCE: tuple[Callable[[Path], Found], ...] = (shown, documents, folders)
N_PORTIONS = len(ONCE) + PORTIONS + RESUMED


def attack(folder: Path, portion: int) -> Found:
    """Run one portion of the campaign."""
    if portion < len(ONCE):
        yield from ONCE[portion](folder)
    elif portion < len(ONCE) + PORTIONS:
        yield from values(folder, portion - len(ONCE))
    else:
        yield from stages(folder, portion - len(ONCE) - PORTIONS)


def draw(folder: Path) -> Found:
    """Run a short draw of everything that takes seconds."""
    for number, work in enumerate(
        (
            some_values,
            lambda place: shown(place, every=5, figures=40),  # tests/faults/test_hostile_names.py takes all
            lambda place: documents(place, every=150),
            lambda place: folders(place, hand_made=False, every=7),
        )
    ):
        place = Path(tempfile.mkdtemp(prefix=str(number), dir=folder))
        yield from work(place)
