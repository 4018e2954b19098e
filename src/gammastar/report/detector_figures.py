"""A sketch of the detector in the plane of z and x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.records import FloatArray
from gammastar.report.style import COLOURS, LINES, checked, mark_mock, new_figure, styled

__all__ = ["cone_outline", "detector_figure"]


def cone_outline(theta_min: float, theta_max: float, z_min: float, z_max: float) -> list[FloatArray]:
    """Return the outlines, in the plane of z and x, of a volume between two cones around the beam.

    Parameters
    ----------
    theta_min, theta_max : float [rad]
    z_min, z_max : float [m]

    Returns
    -------
    list of NDArray, shape (4, 2) [m]
        One outline if `theta_min` is zero, else one above and one below the beam.

    Examples
    --------
    >>> len(cone_outline(0.035, 0.120, 5.0, 10.0))
    2
    """
    inner, outer = np.tan(theta_min), np.tan(theta_max)
    if theta_min == 0:
        return [
            np.array(
                [
                    (z_min, -z_min * outer),
                    (z_max, -z_max * outer),
                    (z_max, z_max * outer),
                    (z_min, z_min * outer),
                ]
            )
        ]
    corners = np.array(
        [(z_min, z_min * inner), (z_max, z_max * inner), (z_max, z_max * outer), (z_min, z_min * outer)]
    )
    return [corners, corners * np.array([1.0, -1.0])]


@styled
def detector_figure(
    volumes: Mapping[str, Sequence[FloatArray]],
    *,
    mock: bool,
    planes: Mapping[str, tuple[float, float, float]] | None = None,
    rays: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """Draw the detector in the plane of z (along the beam) and x.

    Parameters
    ----------
    volumes : mapping of label to sequence of NDArray, shape (n, 2) [m]
        Outlines (z, x) of the target, the shield, the decay volume.
    mock : bool
    planes : mapping of label to (z, x_low, x_high) [m], optional
        Tracking planes and calorimeters.
    rays : sequence of float [rad], optional
        Angles to the beam drawn as lines from the origin.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The two axes have different scales: detectors are long and thin.
    """
    figure, axes = new_figure(size=(8.6, 4.4))
    ax = axes[0, 0]
    for index, (label, outlines) in enumerate(volumes.items()):
        colour = COLOURS[index % len(COLOURS)]
        for k, vertices in enumerate(outlines):
            polygon = checked(f"outline of {label!r}", vertices, (len(vertices), 2))
            ax.fill(
                *polygon.T,
                facecolor=colour,
                alpha=0.35,
                edgecolor=colour,
                linewidth=1.2,
                label=label if k == 0 else None,
            )
    for (label, (z, low, high)), line in zip((planes or {}).items(), LINES * 8, strict=False):
        ax.plot([z, z], [low, high], color="black", linewidth=2.2, linestyle=line, label=label)
    ax.margins(x=0.04, y=0.12)
    ax.autoscale_view()
    frame = (ax.get_xlim(), ax.get_ylim())
    for theta in rays:
        ax.plot([0, frame[0][1]], [0, frame[0][1] * np.tan(theta)], color="0.4", linestyle=":", linewidth=1.0)
    ax.axhline(0.0, color="0.4", linestyle=(0, (8, 4, 1, 4)), linewidth=0.9, zorder=0)
    ax.set(xlim=frame[0], ylim=frame[1], xlabel=r"$z$ [m]", ylabel=r"$x$ [m]", title=title)
    figure.legend(loc="outside right upper")
    mark_mock(ax, mock)
    return figure
