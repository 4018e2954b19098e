"""Acceptance of a long-lived particle against its decay length, for several models of its kinematics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gammastar.core.axes import LABELS, MASS
from gammastar.core.records import FloatArray
from gammastar.report.style import COLOURS, checked, mark_mock, new_figure, styled

__all__ = ["acceptance_curves", "difference_map"]

_SURE = "darkgreen"


@styled
def acceptance_curves(
    masses: Sequence[float],
    ctau: FloatArray,
    curves: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    mock: bool,
    reference: str | None = None,
    lowest: float = 1e-4,
) -> Figure:
    """Draw the acceptance of a long-lived particle against its decay length, with bands, one panel per mass.

    Parameters
    ----------
    masses : sequence of float, length n_masses [GeV]
    ctau : NDArray, shape (n_ctau,) [m]
    curves : mapping of label to (mean, sigma), each of shape (n_masses, n_ctau)
        Acceptance and standard deviation between the members of an ensemble.
    mock : bool
    reference : str, optional
        Label of the curve that the lower panels divide by; the first one by default.
    lowest : float
        Acceptance below which ratios are not drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 9 of Allison and Blinov (2025): Eq. B1, with bands.
    """
    shape = (len(masses), len(ctau))
    base = next(iter(curves)) if reference is None else reference
    below = checked(base, curves[base][0], shape)
    figure, axes = new_figure(2, len(masses), size=(4.4 * len(masses) + 0.8, 6.2), heights=(2.0, 1.0))
    lines = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
    for column, mass in enumerate(masses):
        ax, low = axes[0, column], axes[1, column]
        used = below[column] > lowest
        for (label, (mean, sigma)), colour, line in zip(
            curves.items(), cycle(("black", *COLOURS)), cycle(lines), strict=False
        ):
            m, s = checked(label, mean, shape)[column], checked(label, sigma, shape)[column]
            ax.plot(ctau, m, color=colour, linestyle=line, label=label)
            ax.fill_between(ctau, np.maximum(m - s, 1e-12), m + s, color=colour, alpha=0.2, linewidth=0)
            ratio, width = m[used] / below[column][used], s[used] / below[column][used]
            low.plot(ctau[used], ratio, color=colour, linestyle=line)
            low.fill_between(ctau[used], ratio - width, ratio + width, color=colour, alpha=0.2, linewidth=0)
        ax.set(xscale="log", yscale="log", ylim=(0.1 * lowest, 2.0))
        ax.tick_params(labelbottom=False)
        low.set(xscale="log", xlim=ax.get_xlim(), ylim=(0.7, 1.3), xlabel=r"$c\tau$ [m]")
        ax.text(0.95, 0.05, f"$m$ = {mass:.3g} GeV", transform=ax.transAxes, ha="right")
        mark_mock(ax, mock)
    axes[0, 0].set_ylabel("acceptance")
    axes[1, 0].set_ylabel(f"over {base}", loc="center", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) if len(labels) < 6 else 4)
    return figure


@styled
def difference_map(
    mass: FloatArray,
    ctau: FloatArray,
    differences: Mapping[str, FloatArray],
    *,
    mock: bool,
    pulls: Mapping[str, FloatArray] | None = None,
    limit: float = 0.3,
    empty: str = "not known",
) -> Figure:
    """Draw relative differences of the acceptance in the plane of mass and decay length.

    Parameters
    ----------
    mass : NDArray, shape (n_mass,) [GeV]
    ctau : NDArray, shape (n_ctau,) [m]
    differences : mapping of title to NDArray of shape (n_mass, n_ctau)
        2 (E₁ − E₂)/(E₁ + E₂); nan where it is not known. One panel each.
    mock : bool
    limit : float
        End of the colour scale.
    empty : str
        Legend of the plane without colour.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 10 of Allison and Blinov (2025).
    """
    n = len(differences)
    figure, axes = new_figure(1, n, size=(4.9 * n + 1.2, 5.0))
    for ax, (title, values) in zip(axes[0], differences.items(), strict=True):
        shown = np.asarray(values, dtype=np.float64)
        mesh = ax.pcolormesh(
            mass, ctau, shown.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
        )
        finite = np.ma.masked_invalid(np.abs(shown.T))
        if finite.count() and float(finite.min()) < 0.1 < float(finite.max()):
            ax.contour(mass, ctau, finite, levels=[0.1], colors="black", linewidths=1.0)
        pull = None if pulls is None else checked(title, pulls[title], shown.shape)
        if pull is not None and (pull > 2.0).any() and (pull < 2.0).any():
            ax.contour(mass, ctau, pull.T, levels=[2.0], colors=_SURE, linestyles="--", linewidths=1.6)
        ax.set(yscale="log", xlabel=LABELS[MASS], ylabel=r"$c\tau$ [m]")
        ax.set_title(title, loc="left")
        mark_mock(ax, mock, position=(0.03, 0.08))
    figure.colorbar(mesh, ax=list(axes[0]), pad=0.01).set_label("relative difference of acceptance")
    handles: list[Artist] = [Line2D([], [], color="black", linewidth=1.0, label="difference of 10 %")]
    if pulls is not None:
        name = "two standard deviations of the members"
        handles.append(Line2D([], [], color=_SURE, linestyle="--", linewidth=1.6, label=name))
    if not all(np.isfinite(values).all() for values in differences.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.4", label=empty))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
