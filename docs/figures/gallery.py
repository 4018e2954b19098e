"""Make the small pictures of docs/gallery.md and docs/tutorial.md from the figures of runs.

``python3 docs/figures/gallery.py results/na60_dimuon [FOLDER]``; the runs and their figures stay as they are.
FOLDER is where the tutorial was followed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

import gammastar as gs
from gammastar.report import save_figure

HERE = Path(__file__).parent
WIDTH, COLOURS = 560, 160  # pixels; of the palette
KINDS = {
    **{name: name for name in ("mass_spectra", "migration", "efficiency", "regularisation")},
    **{name: name for name in ("unfolded_spectrum", "refolded", "correlations", "domain")},
    **{name: name for name in ("flow_projections", "flow_plane", "flow_divergence", "flow_training")},
    "rate": "rate",
    **{name: f"{name}_shadows_like" for name in ("acceptance", "limit", "impacts", "reach")},
    "domain_of_a_detector": "domain_shadows_like",
    "projections": "projections_na62_dump",
    **{name: name for name in ("in_situ_pairs", "reach_in_situ", "reach_displaced")},
}
"""Picture of the gallery, and the figure of the run that it shows."""

OTHERS = {
    "tutorial_overlay": "overlay/overlay.png",
    "tutorial_pairs": "results/mine/figures/mass_spectra.png",
    "tutorial_reach": "results/mine/figures/reach_detector.png",
}


def small(image: Image.Image) -> Image.Image:
    """Return an image of the gallery's width with a palette, which keeps the files small."""
    scaled = image.convert("RGB").resize(
        (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )
    return scaled.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def drawn(run: Path, folder: Path) -> list[Path]:
    """Draw what a loaded run draws and a report does not; return the files."""
    found = gs.load(run)
    save_figure(found.flow.plot().figure, folder / "kinematics")
    return [folder / "kinematics.png"]


def main(run: Path, folder: Path | None = None) -> None:
    """Write every picture; a figure that is missing is named, and its picture is kept."""
    (HERE / "gallery").mkdir(exist_ok=True)
    paths = {name: run / "figures" / f"{figure}.png" for name, figure in KINDS.items()}
    if folder is not None:
        paths |= {name: folder / figure for name, figure in OTHERS.items()}
    with tempfile.TemporaryDirectory() as drawings:
        paths |= {path.stem: path for path in drawn(run, Path(drawings))}
        for name, path in paths.items():
            if not path.is_file():
                print(f"{path}: not there, {name}.png is kept")
                continue
            with Image.open(path) as image:
                small(image).save(HERE / "gallery" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
