"""The reaches of several runs: one figure, one table, one page to explore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gammastar import report
from gammastar.core.errors import InputFileError, UserError
from gammastar.core.files import Pathlike
from gammastar.report.style import power_of_ten
from gammastar.results.loaded import Results, load
from gammastar.results.views import DISPLACED, IN_SITU, DetectorReach
from gammastar.store.manifest import write_text
from gammastar.store.records import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlay", "overlay_files"]

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
    """Draw the reaches of several runs in one plane of mass and coupling.

    Parameters
    ----------
    runs : sequence of Results or path
        Each with all its detectors.
    detectors : sequence of str
        Only these, by the stems of their files.
    part : str
        Contour of each: "all", "measured domain", "discovery, 5 sigma", … .
    limits : bool
        Draw published limits in grey.

    Raises
    ------
    UserError
        If there is nothing to draw, or the runs are of couplings or confidence levels that one figure cannot
        show.
    """
    chosen = _chosen(runs, detectors, part)
    first = chosen[0].reach
    contours = [
        report.Contour(
            f"{one.label}, {power_of_ten(one.reach.about['pot'])} POT", one.reach.parts[part], "expected"
        )
        for one in chosen
    ]
    options = first.options(limits=limits) | {"mock": any(one.reach.mock for one in chosen)}
    figure = report.reach_figure(contours, **options)
    figure.axes[0].set_title("", loc="right")  # each has protons on target of its own, in its label
    return figure


def overlay_files(
    runs: Sequence[Results | Pathlike],
    *,
    output: Pathlike,
    detectors: Sequence[str] = (),
    part: str = "all",
    limits: bool = True,
) -> list[str]:
    """Write the reaches of several runs as ``overlay.png``, ``.pdf`` and ``.csv`` and as ``explorer.html``.

    Parameters
    ----------
    runs, detectors, part, limits
        As in `overlay`.
    output : path
        Folder of the files.

    Returns
    -------
    list of str
        What is shown, one line each; then what the explorer lacks and why.

    Raises
    ------
    UserError
        As `overlay`.
    """
    opened = [run if isinstance(run, Results) else load(run) for run in runs]
    chosen, folder = _chosen(opened, detectors, part), Path(output)
    figure = overlay(opened, detectors=detectors, part=part, limits=limits)
    folder.mkdir(parents=True, exist_ok=True)
    report.save_figure(figure, folder / "overlay")
    rows = [
        (one.label, one.reach.about["pot"], *(row[name] for name in COLUMNS))
        for one in chosen
        for row in one.reach.rows
        if row["part"] == part
    ]
    columns = dict(zip(("reach", "pot", *COLUMNS), zip(*rows, strict=True), strict=True))
    write_table(
        folder / "overlay.csv",
        {name: ["" if value is None else value for value in values] for name, values in columns.items()},
    )
    return [one.label for one in chosen] + _explore(chosen, folder / "explorer.html", limits=limits)


def _explore(chosen: Sequence[_Drawn], path: Path, *, limits: bool) -> list[str]:
    """Write the explorer of all planes that the runs kept; return what it lacks."""
    planes: dict[str, report.Plane2D] = {}
    lacking, levels = [], None
    for one in chosen:
        kept, grey = one.reach.about["explored"], one.reach.options(limits=limits)["limits"]
        try:
            if kept is None or (levels is not None and kept["cl"] != levels):
                msg = f"{one.run.folder}: kept no limits over the plane, or at other confidence levels"
                raise InputFileError(msg)
            planes[one.label] = report.Plane2D.of(one.run.signal[one.reach.name], kept, grey)
            levels = kept["cl"]
        except InputFileError as error:
            lacking.append(f"not in the explorer: {one.label}: {error}")
    if planes and levels is not None:
        page = report.explorer(
            "Reaches side by side",
            planes,
            cl=levels,
            mock=any(one.reach.mock for one in chosen),
            labels=chosen[0].reach.labels.plain_axes,
        )
        write_text(path, page)
    return lacking


def _chosen(runs: Sequence[Results | Pathlike], detectors: Sequence[str], part: str) -> list[_Drawn]:
    """Return the reaches that are drawn, each with its label."""
    opened = [run if isinstance(run, Results) else load(run) for run in runs]
    found = [
        (run, reach)
        for run in opened
        for name, reach in run.reach.items()
        if (name in detectors if detectors else name not in OTHERS)
    ]
    if not found:
        known = "; ".join(f"{run.folder}: {', '.join(run.reach) or 'none'}" for run in opened)
        what = f"of {', '.join(detectors)}" if detectors else "of a detector"
        msg = f"overlay: no reach {what}; there are {known}"
        raise UserError(msg)
    without = [(run, reach) for run, reach in found if part not in reach.parts]
    if without:
        run, reach = without[0]
        msg = f"overlay: {run.folder}: {reach.name} has no contour {part!r}, only {', '.join(reach.parts)}"
        raise UserError(msg)
    for key, what in (("model", "couplings"), ("cl", "confidence levels")):
        values = {str(reach.about[key]): run.folder for run, reach in found}
        if len(values) > 1:
            msg = (
                f"overlay: {' and '.join(map(str, values.values()))} are of different {what}; draw them apart"
            )
            raise UserError(msg)
    labels = [_detector(reach) for _, reach in found]
    twice = {label for label in labels if labels.count(label) > 1}
    named = [
        f"{run.folder.resolve().name}: {label}" if label in twice else label
        for (run, _), label in zip(found, labels, strict=True)
    ]
    again = {name for name in named if named.count(name) > 1}  # folders of one name
    return [
        _Drawn(f"{run.folder}: {label}" if name in again else name, run, reach)
        for (run, reach), label, name in zip(found, labels, named, strict=True)
    ]


def _detector(reach: DetectorReach) -> str:
    """Return the name of a detector as the run wrote it."""
    return reach.label.partition("reach, ")[2] or reach.name
