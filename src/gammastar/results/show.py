"""What a run found: its numbers as tables, its files verified, several runs side by side."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammastar import report
from gammastar.core.errors import InputFileError, StoreError, UserError
from gammastar.core.files import Pathlike, writes_folder
from gammastar.core.records import MassInterval
from gammastar.pipeline.cache import load_arrays, skipped_input_message
from gammastar.report.pages import masses_reached
from gammastar.report.style import power_of_ten
from gammastar.results.loaded import Results, load
from gammastar.results.views import DISPLACED, IN_SITU, DetectorReach
from gammastar.store.filesets import identity, kind_of
from gammastar.store.folder import of_this_version, published, read_result
from gammastar.store.manifest import (
    MANIFEST,
    digest,
    file_sha256,
    package_digest,
    read_manifest,
    write_table,
    write_text,
)
from gammastar.store.pairs import check_chunks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


REACH = re.compile(r"reach(_[^/]+)?\.json")


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: no manifest.json; is this the result folder of a run?")
    return read_manifest(folder)


def show_results(folder: Path) -> str:
    """Return the numbers of a result folder as text."""
    from gammastar.report.pages import Table, text_table

    manifest = _manifest(folder)
    lines = [f"{folder}" + ("  (MOCK data)" if manifest.get("mock") else "")]
    if not manifest.get("finished"):
        lines.append("this run is not finished")
    if manifest["partial"]:
        lines.append(skipped_input_message(manifest["partial"]))
    for name, value in manifest["numbers"].items():
        lines.append(f"{name}: {value}")
    for file in sorted(name for name in manifest["files"] if REACH.fullmatch(name)):
        content = read_result(folder, file)
        with of_this_version(folder / file):
            label, rows = content["label"], content["rows"]
            flat = [key for key, value in rows[0].items() if not isinstance(value, dict)]
            names = content.get("columns") or flat
            table = {name: ["-" if row[name] is None else row[name] for row in rows] for name in names}
            reached = {
                part: masses_reached([MassInterval(**interval) for interval in intervals])
                for part, intervals in content.get("mass_intervals", {}).items()
            }
        lines += ["", f"{file}: {label}", *(f"{part}: {text}" for part, text in reached.items())]
        lines.append(text_table(Table(table)))
    return "\n".join(lines)


def _inputs(folder: Path, manifest: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, state and SHA-256 of every input; what is behind a URL or no file is not compared."""
    for name, sha in sorted(manifest["inputs"].items()):
        path = folder / name  # an absolute name stands for itself
        if "://" in name or name.startswith("card "):
            yield name, "not compared", sha
        elif not path.is_file():
            yield name, "not here", sha
        else:
            yield name, "ok" if identity(path, kind_of(sha)) == sha else "CHANGED", sha


def _stage(folder: Path, stage: str, entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the state of a kept stage, and which of its files are not what the run wrote."""
    path = folder / "stages" / f"{stage}.npz"
    if not entry["kept"]:
        return "not kept as arrays, recomputed by every run", []
    if not path.is_file():
        return "MISSING", [str(path)]
    arrays = load_arrays(path)
    wrong = [] if digest(arrays) == entry["content"] else [str(path)]
    if not wrong and "stored_parts" in arrays:
        parts = folder / "stages" / ("truth" if stage == "match" else "pairs")
        digests = [file_sha256(part) for part in sorted(parts.glob("part-*.parquet"))]
        wrong += [] if digests == arrays["stored_parts"].tolist() else [str(parts)]
    return f"{'CHANGED' if wrong else 'ok'} {entry['content'][:16]}", wrong


def verify_results(folder: Path) -> Iterator[str]:
    """Check every digest of the manifest, its own first, against the files and the inputs that are there."""
    manifest = _manifest(folder)
    yield f"configuration: {manifest['configuration'][:16] or 'not recorded'}, seed {manifest['seed']}"
    ours = "that of this installation" if manifest["code"] == package_digest() else "another one"
    yield f"code: {manifest['code'][:16]}, {ours}"
    wrong = []
    if manifest["partial"]:
        yield skipped_input_message(manifest["partial"])
    for name, state, sha in _inputs(folder, manifest):
        wrong += [name] if state == "CHANGED" else []
        yield f"input {name}: {state} {sha[:16]}"
    for stage, entry in manifest["stages"].items():
        state, changed = _stage(folder, stage, entry)
        wrong += changed
        yield f"{stage}: {state}"
    n_chunks = check_chunks(folder)
    if n_chunks:
        yield f"chunks: {n_chunks} ok"
    for name, sha in manifest["files"].items():
        path, good = folder / name, False
        with contextlib.suppress(OSError):
            good = file_sha256(path) == sha
        wrong += [] if good else [str(path)]
        yield f"{name}: {'ok' if good else 'CHANGED or missing'} {sha[:16]}"
    strange = [name for name in published(folder) if name not in manifest["files"] | manifest["inputs"]]
    if strange:
        yield f"not of this run: {_told(strange)}"
    if not manifest["finished"]:
        wrong.append("the run is not finished")
    if wrong:
        raise StoreError(f"{folder}: {_told(wrong)}: not what the run wrote; run again")


def _told(names: Sequence[str], limit: int = 8) -> str:
    """Return names as a list that is cut."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


OTHERS = (IN_SITU, DISPLACED)  # drawn on planes of their own
COLUMNS = ("mass", "coupling_low", "coupling_high")


@dataclass(frozen=True)
class _Drawn:
    """A reach of a run, and how it is called among the others."""

    label: str
    run: Results
    reach: DetectorReach


def overlay(
    runs: Sequence[Results | Pathlike],
    *,
    detectors: Sequence[str] = (),
    part: str = "all",
    limits: bool = True,
) -> Figure:
    """Draw the reaches of several runs in one plane of mass and coupling."""
    chosen = _chosen(runs, detectors, part)
    first = chosen[0].reach
    labels = [f"{one.label}, {power_of_ten(one.reach.about['pot'])} POT" for one in chosen]
    reaches = [one.reach.parts[part] for one in chosen]
    contours = [report.Contour(*row, "expected") for row in zip(labels, reaches, strict=True)]
    options = first.options(limits=limits) | {"mock": any(one.reach.mock for one in chosen)}
    figure = report.reach_figure(contours, **options)
    figure.axes[0].set_title("", loc="right")  # each has protons on target of its own, in its label
    return figure


@writes_folder
def overlay_files(
    runs: Sequence[Results | Pathlike],
    *,
    output: Pathlike,
    detectors: Sequence[str] = (),
    part: str = "all",
    limits: bool = True,
) -> list[str]:
    """Write the reaches of several runs as ``overlay`` (PNG, PDF, CSV) and ``explorer.html``."""
    opened, folder = [run if isinstance(run, Results) else load(run) for run in runs], Path(output)
    chosen = _chosen(opened, detectors, part)
    report.save_figure(overlay(opened, detectors=detectors, part=part, limits=limits), folder / "overlay")
    kept = [(one, row) for one in chosen for row in one.reach.rows if row["part"] == part]
    rows = [(one.label, one.reach.about["pot"], *(row[name] for name in COLUMNS)) for one, row in kept]
    cells = [["" if value is None else value for value in column] for column in zip(*rows, strict=True)]
    write_table(folder / "overlay.csv", dict(zip(("reach", "pot", *COLUMNS), cells, strict=True)))
    return [one.label for one in chosen] + _explore(chosen, folder / "explorer.html", limits=limits)


def _explore(chosen: Sequence[_Drawn], path: Path, *, limits: bool) -> list[str]:
    """Write the explorer of all planes that the runs kept; return what it lacks."""
    from gammastar.report.figures.limits import PUBLISHED

    planes: dict[str, report.Plane2D] = {}
    lacking, levels = [], None
    for one in chosen:
        kept, known = one.reach.about["explored"], one.reach.options(limits=limits)["limits"]
        grey = [(name, polygon) for name, polygon, kind, _ in known if kind in PUBLISHED]
        try:
            if kept is None or (levels is not None and kept["cl"] != levels):
                raise InputFileError(f"{one.run.folder}: kept no limits over the plane, or at other CLs")
            signal = one.run.signal[one.reach.name]
            with of_this_version(one.run.folder):
                planes[one.label] = report.Plane2D.of(signal, kept, grey)
                levels = kept["cl"]
        except InputFileError as error:
            lacking.append(f"not in the explorer: {one.label}: {error}")
    if planes and levels is not None:
        mock, labels = any(one.reach.mock for one in chosen), chosen[0].reach.labels.plain_axes
        page = report.explorer("Reaches side by side", planes, cl=levels, mock=mock, labels=labels)
        write_text(path, page)
    return lacking


def _chosen(runs: Sequence[Results | Pathlike], detectors: Sequence[str], part: str) -> list[_Drawn]:
    """Return the reaches that are drawn, each with its label."""
    opened = [run if isinstance(run, Results) else load(run) for run in runs]
    chosen = [
        (run, reach)
        for run in opened
        for name, reach in run.reach.items()
        if (name in detectors if detectors else name not in OTHERS)
    ]
    if not chosen:
        known = "; ".join(f"{run.folder}: {', '.join(run.reach) or 'none'}" for run in opened)
        what = f"of {', '.join(detectors)}" if detectors else "of a detector"
        raise UserError(f"overlay: no reach {what}; there are {known}")
    for run, reach in (pair for pair in chosen if part not in pair[1].parts):
        known = ", ".join(reach.parts)
        raise UserError(f"overlay: {run.folder}: {reach.name} has no contour {part!r}, only {known}")
    for key, what in (("model", "couplings"), ("cl", "confidence levels")):
        values = {str(reach.about[key]): run.folder for run, reach in chosen}
        if len(values) > 1:
            several = " and ".join(map(str, values.values()))
            raise UserError(f"overlay: {several} are of different {what}; draw them apart")
    labels = [reach.detector for _, reach in chosen]
    twice = {label for label in labels if labels.count(label) > 1}
    both = [(run.folder.resolve().name, label) for (run, _), label in zip(chosen, labels, strict=True)]
    named = [f"{folder}: {label}" if label in twice else label for folder, label in both]
    again = {name for name in named if named.count(name) > 1}  # folders of one name
    return [
        _Drawn(f"{run.folder}: {label}" if name in again else name, run, reach)
        for (run, reach), label, name in zip(chosen, labels, named, strict=True)
    ]
