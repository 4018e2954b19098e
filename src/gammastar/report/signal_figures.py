"""Figures of the signal: rate of dark photons, acceptance against decay length, sketch of the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.report.style import BAND68, BAND95, COLOURS, checked, log_range, mark_mock, new_figure, styled

__all__ = ["acceptance_figure", "cone_outline", "detector_figure", "rate_figure"]


@styled
def rate_figure(
    mass: FloatArray,
    rate: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    comparisons: Mapping[str, FloatArray] | None = None,
    measured: BoolArray | None = None,
    label: str = "from dileptons",
) -> Figure:
    """Draw the dark-photon yield per proton on target and per ε² against its mass.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    rate, errors : NDArray, shape (n,)
        Dark photons per POT per ε² and the standard deviation; bands of one and two are drawn.
    mock : bool
    comparisons : mapping of label to NDArray, shape (n,) or (n, 3), optional
        Other predictions; three columns are low, central and high.
    measured : NDArray of bool, shape (n,), optional
        False where the spectrum behind the rate is extrapolated (dashed).
    label : str
        Legend of the main line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(mass)
    rate, errors = checked("rate", rate, (n,)), checked("errors", errors, (n,))
    inside = np.ones(n, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
    figure, axes = new_figure()
    ax = axes[0, 0]
    floor = 1e-3 * float(np.nanmax(rate)) * np.ones(n) if (rate > 0).any() else np.ones(n)
    lower = np.minimum(floor, np.where(rate > 0, rate, floor)) * 0.05
    for k, colour, name in ((2, BAND95, "95 %"), (1, BAND68, "68 %")):
        ax.fill_between(
            mass,
            np.maximum(rate - k * errors, lower),
            rate + k * errors,
            color=colour,
            linewidth=0,
            label=name,
        )
    ax.plot(mass, np.where(inside, rate, np.nan), color="black", label=label)
    if not inside.all():
        # one point of overlap on either side, so that the line does not break
        outside = ~inside | np.r_[~inside[1:], False] | np.r_[False, ~inside[:-1]]
        ax.plot(mass, np.where(outside, rate, np.nan), color="black", linestyle="--", label="extrapolated")
    shown = [rate]
    for (name, curve), colour in zip((comparisons or {}).items(), COLOURS[2:] + COLOURS[:2], strict=False):
        band = np.asarray(curve, dtype=np.float64)
        central = band if band.ndim == 1 else band[:, 1]
        shown.append(checked(name, central, (n,)))
        if band.ndim == 2:
            ax.fill_between(mass, band[:, 0], band[:, 2], color=colour, alpha=0.25, linewidth=0)
        ax.plot(mass, central, color=colour, linestyle="-.", label=name)
    log_range(ax, *shown, decades=7.0, headroom=20.0)
    ax.set(xlabel=r"$m_{A'}$ [GeV]", ylabel=r"$N_{A'}$ / POT / $\varepsilon^2$", xlim=(mass[0], mass[-1]))
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock)
    return figure


@styled
def acceptance_figure(
    ctau: FloatArray,
    acceptances: Mapping[float, FloatArray],
    *,
    mock: bool,
    comparison: Mapping[float, FloatArray] | None = None,
    labels: tuple[str, str] = ("nominal", "comparison"),
) -> Figure:
    """Draw the acceptance for a long-lived particle against its proper decay length.

    Parameters
    ----------
    ctau : NDArray, shape (n,) [m]
    acceptances : mapping of mass [GeV] to NDArray, shape (n,)
        Accepted fraction of the produced particles.
    mock : bool
    comparison : mapping of mass to NDArray, shape (n,), optional
        Drawn dashed in the colour of the same mass.
    labels : tuple of str
        What the solid and the dashed lines are.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 9 of the data-driven method's paper.
    """
    figure, axes = new_figure()
    ax = axes[0, 0]
    peak = 0.0
    for index, (mass, values) in enumerate(acceptances.items()):
        colour = COLOURS[index % len(COLOURS)]
        curve = checked(f"acceptance at {mass} GeV", values, ctau.shape)
        ax.plot(ctau, np.where(curve > 0, curve, np.nan), color=colour, label=f"$m_{{A'}}$ = {mass:.3g} GeV")
        peak = max(peak, float(curve.max()))
        if comparison is not None and mass in comparison:
            other = checked(f"comparison at {mass} GeV", comparison[mass], ctau.shape)
            ax.plot(ctau, np.where(other > 0, other, np.nan), color=colour, linestyle="--")
    if comparison is not None:
        for label, line in zip(labels, ("-", "--"), strict=True):
            ax.plot([], [], color="black", linestyle=line, label=label)
    if peak <= 0:
        msg = "acceptance_figure: every acceptance is zero; check the detector and the decay lengths"
        raise PhysicsError(msg)
    ax.set(xscale="log", yscale="log", xlim=(ctau[0], ctau[-1]), ylim=(1e-5 * peak, 4.0 * peak))
    ax.set(xlabel=r"$c\tau$ [m]", ylabel="acceptance")
    ax.legend(loc="lower right")
    mark_mock(ax, mock)
    return figure


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
    for (label, (z, low, high)), line in zip(
        (planes or {}).items(), ("-", "--", "-.", ":") * 8, strict=False
    ):
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
