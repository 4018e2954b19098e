"""The reaches of several runs or detectors in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gammastar import report
from gammastar.core.errors import UserError
from gammastar.core.files import Pathlike
from gammastar.report.style import power_of_ten
from gammastar.results.loaded import Results, load
from gammastar.results.views import DISPLACED, IN_SITU, DetectorReach
from gammastar.store.records import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["overlay", "overlay_files"]

OTHERS = (IN_SITU, DISPLACED)  # drawn on planes of their own
COLUMNS = ("mass", "coupling_low", "coupling_high")


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
    first = chosen[0][1]
    contours = [
        report.Contour(f"{label}, {power_of_ten(reach.about['pot'])} POT", reach.parts[part], "expected")
        for label, reach in chosen
    ]
    options = first.options(limits=limits) | {"mock": any(reach.mock for _, reach in chosen)}
    figure = report.reach_figure(contours, **options)
    figure.axes[0].set_title("", loc="right")  # each has protons on target of its own, in its label
    return figure


def overlay_files(runs: Sequence[Results | Pathlike], *, output: Pathlike, **options: Any) -> list[str]:
    """Write ``overlay.png``, ``.pdf`` and ``.csv`` of `overlay`, which takes `options`; return what is shown.

    Raises
    ------
    UserError
        As `overlay`.
    """
    figure, folder = overlay(runs, **options), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report.save_figure(figure, folder / "overlay")
    part = options.get("part", "all")
    rows = [
        (label, reach.about["pot"], *(row[name] for name in COLUMNS))
        for label, reach in _chosen(runs, options.get("detectors", ()), part)
        for row in reach.rows
        if row["part"] == part
    ]
    columns = dict(zip(("reach", "pot", *COLUMNS), zip(*rows, strict=True), strict=True))
    write_table(
        folder / "overlay.csv",
        {name: ["" if value is None else value for value in values] for name, values in columns.items()},
    )
    return list(dict.fromkeys(row[0] for row in rows))


def _chosen(
    runs: Sequence[Results | Pathlike], detectors: Sequence[str], part: str
) -> list[tuple[str, DetectorReach]]:
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
    return [
        (f"{run.folder.resolve().name}: {label}" if label in twice else label, reach)
        for (run, reach), label in zip(found, labels, strict=True)
    ]


def _detector(reach: DetectorReach) -> str:
    """Return the name of a detector as the run wrote it."""
    return reach.label.partition("reach, ")[2] or reach.name
