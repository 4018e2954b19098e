"""Figures of the learnt kinematics: model against data in mass windows, and their divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gammastar.core.axes import ENERGY, LABELS, PT
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.style import BAND68, BAND95, COLOURS, checked, mark_mock, new_figure, styled

__all__ = ["Kinematics", "flow_vs_data", "kl_figure"]

Kinematics: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Transverse momentum [GeV], energy [GeV] and weight, each of shape (n,)."""


@styled
def flow_vs_data(
    masses: Sequence[float],
    data: Sequence[Kinematics],
    models: Mapping[str, Sequence[Kinematics]],
    *,
    mock: bool,
    background: Sequence[Kinematics] | None = None,
    window: float | None = None,
    n_bins: int = 30,
) -> Figure:
    """Draw normalised q_T (left) and energy (right), one row per mass.

    Parameters
    ----------
    masses : sequence of float, length n_masses [GeV]
    data : sequence of Kinematics, length n_masses
        Pairs in a window around each mass; weights may be negative after a subtraction.
    models : mapping of label to sequence of Kinematics
        Samples of each model at each mass.
    mock : bool
    background : sequence of Kinematics, optional
        Estimated background in each window, normalised to the data.
    window : float, optional
        Half-width of the mass windows [GeV], for the legend.
    n_bins : int

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PhysicsError
        If the lists differ in length or a window holds no data.

    Notes
    -----
    The form of Fig. 5 of the data-driven method's paper. The range covers 99.5 % of the data; what lies
    beyond counts in the normalisation.
    """
    for name, entries in {
        "data": data,
        **models,
        **({"background": background} if background else {}),
    }.items():
        if len(entries) != len(masses):
            msg = f"flow_vs_data: {name!r} has {len(entries)} samples for {len(masses)} masses"
            raise PhysicsError(msg)
    figure, axes = new_figure(len(masses), 2, size=(10.0, 2.7 * len(masses) + 0.9))
    for row, mass in enumerate(masses):
        for column, quantity in enumerate((PT, ENERGY)):
            curves = {name: samples[row] for name, samples in models.items()}
            extra = None if background is None else background[row]
            _panel(axes[row, column], column, data[row], curves, extra, n_bins)
            _describe(axes[row, column], quantity, mass, window, last=row == len(masses) - 1)
            mark_mock(axes[row, column], mock, position=(0.97, 0.62))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
    return figure


def _describe(ax: Axes, quantity: str, mass: float, window: float | None, *, last: bool) -> None:
    name = LABELS[quantity].split(" [")[0].strip("$")
    ax.set_ylabel(rf"$dN / d{name}$ / $N$", loc="center")
    ax.set_xlabel(LABELS[quantity] if last else "")
    width = "" if window is None else rf"$\,\pm\,${1e3 * window:.3g} MeV"
    ax.text(
        0.97, 0.93, f"$m$ = {mass:.3g} GeV{width}", transform=ax.transAxes, ha="right", va="top", fontsize=13
    )


def _panel(
    ax: Axes,
    column: int,
    data: Kinematics,
    models: Mapping[str, Kinematics],
    background: Kinematics | None,
    n_bins: int,
) -> None:
    total = float(np.sum(data[2]))
    if not len(data[column]) or total <= 0:
        n = len(data[column])
        msg = f"flow_vs_data: a mass window holds {n} pairs of total weight {total:.3g}; widen it"
        raise PhysicsError(msg)
    low, high = _range(data[column], data[2])
    edges = np.linspace(low, high, n_bins + 1)
    density, error = _density(data[column], data[2], edges, total)
    mplhep.histplot(
        density,
        bins=edges,
        ax=ax,
        yerr=False,
        flow="none",
        histtype="fill",
        color=COLOURS[0],
        alpha=0.35,
        label="data",
    )
    centre = 0.5 * (edges[1:] + edges[:-1])
    ax.errorbar(centre, density, yerr=error, fmt="none", ecolor=COLOURS[0], linewidth=1.2)
    if background is not None:
        shape, _ = _density(background[column], background[2], edges, total)
        mplhep.histplot(
            shape, bins=edges, ax=ax, yerr=False, flow="none", histtype="fill", color=COLOURS[1], alpha=0.7,
            label="background",
        )  # fmt: skip
    styles = (("black", "-"), (COLOURS[2], "--"), (COLOURS[3], "-."), (COLOURS[5], ":"))
    for (label, sample), (colour, line) in zip(models.items(), styles, strict=False):
        curve, _ = _density(sample[column], sample[2], edges, float(np.sum(sample[2])))
        mplhep.histplot(
            curve,
            bins=edges,
            ax=ax,
            yerr=False,
            flow="none",
            color=colour,
            linestyle=line,
            linewidth=1.5,
            label=label,
        )
    ax.set_xlim(low, high)
    ax.set_ylim(0.0, 1.35 * float(np.max(density + error)))


def _range(values: FloatArray, weight: FloatArray) -> tuple[float, float]:
    order = np.argsort(values)
    # negative weights would make the running sum fall; their size is what matters for the range
    running = np.cumsum(np.abs(weight[order]))
    high = float(values[order][np.searchsorted(running, 0.995 * running[-1])])
    return 0.0, 1.02 * high


def _density(
    values: FloatArray, weight: FloatArray, edges: FloatArray, total: float
) -> tuple[FloatArray, FloatArray]:
    counts, _ = np.histogram(values, bins=edges, weights=weight)
    squares, _ = np.histogram(values, bins=edges, weights=weight**2)
    scale = 1.0 / (total * np.diff(edges))
    return counts * scale, np.sqrt(squares) * scale


@styled
def kl_figure(
    mass: FloatArray,
    model: FloatArray,
    data_quantiles: FloatArray,
    *,
    mock: bool,
    model_error: FloatArray | None = None,
    window: FloatArray | None = None,
) -> Figure:
    """Draw the divergence of model and data against mass, over the spread between draws of the data.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
        Centres of the mass windows.
    model : NDArray, shape (n,)
        Kullback-Leibler divergence of model and data [nat], mean over draws.
    data_quantiles : NDArray, shape (n, 5)
        Divergence between draws of the data: 2.5, 16, 50, 84 and 97.5 per cent quantiles.
    mock : bool
    model_error : NDArray, shape (n,), optional
        Half-width of the 95 % band of `model` from the finite number of draws.
    window : NDArray, shape (n,), optional
        Half-widths of the mass windows [GeV].

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 4 of the data-driven method's paper. The bands are those of one window: agreement over
    all windows is a statement for a global p-value, not for the eye.
    """
    n = len(mass)
    model, bands = checked("model", model, (n,)), checked("data_quantiles", data_quantiles, (n, 5))
    figure, axes = new_figure()
    ax = axes[0, 0]
    ax.fill_between(mass, bands[:, 0], bands[:, 4], color=BAND95, linewidth=0, label="data, 95 %")
    ax.fill_between(mass, bands[:, 1], bands[:, 3], color=BAND68, linewidth=0, label="data, 68 %")
    ax.plot(mass, bands[:, 2], color="#1a7a1a", linestyle="--", label="data vs data, median")
    shown = [bands.ravel(), model]
    if model_error is not None:
        half = checked("model_error", model_error, (n,))
        ax.plot(mass, model - half, color="black", linestyle=":", linewidth=1.2, label="model, 95 %")
        ax.plot(mass, model + half, color="black", linestyle=":", linewidth=1.2)
        shown += [model - half, model + half]
    ax.errorbar(
        mass,
        model,
        xerr=None if window is None else checked("window", window, (n,)),
        color="black",
        fmt="o-",
        markersize=4,
        elinewidth=1.0,
        label="model vs data",
    )
    pooled = np.concatenate(shown)
    low, high = float(np.nanmin(pooled)), float(np.nanmax(pooled))
    ax.set_ylim(low - 0.1 * (high - low), high + 0.6 * (high - low))
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    ax.set(
        xlabel=r"$m_{\gamma^*}$ [GeV]", ylabel="Kullback–Leibler divergence [nat]", xlim=(mass[0], mass[-1])
    )
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, loc="upper right", ncols=2)
    mark_mock(ax, mock)
    return figure
