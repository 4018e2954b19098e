"""Figures that judge the learnt kinematics: divergence against mass, and the course of the training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gammastar.core.axes import LABELS, MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.style import BAND68, BAND95, COLOURS, checked, mark_mock, new_figure, say, styled

__all__ = ["kl_figure", "kl_size_figure", "training_figure"]


@styled
def kl_figure(
    mass: FloatArray,
    model: FloatArray,
    data_quantiles: FloatArray,
    *,
    mock: bool,
    model_error: FloatArray | None = None,
    window: FloatArray | None = None,
    p_value: float | None = None,
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
    p_value : float, optional
        Global p-value over all windows, written into the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 4 of Allison and Blinov (2025). The bands are those of one window: agreement over
    all windows is a statement for a global p-value, not for the eye.
    """
    n = len(mass)
    model, bands = checked("model", model, (n,)), checked("data_quantiles", data_quantiles, (n, 5))
    figure, axes = new_figure()
    ax = axes[0, 0]
    ax.fill_between(mass, bands[:, 0], bands[:, 4], color=BAND95, linewidth=0, label="data vs data, 95 %")
    ax.fill_between(mass, bands[:, 1], bands[:, 3], color=BAND68, linewidth=0, label="data vs data, 68 %")
    ax.plot(mass, bands[:, 2], color="#1a7a1a", linestyle="--", label="median")
    shown = [bands.ravel(), model]
    if model_error is not None:
        half = checked("model_error", model_error, (n,))
        ax.plot(mass, model - half, color="black", linestyle=":", linewidth=1.2, label="model vs data, 95 %")
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
    pooled = pooled[np.isfinite(pooled)]
    if pooled.size:
        low, high = float(pooled.min()), float(pooled.max())
        ax.set_ylim(low - 0.1 * (high - low), high + 0.55 * (high - low) + 1e-9)
    else:
        say(ax, "No window holds enough pairs.")
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    margin = 0.0 if window is None else float(np.max(window))
    ax.set(xlim=(mass[0] - margin, mass[-1] + margin), xlabel=LABELS[MASS])
    ax.set_ylabel("Kullback–Leibler divergence [nat]")
    if p_value is not None:
        ax.text(0.97, 0.04, f"global p-value {p_value:.2g}", transform=ax.transAxes, ha="right", fontsize=12)
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock)
    return figure


@styled
def training_figure(
    train_loss: Sequence[float],
    validation_loss: Sequence[float],
    *,
    mock: bool,
    best_epoch: int | None = None,
    members: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> Figure:
    """Draw the losses of a training against the epoch, with the band of an ensemble's trainings.

    Parameters
    ----------
    train_loss, validation_loss : sequence of float, length n_epochs
        Mean negative log-density per pair [nat].
    mock : bool
    best_epoch : int, optional
        Epoch (from 0) whose parameters are kept.
    members : sequence of (train_loss, validation_loss), optional
        Of the trainings on bootstrap replicas; the bands cover them all. A replica has an entropy of its own:
        both losses of a member are moved by the difference of the lowest validation losses.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PhysicsError
        If there is no epoch or the lengths differ.
    """
    n = len(train_loss)
    if n == 0:
        msg = "training_figure: there is no epoch; was the flow trained?"
        raise PhysicsError(msg)
    train = checked("train_loss", train_loss, (n,))
    held_out = checked("validation_loss", validation_loss, (n,))
    figure, axes = new_figure(size=(7.2, 4.8))
    ax = axes[0, 0]
    epoch = np.arange(n)
    ax.plot(epoch, train, color=COLOURS[0], label="training")
    ax.plot(epoch, held_out, color=COLOURS[2], linestyle="--", label="validation")
    bands = _replicas(members, held_out) if members else []
    for rows, colour in zip(bands, (COLOURS[0], COLOURS[2]), strict=False):
        label = f"{len(rows)} replicas" if colour == COLOURS[0] else None
        ends = (rows.min(axis=0), rows.max(axis=0))
        ax.fill_between(epoch, *ends, color=colour, alpha=0.2, linewidth=0, label=label)
    if best_epoch is not None:
        label = f"kept: epoch {best_epoch}, {held_out[best_epoch]:.4g} nat"
        ax.plot([best_epoch], [held_out[best_epoch]], "o", color="black", label=label)
    # the first epochs fall steeply: they may leave the frame so that the rest can be read
    late = np.concatenate([part[n // 20 :] for part in (train, held_out)])
    late = np.concatenate([late, *(rows[:, n // 10 + 1 :].ravel() for rows in bands)])
    spread = max(float(np.ptp(late)), 1e-6)
    ax.set_ylim(float(late.min()) - 0.1 * spread, float(late.max()) + 0.35 * spread)
    ax.set_xlim(-0.02 * n, 1.02 * n)
    ax.set(xlabel="epoch", ylabel=r"$-\langle\,\ln\,p(q_T, E\,|\,m)\,\rangle$ [nat]")
    ax.legend(loc="upper right")
    mark_mock(ax, mock, position=(0.2, 0.95))
    return figure


def _replicas(
    members: Sequence[tuple[Sequence[float], Sequence[float]]], held_out: FloatArray
) -> list[FloatArray]:
    """Return training and validation losses of the members, (n_members, n_epochs); the last ones stand."""
    rows = np.empty((2, len(members), len(held_out)))
    for k, losses in enumerate(members):
        shift = float(np.min(held_out)) - float(np.min(losses[1]))
        for kind, values in enumerate(losses):
            known = np.asarray(values[: len(held_out)], dtype=np.float64) + shift
            rows[kind, k] = np.pad(known, (0, len(held_out) - len(known)), mode="edge")
    return list(rows)


@styled
def kl_size_figure(
    masses: Sequence[float],
    n_pairs: FloatArray,
    model: FloatArray,
    spread: FloatArray,
    data_quantiles: FloatArray,
    *,
    mock: bool,
) -> Figure:
    """Draw the divergence against the number of training pairs, one panel per mass.

    Parameters
    ----------
    masses : sequence of float, length n_masses [GeV]
    n_pairs : NDArray, shape (n_sizes,)
    model, spread : NDArray, shape (n_masses, n_sizes)
        Mean divergence over trainings [nat], and its standard deviation between trainings.
    data_quantiles : NDArray, shape (n_masses, 5)
        Divergence between draws of the data: 2.5, 16, 50, 84 and 97.5 per cent quantiles.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 8 of Allison and Blinov (2025).
    """
    shape = (len(masses), len(n_pairs))
    model, spread = checked("model", model, shape), checked("spread", spread, shape)
    bands = checked("data_quantiles", data_quantiles, (len(masses), 5))
    figure, axes = new_figure(1, len(masses), size=(4.4 * len(masses) + 0.8, 4.4))
    for column, mass in enumerate(masses):
        ax, band = axes[0, column], bands[column]
        ax.axhspan(band[0], band[4], color=BAND95, linewidth=0, label="data vs data, 95 %")
        ax.axhspan(band[1], band[3], color=BAND68, linewidth=0, label="data vs data, 68 %")
        ax.axhline(band[2], color="#1a7a1a", linestyle="--")
        ax.plot(n_pairs, model[column], "o-", color="black", markersize=4, label="flow vs data")
        for sign in (-1.0, 1.0):
            label = "one standard deviation of trainings" if sign < 0 else None
            ax.plot(n_pairs, model[column] + sign * spread[column], color="black", linestyle=":", label=label)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="training pairs")
        ax.text(0.95, 0.95, f"$m$ = {mass:.3g} GeV", transform=ax.transAxes, ha="right", va="top")
        mark_mock(ax, mock, position=(0.05, 0.1))
    axes[0, 0].set_ylabel("KL divergence [nat]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
