"""The look of all figures: one style, one MOCK label.

Figures are built with `matplotlib.figure.Figure` and never registered with pyplot, so that drawing leaves no
state behind and works without a display.
"""

from __future__ import annotations

import functools
import io
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import matplotlib as mpl
import mplhep
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatter,
    LogLocator,
    NullFormatter,
    ScalarFormatter,
)

from gammastar.core import records
from gammastar.core.errors import GammastarError, PhysicsError, require
from gammastar.core.files import plain, shortened, write_whole
from gammastar.core.records import FloatArray

P = ParamSpec("P")
R = TypeVar("R")

# Six colours told apart with any colour vision: M. A. Petroff, arXiv:2107.02270.
COLOURS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd")
GREY = "0.80"
BAND68 = "#7fd37f"  # green and yellow, as limits are drawn in the field, softened so that lines stay visible
BAND95 = "#ffe680"
# so that nothing rests on colour alone
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MASS_DARK = "$m_{A′}$ [GeV]"  # the sign itself: a raised prime is too small in an index

_RC: dict[str, Any] = {
    "figure.figsize": (7.2, 5.6),
    "figure.dpi": 100,
    "font.size": 14,
    "font.sans-serif": ["TeX Gyre Heros", "Helvetica", "Arial", "DejaVu Sans"],
    "mathtext.fontset": "stixsans",
    "mathtext.default": "it",
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.linewidth": 1.2,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": True,
    "legend.fontsize": 12,
    "legend.frameon": True,
    "legend.fancybox": False,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.title_fontsize": 12,
    "lines.linewidth": 1.8,
    "xtick.major.size": 8,
    "xtick.minor.size": 4,
    "ytick.major.size": 8,
    "ytick.minor.size": 4,
    "hatch.linewidth": 0.6,
    "xtick.minor.ndivs": 2,  # every tick costs a millisecond of drawing
    "ytick.minor.ndivs": 2,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "svg.hashsalt": "gammastar",
}


_STYLED: ContextVar[bool] = ContextVar("whether the style is applied", default=False)


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style inside a ``with`` block; the user's own settings come back afterwards."""
    if _STYLED.get():  # by a block around this one
        yield
        return
    with mpl.rc_context():
        parameters: Any = mpl.rcParams
        mpl.rcdefaults()
        parameters.update(mplhep.style.ROOT)
        parameters.update(_RC)
        token = _STYLED.set(True)
        try:
            yield
        finally:
            _STYLED.reset(token)


_SPARED: ContextVar[bool] = ContextVar("whether a figure that fails says why instead", default=False)


@contextmanager
def spared() -> Iterator[None]:
    """Take a `FailedFigure` for each figure that fails in a ``with`` block."""
    token = _SPARED.set(True)
    try:
        with house_style():  # once for all of them
            yield
    finally:
        _SPARED.reset(token)


class FailedFigure(Figure):
    """Empty axes with the reason why there is nothing in them."""

    def __init__(self, reason: str) -> None:
        super().__init__(figsize=(7.2, 5.6), layout="constrained")
        self.reason = reason
        ax = self.subplots()
        ax.set(xticks=[], yticks=[])
        say(ax, "\n".join(textwrap.wrap(f"not drawn: {plain(reason)}", 64)))
        for text in ax.texts:
            text.set_parse_math(False)


def reason_of(error: BaseException) -> str:
    """Return what an error says, in one line; its type where it is not one of ours."""
    text = shortened(" ".join(str(error).split()), 300)
    return text if isinstance(error, GammastarError) else f"{type(error).__name__}: {text}".rstrip(": ")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in the house style, MOCK in its first axes; `spared` has those that fail."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with house_style():
            try:
                figure = cast("Figure", function(*args, **kwargs))
            except Exception as error:
                if not _SPARED.get():
                    raise
                return cast("R", FailedFigure(reason_of(error)))
            given = _GIVEN.get()
            axes = figure.axes if given is None else [given]
            if not any(text.get_gid() == "mock" for ax in axes for text in ax.texts):
                mark_mock(axes[0], bool(kwargs.get("mock")))
            if given is None:
                figure.align_ylabels()
            return cast("R", figure)

    return wrapper


_GIVEN: ContextVar[Axes | None] = ContextVar("axes that a figure is drawn into", default=None)


@contextmanager
def into(ax: Axes) -> Iterator[None]:
    """Draw the figures that are made in a ``with`` block into given axes instead of new ones."""
    token = _GIVEN.set(ax)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def new_figure(
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] = (7.2, 5.6),
    heights: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure that pyplot does not know and its axes."""
    given = _GIVEN.get()
    if given is not None:
        if rows * columns > 1:
            raise PhysicsError(f"this figure has {rows * columns} panels, which one pair of axes cannot hold")
        return cast("Figure", given.figure), np.array([[given]], dtype=object)
    figure, ratios = Figure(figsize=size, layout="constrained"), None if heights is None else list(heights)
    shared: Any = "col" if share_x else False
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=shared, height_ratios=ratios)


def single(size: tuple[float, float] = (7.2, 5.6)) -> tuple[Figure, Axes]:
    """Return a figure as `new_figure`, with one pair of axes."""
    figure, axes = new_figure(size=size)
    return figure, axes[0, 0]


def mark_mock(ax: Axes, mock: bool, *, position: tuple[float, float] = (0.03, 0.96)) -> None:
    """Write MOCK inside the axes if the data are mock data, at a position in parts of them."""
    if not mock:
        return
    x, y = position
    look: dict[str, Any] = {"color": COLOURS[2], "fontweight": "bold", "fontsize": 15, "zorder": 20}
    look |= {"ha": "left" if x < 0.5 else "right", "va": "bottom" if y < 0.5 else "top", "gid": "mock"}
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, "MOCK", transform=ax.transAxes, bbox=box, **look)


def header(figure: Figure, text: str) -> None:
    """Write the conditions (beam, target, protons on target) above the right end of the first axes."""
    with house_style():
        figure.set_layout_engine("constrained")  # again, if it was settled: the text needs room
        figure.axes[0].set_title(text, loc="right", fontsize=13)


def log_mass_axis(ax: Axes) -> None:
    """Make the horizontal axis logarithmic with plain numbers: a mass axis seldom spans two decades."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    digits = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0) if high / low < 10 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=digits))
    ax.xaxis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)), numticks=100))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def steps(ax: Axes, edges: FloatArray, values: FloatArray, **options: Any) -> None:
    """Draw a histogram as steps (or filled, with ``histtype="fill"``)."""
    look = {"edges": False} | options  # no vertical lines at the two ends
    mplhep.histplot(values, bins=edges, ax=ax, yerr=False, flow="none", **look)


def band(ax: Axes, edges: FloatArray, centre: FloatArray, half: FloatArray, **options: Any) -> None:
    """Fill what lies within half a width about the contents of a histogram."""
    look: dict[str, Any] = {"fill": True, "color": COLOURS[0], "alpha": 0.35, "linewidth": 0}
    ax.stairs(centre + half, edges, baseline=centre - half, **(look | options))


def points(ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, **options: Any) -> None:
    """Draw bin contents as points with errors and bars that span the bins."""
    centre = 0.5 * (edges[1:] + edges[:-1])
    style: dict[str, Any] = {"fmt": "o", "color": "black", "markersize": 4, "linewidth": 1.2, "capsize": 0}
    ax.errorbar(centre, values, yerr=errors, xerr=0.5 * np.diff(edges), **(style | options))


def divided(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Return a quotient that is nan where the denominator is not positive."""
    return records.divided(numerator, denominator, np.nan)


def sorted_legend(ax: Axes, key: Callable[[str], Any], **options: Any) -> None:
    """Draw the legend with its entries in the order of a key of their labels."""
    entries = sorted(zip(*ax.get_legend_handles_labels(), strict=True), key=lambda entry: key(entry[1]))
    ax.legend(*zip(*entries, strict=True), **options)


def say(ax: Axes, text: str, *, over: bool = False) -> None:
    """Write in the middle of the axes why there is nothing to be seen, in a box of its own if `over`."""
    box = {"facecolor": "white", "edgecolor": "0.7", "alpha": 0.92} if over else None
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11 if over else 12, "bbox": box}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, zorder=15, **look)


def power_of_ten(value: float) -> str:
    r"""Return a number as mathtext, with two digits at most."""
    require(np.isfinite(value) and value > 0, f"power_of_ten: {value!r} must be positive and finite")
    mantissa, exponent = f"{value:.1e}".split("e")
    factor = "" if mantissa == "1.0" else rf"{mantissa.removesuffix('.0')}\times"
    return rf"${factor}10^{{{int(exponent)}}}$"


def checked(name: str, values: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> FloatArray:
    """Return an array of floats after a check of its shape."""
    array = np.asarray(values, dtype=np.float64)
    if shape is not None and array.shape != shape:
        raise PhysicsError(f"report: {name} has shape {array.shape}, expected {shape}")
    return array


def log_range(ax: Axes, *arrays: FloatArray, decades: float = 6.0, rows: int = 3) -> None:
    """Set a logarithmic axis from below the smallest content on, with room for rows of a legend above."""
    pooled = np.concatenate([array[np.isfinite(array) & (array > 0)] for array in arrays])
    if not pooled.size:
        return
    high = 1.5 * float(pooled.max())
    low = max(0.4 * float(pooled.min()), high * 10.0**-decades)
    free = min(0.06 + 0.06 * rows, 0.6)
    ax.set_yscale("log")
    ax.set_ylim(low, high * (high / low) ** (free / (1.0 - free)))


PNG_LEVEL = 3  # a tenth larger than at 6, in two thirds of the time
_NUMBERS = (ScalarFormatter, LogFormatter, NullFormatter)
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Creator": "gammastar", "Producer": None, "CreationDate": None, "ModDate": None},
    "svg": {"Creator": "gammastar", "Date": None},
}
FORMATS = ("png", *_METADATA)


def settle(figure: Figure, *, dpi: float = 100.0) -> None:
    """Lay a figure out once, the same in all its files."""
    figure.set_dpi(dpi)
    FigureCanvasAgg(figure)  # its sizes of texts serve the PNG as well
    _harmless(figure)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # with "none" each file but PNG is drawn twice


def _harmless(figure: Figure) -> None:
    """Draw names as they are where they hold what matplotlib would take for a formula and cannot read."""
    for text in _texts(figure):
        written = text.get_text()
        if not written:
            continue
        shown = "\n".join(shortened(line) for line in plain(written).split("\n"))
        if shown != written:
            text.set_text(shown)
        if not all(_readable(line) for line in shown.split("\n") if line.count("$") > 1):
            text.set_parse_math(False)


def _texts(artist: Artist) -> Iterator[Text]:
    """Yield the texts of an artist, without the numbers at ticks: to ask for those makes them all."""
    if isinstance(artist, Text):
        yield artist
    numbers = isinstance(artist, Axis) and isinstance(artist.major.formatter, _NUMBERS)
    for child in (artist.label, artist.offsetText) if numbers else artist.get_children():  # type: ignore[attr-defined]
        yield from _texts(child)


@functools.lru_cache(maxsize=1000)
def _readable(line: str) -> bool:
    """Return whether matplotlib can read what stands between the dollar signs of a line."""
    try:
        MathTextParser("path").parse(line)
    except ValueError:
        return False
    return True


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return a figure as PNG (no time stamp, no version: equal figures give equal bytes).

    Parameters
    ----------
    dpi : int
        Dots per inch.
    """
    return drawn(figure, "png", dpi=dpi)


def drawn(figure: Figure, kind: str, *, dpi: int = 150) -> bytes:
    """Return a figure as the content of a file of one of `FORMATS`, without time stamp and version."""
    buffer = io.BytesIO()
    with house_style():  # fonts are looked up while drawing
        settle(figure, dpi=dpi)
        if kind == "png":  # on the canvas of the layout, without a second drawing for the extent
            canvas: Any = figure.canvas
            fast = {"compress_level": PNG_LEVEL}
            canvas.print_png(buffer, metadata={"Software": "gammastar"}, pil_kwargs=fast)
        else:
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return buffer.getvalue()


def save_figure(
    figure: Figure, stem: str | os.PathLike[str], *, dpi: int = 150, formats: Sequence[str] = ("png", "pdf")
) -> tuple[Path, ...]:
    """Write a figure in one or more formats from one layout, each file complete or not at all.

    Parameters
    ----------
    stem : path
        Path without suffix; its folder is made if it is missing.
    dpi : int
        Resolution of the PNG.
    formats : sequence of str
        Of `FORMATS`.
    """
    base = Path(stem)
    contents = {base.with_name(f"{base.name}.{kind}"): drawn(figure, kind, dpi=dpi) for kind in formats}
    for path, content in contents.items():
        write_whole(path, content)
    return tuple(contents)


def files_of(
    figure: Figure, formats: Sequence[str] = ("png",), *, dpi: int = 150
) -> tuple[dict[str, bytes], str]:
    """Return the files of a figure; of one that cannot be drawn those of its reason, and the reason."""
    try:
        return {kind: drawn(figure, kind, dpi=dpi) for kind in formats}, ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the page does without this figure
        failed = FailedFigure(reason_of(error))
        return {kind: drawn(failed, kind, dpi=dpi) for kind in formats}, failed.reason
