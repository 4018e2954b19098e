"""Links in a folder of results, at every level, and manifests that list files of the user's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import GammastarError, UserError
from gammastar.core.files import LOCK, writes_folder
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import open_cache
from gammastar.store.folder import MARK, working
from gammastar.store.manifest import MANIFEST, file_sha256, write_manifest, write_text
from injection.adversarial import Tried

PUBLISHED = (
    *("report.html", "spectrum.json", "figures/rate.png", "detectors/ship.toml", "hepdata/contour.yaml"),
    *("joint_ship/m0p3/workspace.json", "pairs/part-00000.parquet"),
)
WORKED_ON = (
    *("stages/select.npz", "stages/pairs/part-00000.parquet", f"chunks/pairs/pairs-{'0' * 32}.parquet"),
    *(f"previous/1/{name}" for name in (MANIFEST, "figures/rate.png", "hepdata/contour.yaml")),
)
FILES = (*PUBLISHED, *WORKED_ON, MANIFEST, LOCK)
FOLDERS = tuple(dict.fromkeys(str(place) for name in FILES for place in Path(name).parents if place.name))
KINDS = ("file", "folder", "dangling", "cyclic", "root", "hard")


def contents(folder: Path) -> dict[str, Any]:
    """Return what is in a folder: names, bytes, modes and times of change."""
    paths = sorted(folder.rglob("*"))
    found = ((path, path.lstat()) for path in paths)
    return {
        str(path.relative_to(folder)): (
            status.st_mode,
            path.is_file() and (path.read_bytes(), status.st_mtime_ns),
        )
        for path, status in found
    }


def put(path: Path, text: str) -> None:
    """Write a file without the care that results take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def results(folder: Path) -> Path:
    """Write a folder of results with all that runs leave in it."""
    for name in (*PUBLISHED, *WORKED_ON):
        put(folder / name, f"{MARK.decode()} {name}")
    sums = {name: file_sha256(folder / name) for name in PUBLISHED}
    listed = {
        "finished": True,
        "inputs": {},
        "versions": {},
        "stages": {"select": {"key": "", "content": ""}},
    }
    write_manifest(folder, {**listed, "files": sums})
    write_manifest(folder / "previous" / "1", {"finished": True, "files": {}})
    return folder


def users(folder: Path) -> Path:
    """Write a folder of the user's with files of the names that a run writes, moves and removes."""
    for name in dict.fromkeys((*FILES, *(Path(name).name for name in FILES), "holiday.png")):
        put(folder / name, f"{MARK.decode()}, of the user: {name}")
    return folder


def plant(folder: Path, outside: Path, place: str, kind: str) -> bool:
    """Put a link of a kind in a place; return whether that can be done."""
    path = folder / place
    if kind == "hard" and place not in FILES:
        return False
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = {"file": outside / "holiday.png", "folder": outside / place, "dangling": outside / "new"}
    if kind == "folder" and place in FILES:
        target["folder"] = outside
    target |= {"cyclic": path, "root": Path("/")}
    if kind == "hard":
        path.hardlink_to(outside / "holiday.png")
    else:
        path.symlink_to(target[kind])
    return True


def work(folder: Path, *, resume: bool) -> None:
    """Do in a folder what a run does: begin, keep a stage, publish, finish."""
    with working(folder):
        cache = open_cache(folder, resume=resume, seed=1, mock=True)
        cache.arrays("select", "key", lambda: {"mass": np.ones(3)})
        for name in PUBLISHED:
            write_text(folder / name, f"{MARK.decode()} new {name}")
        cache.finish()


def broken(base: Path, places: list[tuple[str, str]], *, resume: bool) -> list[str]:
    """Plant links, work in the folder and return what went wrong."""
    shutil.rmtree(base, ignore_errors=True)
    folder, outside = results(base / "out"), users(base / "mine")
    planted = []
    for place, kind in places:
        if not any(part.is_symlink() for part in (folder / place).parents) and plant(
            folder, outside, place, kind
        ):
            planted.append((folder / place, kind))
    before, error = contents(outside), ""
    try:
        work(folder, resume=resume)
    except UserError as caught:
        error = str(caught)
    except GammastarError as caught:
        error = f"not named: {caught}"
    refused = [str(path) for path, kind in planted if kind != "hard" or path.name == LOCK]
    wrong = ["the user's folder changed"] if contents(outside) != before else []
    if refused and not any(path in error for path in refused):
        wrong.append(f"no error that names the link: {error or 'none'}")
    return wrong


EXPORTED = ("export.json", "rate.csv", "darkcast/ship.lmt", "hepdata/submission.yaml", "hepdata/contour.yaml")
EXPORTED += ("config/limit.xml", "config/data/data.root", "overlay.png")
OUTPUTS = (*EXPORTED, "darkcast", "hepdata", "config", "config/data")


@writes_folder
def _exported(*, output: Path) -> None:
    for name in EXPORTED:
        write_text(output / name, f"{MARK.decode()} new {name}")


def broken_output(
    base: Path, places: list[tuple[str, str]], export: Callable[..., Any] = _exported
) -> list[str]:
    """Plant links in a folder that is exported into; return what went wrong.

    A link in the place of a folder is refused with its name, one in the place of a file is replaced.
    """
    shutil.rmtree(base, ignore_errors=True)
    folder, outside = base / "out", base / "mine"
    for name in (*EXPORTED, *(Path(name).name for name in EXPORTED), "holiday.png"):
        put(outside / name, f"of the user: {name}")
    folder.mkdir()
    planted = []
    for place, kind in places:
        free = not any(part.is_symlink() or part.is_file() for part in (folder / place).parents)
        if free and (kind != "hard" or place in EXPORTED):
            plant(folder, outside, place, kind)
            planted += [] if place in EXPORTED else [str(folder / place)]
    before, error = contents(outside), ""
    try:
        export(output=folder)
    except GammastarError as caught:
        error = str(caught)
    wrong = ["the user's folder changed"] if contents(outside) != before else []
    if planted and not any(path in error for path in planted):
        wrong.append(f"no error that names the link: {error or 'none'}")
    return wrong + ([] if planted or not error else [f"refused: {error}"])


def forged(base: Path, *, resume: bool) -> list[str]:
    """List the user's files in the manifests of a folder, with their digests; return those that are gone."""
    shutil.rmtree(base, ignore_errors=True)
    folder, outside = results(base / "out"), users(base / "mine")
    own = ("figures/holiday.png", "detectors/mine.toml", "hepdata/notes.txt", "stages/mine.npz")
    names = [*own, *(f"previous/1/{name}" for name in own)]
    for name in names:
        put(folder / name, f"of the user: {name}")
    sums = {name: file_sha256(folder / name) for name in own[:3]}
    far = {name: file_sha256(outside / "holiday.png") for name in ("../mine/holiday.png", "hepdata/../../x")}
    said = {"finished": True, "inputs": {}, "versions": {}, "stages": {"mine": {"key": "", "content": ""}}}
    write_manifest(folder, {**said, "files": sums | far})
    sums = {name: file_sha256(folder / "previous" / "1" / name) for name in own[:3]}
    write_manifest(folder / "previous" / "1", {**said, "files": sums | far})
    before = contents(outside)
    with contextlib.suppress(GammastarError):
        work(folder, resume=resume)
    left = {path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"} | {
        path.read_bytes().decode(errors="replace") for path in folder.rglob("*.npz")
    }
    wrong = [name for name in names if f"of the user: {name}" not in left]
    return wrong + (["the user's folder changed"] if contents(outside) != before else [])


def campaign(base: Path, n: int, portion: int) -> tuple[Tried, Tried, Tried]:
    """Return what became of links in results, forged manifests, and links in folders of output.

    Of each link at every level, and of several at once.
    """
    rng, linked, listed, output = stream(67, "links", portion), Tried(), Tried(), Tried()
    every = [[(place, kind)] for place in (*FILES, *FOLDERS) for kind in KINDS]
    names = (*FILES, *FOLDERS)
    every += [
        [
            (names[i], KINDS[k])
            for i, k in zip(rng.integers(0, len(names), 4), rng.integers(0, 6, 4), strict=True)
        ]
        for _ in range(n)
    ]
    for resume in (False, True):
        for places in every:
            what = ", ".join(f"{kind} at {place}" for place, kind in places)
            linked.attempt(what, lambda p=places, r=resume: broken(base, p, resume=r))
        listed.attempt("forged", lambda r=resume: forged(base, resume=r))
    single = [[(place, kind)] for place in OUTPUTS for kind in KINDS]
    picks = [(rng.integers(0, len(OUTPUTS), 4), rng.integers(0, 6, 4)) for _ in range(n)]
    for places in single + [[(OUTPUTS[i], KINDS[k]) for i, k in zip(*pick, strict=True)] for pick in picks]:
        output.attempt(f"output, {places}", lambda p=places: broken_output(base, p))
    return linked, listed, output
