"""The report of a run and the explorer of its plane, each one self-contained HTML page.

The report holds no script and no link to anything outside itself; templates and style lie in ``templates/``.
"""

from __future__ import annotations

import base64
import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from gammastar.core.documents import plain
from gammastar.core.errors import PhysicsError
from gammastar.core.files import write_whole
from gammastar.core.records import FloatArray
from gammastar.core.signal import SignalPlane
from gammastar.report.drawing import png_bytes
from gammastar.report.tables import Table, cells
from gammastar.report.typography import marked_up, typeset

PNG = b"\x89"  # the first byte of such a file


@functools.cache
def _templates() -> jinja2.Environment:
    """Return the templates; whatever stands in for a name in them is escaped, and cannot steer a terminal."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("gammastar.report"),
        autoescape=True,
        finalize=lambda value: (
            plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"set": lambda text: marked_up(plain(str(text))), "flat": typeset}
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A section of the report."""

    heading: str
    paragraphs: Sequence[str] = ()  # Plain text; it is escaped
    figures: Sequence[tuple[str, Figure | bytes]] = ()  # Without a byte: a figure that is still being drawn
    tables: Sequence[Table] = ()
    # What the summary and the provenance of a run take of it
    numbers: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()  # What a reader must know before he takes a number; shown above the text
    notes: Sequence[str] = ()  # Conventions and details, folded
    shown: int = 2  # Figures that stand open; the others are folded, with the tables
    open_tables: bool = False  # Leave the tables open


@dataclass(frozen=True, slots=True, eq=False)
class Lead:
    """With what the page opens."""

    # The section whose first figure stands at the top of the page instead of in its place
    section: int | None = None
    cards: Sequence[tuple[str, str, str]] = ()  # What it is, the value, and what to know about it
    links: Mapping[str, str] = field(default_factory=dict)  # Text and address, beside the page


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where the numbers come from."""

    versions: Mapping[str, str] = field(default_factory=dict)  # Package and version
    digests: Mapping[str, str] = field(default_factory=dict)  # Input or stage and its SHA-256
    methods: Mapping[str, str] = field(default_factory=dict)  # Number and how it was computed
    placeholders: Sequence[str] = ()  # Inputs that stand in for ones that are not at hand
    seeds: Mapping[str, int] = field(default_factory=dict)  # Stage and the seed of its random stream


def page(
    title: str,
    sections: Sequence[Section],
    *,
    mock: bool,
    provenance: Provenance | None = None,
    lead: Lead | None = None,
    dpi: int = 120,
) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    mock : bool
        Put the MOCK banner on top.
    provenance : Provenance, optional
        Written as the last section, folded, with the placeholders at its end.
    lead : Lead, optional
        With what the page opens.
    dpi : int
        Resolution of figures that are not drawn yet.

    Returns
    -------
    str
        One document; equal inputs give equal text.

    Examples
    --------
    >>> "MOCK" in page("Reach", [Section("Result", ["No number yet."])], mock=True)
    True
    """
    source, first = provenance or Provenance(), lead or Lead()
    shown = [_shown(section, dpi) for section in sections]
    flagship = None
    if first.section is not None and shown[first.section]["figures"]:
        flagship = shown[first.section]["figures"].pop(0)
    entries = (
        ("Methods", source.methods, False),
        ("Versions", source.versions, False),
        ("Seeds", {name: str(seed) for name, seed in source.seeds.items()}, False),
        ("Digests (SHA-256)", source.digests, True),
    )
    return (
        _templates()
        .get_template("page.html")
        .render(
            title=title,
            mock=mock,
            source=source,
            sections=shown,
            lead=first,
            flagship=flagship,
            entries_of=[entry for entry in entries if entry[1]],
        )
    )


def _shown(section: Section, dpi: int) -> dict[str, Any]:
    """Return what the template takes of a section: images as base64, tables as cells."""
    drawn = [
        (caption, png_bytes(f, dpi=dpi) if isinstance(f, Figure) else f) for caption, f in section.figures
    ]
    tables = []
    for table in section.tables:
        texts, numeric = cells(table)
        rows = [list(zip(row, numeric, strict=True)) for row in zip(*texts, strict=True)]
        headings = list(zip(table.columns, numeric, strict=True))
        tables.append({"caption": table.caption, "headings": headings, "rows": rows})
    images = [
        (caption, "png" if image[:1] == PNG else "svg+xml", base64.b64encode(image).decode("ascii"))
        for caption, image in drawn
    ]
    return {
        "heading": section.heading,
        "paragraphs": section.paragraphs,
        "warnings": section.warnings,
        "notes": section.notes,
        "figures": images[: section.shown],
        "folded": images[section.shown :],
        "tables": tables if section.open_tables else [],
        "folded_tables": [] if section.open_tables else tables,
    }


def save_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page completely or not at all.

    Parameters
    ----------
    text : str
        From `page`.
    path : path
        Its folder is made if it is missing.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    target = Path(path)
    write_whole(target, text.encode("utf-8"))
    return target


def skipped_input(partial: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return the table of what was left out of the input by stage, if anything was."""
    rows = [entry for lost in partial.values() for entry in lost["skipped"]]
    if not rows:
        return []
    columns = {
        "file": [str(row.get("file", "")) for row in rows],
        "entries": [str(row.get("entries", "")) for row in rows],
        "why": [str(row.get("why", ""))[:300] for row in rows],
    }
    return [Table(columns, caption="Skipped input")]


def table_of_checks(checks: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the table of the checks before the spectrum, those that fail first."""
    order = sorted(checks, key=lambda row: row["verdict"] == "ok")
    names = ("name", "number", "threshold", "verdict", "cure")
    columns = {name: [str(row[name]) for row in order] for name in names}
    return [Table(columns, caption="Checks before the spectrum")] if order else []


def short_names(inputs: Mapping[str, str]) -> dict[str, str]:
    """Return inputs under the last part of their names, those of one such part under their full names."""
    last = Counter(name.rpartition("/")[2] for name in inputs)
    short = {name: name.rpartition("/")[2] for name in inputs}
    return {short[name] if last[short[name]] == 1 else name: sha for name, sha in inputs.items()}


def titled(name: str, caption: str, figure: Any) -> tuple[str, Any]:
    """Return caption and figure of a report section; `name` becomes the name of the file."""
    figure.set_label(name)
    return caption, figure


@dataclass(frozen=True, slots=True, eq=False)
class Plane2D:
    """Expected events of one detector over the plane."""

    mass: FloatArray  # Increasing [GeV], shape (n,)
    coupling: FloatArray  # Equidistant in the logarithm, shape (k,)
    signal: FloatArray  # Expected events, shape (n, k)
    # Their part from where dileptons were measured; None for theory, which measured nothing, shape (n, k)
    in_domain_signal: FloatArray | None
    # Expected limit on the signal for each confidence level; an array where it changes along the plane,
    # shape (n, k)
    limit: Sequence[float | FloatArray]
    # What others exclude: polygons (mass [GeV], coupling), grey, shape (n, 2))
    excluded: Sequence[tuple[str, FloatArray]] = ()

    @classmethod
    def of(
        cls,
        plane: SignalPlane,
        explored: Mapping[str, Any],
        excluded: Sequence[tuple[str, FloatArray]] = (),
    ) -> Plane2D:
        """Return the plane of a signal with the limits that its run kept.

        Parameters
        ----------
        explored : mapping
            "limit": one per confidence level, each a number or rows of shape (n, k); "measured": False for
            theory.
        excluded : sequence of (label, NDArray of shape (n, 2))
        """
        inside = np.broadcast_to(plane.in_domain, plane.signal.shape) if explored["measured"] else None
        limits = [np.asarray(x, dtype=np.float64) if np.ndim(x) else float(x) for x in explored["limit"]]
        return cls(plane.mass, plane.coupling, plane.signal, inside, limits, excluded)

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.coupling))
        for name in ("signal", "in_domain_signal"):
            found = np.shape(getattr(self, name))
            if found != shape and not (name == "in_domain_signal" and self.in_domain_signal is None):
                raise PhysicsError(f"Plane2D.{name} has shape {found}, expected {shape}")
        for limit in self.limit:
            if np.shape(limit) not in {(), shape}:
                raise PhysicsError(f"Plane2D.limit has shape {np.shape(limit)}, expected a number or {shape}")


def _content(plane: Plane2D) -> dict[str, Any]:
    positive = plane.signal > 0
    log = np.log10(np.where(positive, plane.signal, 1.0)).round(3)
    measured = plane.in_domain_signal
    return {
        "mass": plane.mass.round(6).tolist(),
        "coupling": plane.coupling.tolist(),
        "log_signal": [
            [value if known else None for value, known in zip(row, mask, strict=True)]
            for row, mask in zip(log.tolist(), positive.tolist(), strict=True)
        ],
        "fraction": None if measured is None else _fraction(measured, plane.signal).tolist(),
        "excluded": [[name, _rounded(corners)] for name, corners in plane.excluded],
        "limit": [x if np.ndim(x) == 0 else np.round(x, 4).tolist() for x in plane.limit],
    }


def _fraction(part: FloatArray, signal: FloatArray) -> FloatArray:
    result: FloatArray = np.divide(part, signal, out=np.zeros_like(signal), where=signal > 0).round(4)
    return result


def _rounded(corners: FloatArray) -> list[list[float]]:
    return [[float(f"{x:.4g}") for x in corner] for corner in np.asarray(corners).tolist()]


def explorer(
    title: str,
    planes: Mapping[str, Plane2D],
    *,
    cl: Sequence[float],
    mock: bool,
    labels: tuple[str, str] = ("m(A′) [GeV]", "ε"),
    back: str = "",
) -> str:
    """Return the HTML of the plane: events, limit and measured fraction at the pointer; switches.

    Several detectors, or runs, stand in one page: one is chosen, the contours of the others are dashed.

    Parameters
    ----------
    cl : sequence of float
        Confidence levels of the limits.
    mock : bool
        Put MOCK on the page and into the plane.
    labels : tuple of str
        Of mass and coupling.
    back : str
        Address of the report, for a link.

    Raises
    ------
    PhysicsError
        If there is no plane, or a plane has not one limit per confidence level.
    """
    if not planes:
        raise PhysicsError("explorer: no plane is given")
    for name, plane in planes.items():
        if len(plane.limit) != len(cl):
            raise PhysicsError(
                f"explorer: {name!r} has {len(plane.limit)} limits for {len(cl)} confidence levels"
            )
    data = {
        "mock": mock,
        "cl": list(cl),
        "mass_label": labels[0],
        "mass_name": labels[0].split(" ")[0],
        "coupling_label": labels[1],
        "detectors": {name: _content(plane) for name, plane in planes.items()},
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _templates().get_template("explorer.html").render(title=title, mock=mock, data=text, back=back)
