"""Figures as bytes and as files."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from gammastar.core.whole import write_whole
from gammastar.report.style import house_style, settle

__all__ = ["png_bytes", "save_figure"]


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return a figure as PNG (no time stamp, no version: equal figures give equal bytes)."""
    return _rendered(figure, "png", dpi=dpi, metadata={"Software": None})


def save_figure(figure: Figure, stem: str | os.PathLike[str], *, dpi: int = 150) -> tuple[Path, Path]:
    """Write a figure as PNG and PDF, each complete or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    stem : path
        Path without suffix; its folder is made if it is missing.
    dpi : int
        Resolution of the PNG.

    Returns
    -------
    png, pdf : Path

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    base = Path(stem)
    pdf_metadata = {"Creator": "gammastar", "Producer": None, "CreationDate": None, "ModDate": None}
    contents = {
        ".png": png_bytes(figure, dpi=dpi),
        ".pdf": _rendered(figure, "pdf", dpi=dpi, metadata=pdf_metadata),
    }
    paths = []
    for suffix, content in contents.items():
        path = base.with_name(base.name + suffix)
        write_whole(path, content)
        paths.append(path)
    return paths[0], paths[1]


def _rendered(figure: Figure, kind: str, *, dpi: int, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    with house_style():  # fonts are looked up while drawing
        settle(figure)
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
