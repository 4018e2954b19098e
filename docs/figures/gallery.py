"""Make the small pictures of docs/gallery.md from the figures of a run.

``python3 docs/figures/gallery.py results/na60_dimuon``; the run and its figures stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, COLOURS = 560, 64  # pixels; of the palette
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


def small(image: Image.Image) -> Image.Image:
    """Return an image of the gallery's width with a palette, which keeps the files small."""
    scaled = image.convert("RGB").resize(
        (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )
    return scaled.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def main(run: Path) -> None:
    """Write every picture; a figure that the run lacks is named."""
    (HERE / "gallery").mkdir(exist_ok=True)
    for name, figure in KINDS.items():
        path = run / "figures" / f"{figure}.png"
        if path.is_file():
            with Image.open(path) as image:
                small(image).save(HERE / "gallery" / f"{name}.png", optimize=True)
        else:
            print(f"{path}: not there, {name}.png is kept")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
