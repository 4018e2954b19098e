"""Records that name Python code: who opens a colleague's results must not run it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gammastar as gs
from gammastar import config
from gammastar.core.errors import GammastarError
from gammastar.core.files import data_path
from gammastar.pipeline.record import kept_steering
from gammastar.pipeline.run import run
from gammastar.results.design import DesignRequest, design
from gammastar.results.export import export
from gammastar.results.scan import ScanRequest, scan_lines
from gammastar.results.show import overlay_files, show_results, verify_results
from gammastar.results.start import reinterpret
from gammastar.store.manifest import file_sha256, read_manifest, write_manifest
from injection.kills import ROOT

FILE, NAME = "evil.py", "evil.py:thing"
SOURCE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nthing = None\n"


def quiet(*_: Any) -> None:
    """Report nothing."""


def read_everything(folder: Path, _: Path) -> None:
    """Take every part of loaded results."""
    found = gs.load(folder)
    for name in ("steering", "spectrum", "rate", "signal", "flow", "reach", "workspace", "patches"):
        getattr(found, name)
    found.summary(), repr(found), dict(found.reach)


DOORS: dict[str, Callable[[Path, Path], Any]] = {
    "show": lambda folder, _: show_results(folder),
    "verify": lambda folder, _: list(verify_results(folder)),
    "load": read_everything,
    "scan": lambda folder, _: list(
        scan_lines(folder / "workspace.json", request=ScanRequest(1.0, None, False, False), names=())
    ),
    "overlay": lambda folder, out: list(overlay_files([str(folder)], output=out)),
    "export": lambda folder, out: export(folder, output=out, detector=None, n=200, tell=quiet),
    "reinterpret": lambda folder, out: reinterpret(folder, output=out, tell=quiet),
    "reinterpret, own model": lambda folder, out: reinterpret(
        folder, model=NAME.replace(FILE, "mine.py"), output=out, tell=quiet
    ),
    "reinterpret, own detector": lambda folder, out: reinterpret(
        folder, detector=data_path("detectors/ship_ecn3.toml"), output=out, tell=quiet
    ),
    "design": lambda folder, out: design(
        folder, "ship_ecn3", DesignRequest(masses=(0.5,), n=1000), output=out, tell=quiet
    ),
}
CHEAP = ("show", "verify", "reinterpret", "reinterpret, own detector", "design")


def keys(record: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield every key of the kept sections that takes the name of Python code, as the schema has it."""
    content = json.loads((record / "steering.json").read_text())
    for section, field in config.Steering.model_fields.items():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        options: Any = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
        for key, entry in getattr(options, "model_fields", {}).items():
            alias = entry.alias or key
            for value in (NAME, [NAME]):
                changed = {**content, section: {**content.get(section, {}), alias: value}}
                if accepted(record, changed):
                    yield section, alias, value
                    break


def accepted(record: Path, content: dict[str, Any]) -> bool:
    """Return whether a record with this steering can be read, and keeps the name."""
    place = record.with_name(f"{record.name}_trial")
    place.mkdir(exist_ok=True)
    (place / "steering.json").write_text(json.dumps(content))
    try:
        return NAME in kept_steering(place).model_dump_json()
    except GammastarError:
        return False


def shared(record: Path, folder: Path, changes: list[tuple[str, str, Any]]) -> Path:
    """Return a copy of a record whose steering names Python code, with digests that fit."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(record, folder)
    content = json.loads((folder / "steering.json").read_text())
    for section, key, value in changes:
        content.setdefault(section, {})[key] = value
    (folder / "steering.json").write_text(json.dumps(content))
    manifest = read_manifest(record)
    manifest["files"]["steering.json"] = file_sha256(folder / "steering.json")
    write_manifest(folder, {key: value for key, value in manifest.items() if key != "digest"})
    return folder


def tried(record: Path, work: Path, names: tuple[str, ...] = tuple(DOORS)) -> Iterator[tuple[str, bool]]:
    """Open such records by every door; yield door with key, and whether the code ran."""
    marker = work / "marker"
    for place in (work, record.parent):
        (place / FILE).write_text(SOURCE.format(marker=str(marker)))
    found = list(keys(record))
    for section, key, value in found:
        folder = shared(record, work / "shared", [(section, key, value)])
        for name in names:
            marker.unlink(missing_ok=True)
            shutil.rmtree(work / "out", ignore_errors=True)
            with contextlib.suppress(GammastarError):
                DOORS[name](folder, work / "out")
            yield f"{name}: [{section}] {key}", marker.exists()


def finished(folder: Path) -> Path:
    """Return the results of the small analysis, from MOCK files."""
    return run(ROOT / "analysis" / "na60_dimuon" / "small.toml", output=folder)
