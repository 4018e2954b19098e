"""The report of a run and the explorer of its plane, each one self-contained HTML page.

The report holds no script and no link to anything outside itself; templates and style lie in ``templates/``.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from gammastar.core.errors import PhysicsError, require
from gammastar.core.files import plain
from gammastar.core.records import FloatArray, MassInterval
from gammastar.core.signal import SignalPlane
from gammastar.report.style import checked, png_bytes

MOST = 8  # intervals of mass that a sentence names
Column = Sequence[object] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table: columns of equal length under a caption."""

    # Heading (with the unit) and entries of each column; columns have equal lengths
    columns: Mapping[str, Column]
    caption: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise PhysicsError(f"Table {self.caption!r}: the columns have different lengths {lengths}")


def _entry(value: object) -> str:
    """Return an entry as text: four digits for numbers, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if np.isnan(number):
            return "–"
        # whole numbers of events stay readable; 1e+04 would not be
        return f"{number:.0f}" if 1e3 <= abs(number) < 1e7 else f"{number:.4g}"
    return str(value)


def cells(table: Table) -> tuple[list[list[str]], list[bool]]:
    """Return the columns as text and which of them hold numbers."""
    texts = [[_entry(value) for value in column] for column in table.columns.values()]
    kinds, every = (int, float, np.number), table.columns.values()
    numeric = [all(value is None or isinstance(value, kinds) for value in column) for column in every]
    return texts, numeric


def text_table(table: Table) -> str:
    """Return a table as aligned text.

    Examples
    --------
    >>> print(text_table(Table({"mass [GeV]": [0.5, 1.0], "island": ["a", "b"]})))
    mass [GeV]  island
    ----------  ------
           0.5  a
             1  b
    """
    texts, numeric = cells(table)
    names = list(table.columns)
    widths = [max(map(len, [name, *column])) for name, column in zip(names, texts, strict=True)]
    heading = "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)).rstrip()
    lines = [heading, "  ".join("-" * width for width in widths)]
    for row in zip(*texts, strict=True):
        columns = zip(row, widths, numeric, strict=True)
        line = [cell.rjust(width) if number else cell.ljust(width) for cell, width, number in columns]
        lines.append("  ".join(line).rstrip())
    return "\n".join([table.caption, *lines] if table.caption else lines)


def masses_reached(intervals: Sequence[MassInterval]) -> str:
    """Return every interval of masses in which anything is reached, with its ends, as words."""
    if not intervals:
        return "nothing is reached"
    lows = [_end(i.low, i.low_coupling, i.low_closed) for i in intervals[:MOST]]
    highs = [_end(i.high, i.high_coupling, i.high_closed) for i in intervals[:MOST]]
    named = [f"from {low} to {high}" for low, high in zip(lows, highs, strict=True)]
    more = len(intervals) - MOST
    return "reached " + "; ".join(named) + (f" … and {more} more intervals" if more > 0 else "")


def _end(mass: float, coupling: float, closed: bool) -> str:
    return f"{mass:.3f} GeV ({f'tip at coupling {coupling:.2g}' if closed else 'clipped, the scan ends'})"


PNG = b"\x89"  # the first byte of such a file
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORDS = (
    (re.compile(r"\bchi2\b"), "χ²"),
    (re.compile(r"(?<!\S)\+-(?!\S)"), "+−"),
    (re.compile(r"(?<!\S)--(?=[\s).,]|$)"), "−−"),
    (re.compile(r"\bm_mu\b"), "m_μ"),
    (re.compile(r"\bmT\b"), "m_T"),
    (re.compile(r"\bepsilon\b"), "ε"),
    (re.compile(r"\bkappa\b"), "κ"),
    (re.compile(r"(?<=\d )sigma\b"), "σ"),
    (re.compile(r"(?<![\w.)\]])-(?=\d)"), "−"),
)
_POWER = re.compile(r"(?<![\w.])([−-]?\d+(?:\.\d+)?)e([+-]?\d{1,3})(?!\w)")
_INDEX = re.compile(r"\b([mqpE])_(μ|T|\w)(?!\w)")
_EXPONENT = re.compile(r"\^(-?\d+(?:\.\d+)?)")
_TOGETHER = re.compile(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=[×±%σ]|[GMk]eV\b)|(?<=[×±]) (?=\d)")
_COUNT = re.compile(r"(?<![\w.,/:=+−-])\d{5,}(?= [a-z+−])")  # in front of what is counted
NO_BREAK, THIN = "\u00a0", "\u2009"


def _power(match: re.Match[str]) -> str:
    power = f"10{str(int(match[2])).translate(_RAISED)}"
    return power if float(match[1].replace("−", "-")) == 1 else f"{match[1]} × {power}"


def powers(text: str) -> str:
    """Return a text whose numbers like 3e-7 are powers of ten."""
    return _POWER.sub(_power, text)


def typeset(text: str) -> str:
    """Return a text with the signs of a paper; names of files and options stay as they are."""
    for pattern, sign in _WORDS:
        text = pattern.sub(sign, text)
    return powers(text)


@functools.lru_cache(4096)
def marked_up(text: object) -> Markup:
    r"""Return a typeset text as HTML, escaped: indices, exponents, unbroken units, digits in threes."""
    flat = _COUNT.sub(lambda count: f"{int(count[0]):,}".replace(",", THIN), typeset(str(text)))
    safe = str(escape(_TOGETHER.sub(NO_BREAK, flat)))
    safe = _INDEX.sub(r"<i>\1</i><sub>\2</sub>", safe)
    return Markup(_EXPONENT.sub(r"<sup>\1</sup>", safe))  # noqa: S704 - it was escaped before


@functools.cache
def _templates() -> jinja2.Environment:
    """Return the templates; whatever stands in for a name in them is escaped, and cannot steer a terminal."""

    def harmless(value: object) -> object:
        return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    html = jinja2.Environment(
        loader=jinja2.PackageLoader("gammastar.report"),
        autoescape=True,
        finalize=harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    html.filters |= {"set": lambda text: marked_up(plain(str(text))), "flat": typeset}
    return html


@functools.cache
def _sentences() -> Any:
    plain_text = jinja2.Environment(  # noqa: S701 - escaped where it stands in a page
        loader=jinja2.PackageLoader("gammastar.report"), undefined=jinja2.StrictUndefined
    )
    plain_text.filters["g"] = lambda x, digits: f"{x:.{digits}g}"
    plain_text.filters["f"] = lambda x, decimals: f"{x:.{decimals}f}"
    return plain_text.get_template("words.txt").module


def words(name: str, /, **values: Any) -> str:
    """Return the sentences of a name in ``templates/words.txt`` with these values."""
    return " ".join(str(getattr(_sentences(), name)(**values)).split())


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
    seeds = {name: str(seed) for name, seed in source.seeds.items()}
    entries = [("Methods", source.methods, False), ("Versions", source.versions, False)]
    entries += [("Seeds", seeds, False), ("Digests (SHA-256)", source.digests, True)]
    known = {"title": title, "mock": mock, "source": source, "sections": shown, "lead": first}
    entries = [entry for entry in entries if entry[1]]
    return _templates().get_template("page.html").render(**known, flagship=flagship, entries_of=entries)


def _shown(section: Section, dpi: int) -> dict[str, Any]:
    """Return what the template takes of a section: images as base64, tables as cells."""
    tables, images = [], []
    for table in section.tables:
        texts, numeric = cells(table)
        rows = [list(zip(row, numeric, strict=True)) for row in zip(*texts, strict=True)]
        headings = list(zip(table.columns, numeric, strict=True))
        tables.append({"caption": table.caption, "headings": headings, "rows": rows})
    for caption, figure in section.figures:
        image = png_bytes(figure, dpi=dpi) if isinstance(figure, Figure) else figure
        kind = "png" if image[:1] == PNG else "svg+xml"
        images.append((caption, kind, base64.b64encode(image).decode("ascii")))
    names = ("heading", "paragraphs", "warnings", "notes")
    return {
        **{name: getattr(section, name) for name in names},
        "figures": images[: section.shown],
        "folded": images[section.shown :],
        "tables": tables if section.open_tables else [],
        "folded_tables": [] if section.open_tables else tables,
    }


def skipped_input(partial: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Return the table of what was left out of the input by stage, if anything was."""
    rows = [entry for lost in partial.values() for entry in lost["skipped"]]
    names = ("file", "entries", "why")
    columns = {name: [str(row.get(name, ""))[:300] for row in rows] for name in names}
    return [Table(columns, caption="Skipped input")] if rows else []


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
        cls, plane: SignalPlane, explored: Mapping[str, Any], excluded: Sequence[tuple[str, FloatArray]] = ()
    ) -> Plane2D:
        """Return the plane of a signal with the limits that its run kept."""
        inside = np.broadcast_to(plane.in_domain, plane.signal.shape) if explored["measured"] else None
        limits = [np.asarray(x, dtype=np.float64) if np.ndim(x) else float(x) for x in explored["limit"]]
        return cls(plane.mass, plane.coupling, plane.signal, inside, limits, excluded)

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.coupling))
        for name in ("signal", "in_domain_signal"):
            if (values := getattr(self, name)) is not None:
                checked(f"Plane2D.{name}", values, shape)
        for limit in self.limit:
            text = f"Plane2D.limit has shape {np.shape(limit)}, expected a number or {shape}"
            require(np.shape(limit) in {(), shape}, text)


def _content(plane: Plane2D) -> dict[str, Any]:
    signal, measured = plane.signal, plane.in_domain_signal
    positive = signal > 0
    log = np.log10(np.where(positive, signal, 1.0)).round(3).astype(object)
    log[~positive] = None
    part = None
    if measured is not None:
        part = np.divide(measured, signal, out=np.zeros_like(signal), where=positive).round(4).tolist()
    return {
        "mass": plane.mass.round(6).tolist(),
        "coupling": plane.coupling.tolist(),
        "log_signal": log.tolist(),
        "fraction": part,
        "excluded": [
            [name, [[float(f"{x:.4g}") for x in corner] for corner in np.asarray(corners).tolist()]]
            for name, corners in plane.excluded
        ],
        "limit": [x if np.ndim(x) == 0 else np.round(x, 4).tolist() for x in plane.limit],
    }


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
    require(planes, "explorer: no plane is given")
    for name, plane in planes.items():
        n, levels = len(plane.limit), len(cl)
        require(n == levels, f"explorer: {name!r} has {n} limits for {levels} confidence levels")
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
