"""Figures as files: one layout for all formats, several figures at a time."""

from __future__ import annotations

import functools
import gc
import io
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, NullFormatter, NullLocator, ScalarFormatter

from gammastar.core.files import plain, shortened, write_whole
from gammastar.report.style import FailedFigure, house_style, reason_of

FEW = 8  # figures that are not worth another process: each draws every sign of the letters anew
PNG_LEVEL = 3  # a tenth larger than at 6, in two thirds of the time
_NUMBERS = (ScalarFormatter, LogFormatter, NullFormatter)
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Creator": "gammastar", "Producer": None, "CreationDate": None, "ModDate": None},
    "svg": {"Creator": "gammastar", "Date": None},
}
FORMATS = ("png", *_METADATA)


def settle(figure: Figure, *, dpi: float = 100.0) -> None:
    """Lay a figure out once and keep the layout, so that it is the same in all its files.

    Minor ticks have no room of their own: the layout leaves them out, which takes half of its time.
    """
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)  # its sizes of texts serve the PNG as well
    canvas.get_renderer().mathtext_parser = _formulae()
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    for axis in axes:
        if type(axis.major.formatter) is ScalarFormatter:
            axis.set_major_formatter(_PlainNumbers())
    minor = [axis.minor.locator for axis in axes]
    for axis in axes:
        axis.minor.locator = NullLocator()
    _harmless(figure)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)  # with "none" each file but PNG is drawn twice
    for axis, locator in zip(axes, minor, strict=True):
        axis.minor.locator = locator  # type: ignore[assignment]


class _PlainNumbers(ScalarFormatter):
    """Numbers at ticks as text instead of formulae, which take longer; the factor at the end stays one."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return super().__call__(x, pos).removeprefix(r"$\mathdefault{").removesuffix("}$")


@functools.lru_cache(maxsize=1)
def _formulae() -> Any:
    """Return one reader of formulae for all figures: what one has laid out serves the others."""
    canvas: Any = FigureCanvasAgg(Figure())
    return canvas.get_renderer().mathtext_parser


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
            canvas.print_png(
                buffer, metadata={"Software": "gammastar"}, pil_kwargs={"compress_level": PNG_LEVEL}
            )
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


def draw_all(
    figures: Sequence[Figure], formats: Sequence[str] = ("png",), *, dpi: int = 150
) -> Iterator[tuple[int, Mapping[str, bytes], str]]:
    """Draw figures in processes beside this one.

    Notes
    -----
    The processes are copies of this one that draw and end, so that a figure need not be packed. Where the
    system makes no copies, or with few figures or one core, all are drawn here.
    """
    left = dict(enumerate(figures))
    workers = min(_cores(), len(left))
    if len(left) > FEW and workers > 1 and sys.platform == "linux":
        try:
            for index, files, reason in _elsewhere(figures, formats, dpi, workers):
                del left[index]
                yield index, files, reason
        except BrokenProcessPool:  # one was killed; what it had in hand is drawn here
            pass
    for index, figure in left.items():
        yield index, *_files(figure, formats, dpi)


def _files(figure: Figure, formats: Sequence[str], dpi: int) -> tuple[dict[str, bytes], str]:
    """Return the files of a figure, or of one that says why it failed, and the reason."""
    try:
        return {kind: drawn(figure, kind, dpi=dpi) for kind in formats}, ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the page does without this figure
        failed = FailedFigure(reason_of(error))
        return {kind: drawn(failed, kind, dpi=dpi) for kind in formats}, failed.reason


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Inherited:
    """What a drawing process takes over from the one that it is a copy of."""

    figures: Sequence[Figure] = ()


def _inherit(figures: Sequence[Figure]) -> None:
    gc.freeze()  # what was there before need not be searched for garbage again
    _Inherited.figures = figures


def _draw_inherited(index: int, formats: Sequence[str], dpi: int) -> tuple[dict[str, bytes], str]:
    return _files(_Inherited.figures[index], formats, dpi)


def _elsewhere(
    figures: Sequence[Figure], formats: Sequence[str], dpi: int, workers: int
) -> Iterator[tuple[int, dict[str, bytes], str]]:
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: a copy does nothing but draw
        with ProcessPoolExecutor(workers, context, _inherit, (figures,)) as pool:
            asked: dict[Future[tuple[dict[str, bytes], str]], int] = {
                pool.submit(_draw_inherited, index, tuple(formats), dpi): index
                for index in range(len(figures))
            }
            for future in as_completed(asked):
                yield asked[future], *future.result()
