"""Figures of p(q_T, E | m): against data in windows of mass, divergence, training, production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import ENERGY, LABELS, MASS, PT, BoolArray, FloatArray
from gammastar.report import style
from gammastar.report.style import BAND68, BAND95, COLOURS, LINES, checked, divided, mark_mock, steps, styled

Kinematics: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Transverse momentum [GeV], energy [GeV] and weight, each of shape (n,)."""
Members: TypeAlias = Mapping[str, Sequence[FloatArray]]

N_BINS = 30  # of the projections
LONG = 8.0  # medians beyond which the scale is logarithmic
RANGE = 0.995  # part of a sample that is shown
INKS = ("black", COLOURS[2], COLOURS[3], COLOURS[5])


@styled
def flow_vs_data(
    masses: Sequence[float],
    data: Sequence[Kinematics],
    models: Mapping[str, Sequence[Kinematics]],
    *,
    mock: bool,
    background: Sequence[Kinematics] | None = None,
    window: float | None = None,
    members: Members | None = None,
) -> Figure:
    """Draw normalised q_T and energy, a row per mass, models over data below (Fig. 5 of A. and B., 2025)."""
    _same_lengths(masses, {"data": data, **models, **({"background": background} if background else {})})
    n = len(masses)
    figure, axes = style.new_figure(2 * n, 2, size=(10.5, 3.3 * n + 0.9), heights=(2.6, 1.0) * n)
    for row, mass in enumerate(masses):
        for column, quantity in enumerate((PT, ENERGY)):
            spread = {name: weights[row] for name, weights in (members or {}).items()}
            curves = {name: (samples[row], spread.get(name)) for name, samples in models.items()}
            extra = None if background is None else background[row]
            ax, low = axes[2 * row, column], axes[2 * row + 1, column]
            _panel((ax, low), column, data[row], curves, extra)
            name = LABELS[quantity].split(" [")[0].strip("$")
            ax.set_ylabel(rf"$N^{{-1}}\,dN/d{name}$ [GeV$^{{-1}}$]", loc="center", fontsize=13)
            ax.tick_params(labelbottom=False)
            if ax.get_yscale() == "linear":
                ax.yaxis.set_major_locator(MaxNLocator(4, prune="lower"))
            low.set_ylabel("model / data", loc="center", fontsize=10)
            low.set_xlabel(LABELS[quantity])
            text = _window_text(mass, window)
            ax.text(0.97, 0.93, text, transform=ax.transAxes, ha="right", va="top", fontsize=13)
            mark_mock(ax, mock, position=(0.97, 0.74))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if members:
        handles.append(Patch(facecolor="0.5", alpha=0.35))
        labels.append("spread of the members")
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) if len(labels) < 6 else 3)
    return figure


def _same_lengths(masses: Sequence[float], samples: Mapping[str, Sequence[Kinematics]]) -> None:
    for name, entries in samples.items():
        if len(entries) != len(masses):
            raise PhysicsError(f"report: {name!r} has {len(entries)} samples for {len(masses)} masses")


def _window_text(mass: float, window: float | None) -> str:
    return f"$m$ = {mass:.3g} GeV" + ("" if window is None else rf"$\,\pm\,${1e3 * window:.3g} MeV")


def _panel(
    axes: tuple[Axes, Axes],
    column: int,
    data: Kinematics,
    models: Mapping[str, tuple[Kinematics, FloatArray | None]],
    background: Kinematics | None,
) -> None:
    ax, low = axes
    total = _total(data)
    edges = np.linspace(0.0, _upper(data[column], data[2]), N_BINS + 1)
    density, error = _density(data[column], data[2], edges, total)
    steps(ax, edges, density, histtype="fill", color=COLOURS[0], alpha=0.35, label="data")
    centre = 0.5 * (edges[1:] + edges[:-1])
    ax.errorbar(centre, density, yerr=error, fmt="none", ecolor=COLOURS[0], linewidth=1.2)
    style.band(low, edges, np.ones(N_BINS), np.nan_to_num(divided(error, density)))
    low.axhline(1.0, color=COLOURS[0], linewidth=1.0)
    if background is not None:
        shape, _ = _density(background[column], background[2], edges, total)
        steps(ax, edges, shape, histtype="fill", color=COLOURS[1], alpha=0.7, label="background")
    for (label, (sample, weights)), colour, line in zip(models.items(), INKS, LINES, strict=False):
        curve, _ = _density(sample[column], sample[2], edges, _total(sample))
        if weights is not None:
            each = [_density(sample[column], w, edges, float(w.sum()))[0] for w in weights * sample[2]]
            sigma = np.std(each, axis=0, ddof=1)
            style.band(ax, edges, curve, sigma, color=colour, alpha=0.25)
            style.band(low, edges, divided(curve, density), divided(sigma, density), color=colour, alpha=0.25)
        steps(ax, edges, curve, color=colour, linestyle=line, linewidth=1.5, label=label)
        steps(low, edges, divided(curve, density), color=colour, linestyle=line, linewidth=1.3)
    top = float(np.max(density + error))
    ax.set(xlim=edges[[0, -1]], ylim=(0.0, 1.35 * top))
    if edges[-1] > LONG * _upper(data[column], data[2], 0.5):  # the bulk in the first bins: show the tail
        ax.set(yscale="log", ylim=(max(0.3 * float(np.min(density[density > 0])), 1e-5 * top), 6.0 * top))
    low.set(xlim=edges[[0, -1]], ylim=(0.4, 1.6))


def _total(sample: Kinematics) -> float:
    total, n = float(np.sum(sample[2])), len(sample[0])
    require(n and total > 0, f"report: a mass window holds {n} pairs of total weight {total:.3g}; widen it")
    return total


def _upper(values: FloatArray, weight: FloatArray, part: float = RANGE) -> float:
    # of negative weights, their size is what matters for the range
    return 1.02 * float(np.quantile(values, part, weights=np.abs(weight), method="inverted_cdf"))


def _density(
    values: FloatArray, weight: FloatArray, edges: FloatArray, total: float
) -> tuple[FloatArray, ...]:
    counts, squares = (np.histogram(values, edges, weights=w)[0] for w in (weight, weight**2))
    return counts / (total * np.diff(edges)), np.sqrt(squares) / (total * np.diff(edges))


@styled
def flow_plane(
    masses: Sequence[float],
    data: Sequence[Kinematics],
    model: Sequence[Kinematics],
    *,
    mock: bool,
    window: float | None = None,
    n_bins: int = 24,
    members: Sequence[FloatArray] | None = None,
) -> Figure:
    """Draw the plane of q_T and energy: data, flow, their pulls and the spread of an ensemble, per mass."""
    _same_lengths(masses, {"data": data, "flow": model})
    n = len(masses)
    columns = 3 if members is None else 4
    figure, axes = style.new_figure(n, columns, size=(4.5 * columns, 3.9 * n + 0.3))
    for row, mass in enumerate(masses):
        edges = [np.linspace(0.0, _upper(data[row][i], data[row][2]), n_bins + 1) for i in (0, 1)]
        seen, variance = _plane(data[row], edges, _total(data[row]))
        expected, spread = _plane(model[row], edges, _total(data[row]))
        norm = LogNorm(max(1e-3 * float(seen.max()), 0.5), float(max(seen.max(), expected.max(), 1.0)))
        for ax, counts in zip(axes[row, :2], (seen, expected), strict=True):
            shown = np.ma.masked_less_equal(counts.T, 0.0)
            mesh = ax.pcolormesh(*edges, shown, cmap="cividis_r", norm=norm, rasterized=True)
        figure.colorbar(mesh, ax=list(axes[row, :2]), pad=0.01).set_label("pairs / bin")
        # for Poisson counts the model's expectation is the better variance where data happen to be few
        sigma = np.sqrt(np.maximum(variance, expected) + spread)
        pulls = np.where(expected >= 5.0, divided(seen - expected, sigma), np.nan)
        scale = TwoSlopeNorm(0.0, -4.0, 4.0)
        mesh = axes[row, 2].pcolormesh(*edges, pulls.T, cmap="RdBu_r", norm=scale, rasterized=True)
        figure.colorbar(mesh, ax=axes[row, 2], pad=0.01).set_label(r"(data − model) / $\sigma$")
        if members is not None:
            each = np.array(
                [_plane((*model[row][:2], w * model[row][2]), edges, 1.0)[0] for w in members[row]]
            )
            part = divided(each.std(axis=0, ddof=1), each.mean(axis=0))
            part = np.where(expected >= 5.0, part, np.nan)
            finite = part[np.isfinite(part)]
            ends = {"vmin": 0.0, "vmax": 100.0 * float(np.quantile(finite, 0.98)) if finite.size else 1.0}
            mesh = axes[row, 3].pcolormesh(*edges, 100.0 * part.T, cmap="magma_r", rasterized=True, **ends)
            bar = figure.colorbar(mesh, ax=axes[row, 3], pad=0.01, extend="max")
            bar.set_label("spread of the flow [%]")
        for ax, name in zip(axes[row], ("data", "flow", "pull", "replicas")[:columns], strict=True):
            ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]], xlabel=LABELS[PT], ylabel=LABELS[ENERGY])
            where = f", {_window_text(mass, window)}" if name in ("data", "flow") else ""
            ax.set_title(f"{name}{where}", loc="left")
            mark_mock(ax, mock, position=(0.96, 0.95))
    return figure


def _plane(sample: Kinematics, edges: Sequence[FloatArray], total: float) -> tuple[FloatArray, ...]:
    """Return contents and variances in the plane, scaled to a total weight."""
    weight = sample[2] * (total / _total(sample))
    return tuple(np.histogram2d(*sample[:2], bins=list(edges), weights=w)[0] for w in (weight, weight**2))


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
    """Draw the divergence of model and data against mass over bands of one window (Fig. 4 of A. and B.)."""
    n = len(mass)
    model, bands = checked("model", model, (n,)), checked("data_quantiles", data_quantiles, (n, 5))
    figure, ax = style.single()
    ax.fill_between(mass, bands[:, 0], bands[:, 4], color=BAND95, linewidth=0, label="data vs data, 95 %")
    ax.fill_between(mass, bands[:, 1], bands[:, 3], color=BAND68, linewidth=0, label="data vs data, 68 %")
    ax.plot(mass, bands[:, 2], color="#1a7a1a", linestyle="--", label="median")
    shown = [bands.ravel(), model]
    if model_error is not None:
        half = checked("model_error", model_error, (n,))
        for edge, label in ((model - half, "model vs data, 95 %"), (model + half, None)):
            ax.plot(mass, edge, color="black", linestyle=":", linewidth=1.2, label=label)
            shown.append(edge)
    width = None if window is None else checked("window", window, (n,))
    look: dict[str, Any] = {"color": "black", "fmt": "o-", "markersize": 4, "elinewidth": 1.0}
    ax.errorbar(mass, model, xerr=width, label="model vs data", **look)
    pooled = np.concatenate(shown)
    pooled = pooled[np.isfinite(pooled)]
    if pooled.size:
        low, high = float(pooled.min()), float(pooled.max())
        ax.set_ylim(low - 0.1 * (high - low), high + 0.55 * (high - low) + 1e-9)
    else:
        style.say(ax, "No window holds enough pairs.")
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    margin = 0.0 if window is None else float(np.max(window))
    ax.set(xlim=(mass[0] - margin, mass[-1] + margin), xlabel=LABELS[MASS])
    ax.set_ylabel("Kullback–Leibler divergence [nat]")
    if p_value is not None:
        ax.text(0.97, 0.04, f"global p-value {p_value:.2g}", transform=ax.transAxes, ha="right", fontsize=12)
    ax.legend(loc="upper right", ncols=2)
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
    """Draw the losses of a training against the epoch, with the band of an ensemble's trainings."""
    n = len(train_loss)
    require(n != 0, "training_figure: there is no epoch; was the flow trained?")
    train = checked("train_loss", train_loss, (n,))
    held_out = checked("validation_loss", validation_loss, (n,))
    figure, ax = style.single(size=(7.2, 4.8))
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
    late = [train[n // 20 :], held_out[n // 20 :], *(rows[:, n // 10 + 1 :].ravel() for rows in bands)]
    low, high = float(np.concatenate(late).min()), float(np.concatenate(late).max())
    spread = max(high - low, 1e-6)
    ax.set(xlim=(-0.02 * n, 1.02 * n), ylim=(low - 0.1 * spread, high + 0.35 * spread))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_minor_locator(NullLocator())
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
            part = np.asarray(values[: len(held_out)], dtype=np.float64) + shift
            rows[kind, k] = np.pad(part, (0, len(held_out) - len(part)), mode="edge")
    return list(rows)


@styled
def densities_figure(
    samples: Mapping[float, tuple[FloatArray, FloatArray]],
    *,
    mock: bool,
    quantities: Sequence[str] = (PT, ENERGY),
) -> Figure:
    """Draw the densities of q_T and of the energy at some masses, each with unit area."""
    size = (10.5, 4.6) if len(quantities) > 1 else (6.2, 4.8)
    figure, axes = style.new_figure(1, len(quantities), size=size)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        column = (PT, ENERGY).index(quantity)
        high = max(float(np.quantile(sample[column], RANGE)) for sample in samples.values())
        edges = np.linspace(0.0, high, 41)
        top = 0.0
        for (mass, sample), colour, line in zip(samples.items(), cycle(COLOURS), cycle(LINES), strict=False):
            density = np.histogram(sample[column], edges)[0] / (len(sample[column]) * np.diff(edges))
            steps(ax, edges, density, color=colour, linestyle=line, label=f"{mass:g} GeV")
            top = max(top, float(density.max()))
        ax.set(xlabel=LABELS[quantity], ylabel="density [1/GeV]", xlim=(0.0, high))
        if quantity == ENERGY:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0.0, 1.15 * top)  # room for the word MOCK
        ax.legend(loc="upper right", title="mass")
        mark_mock(ax, mock)
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class ProductionMap:
    """Where the particles that a detector sees are produced, at one mass and coupling."""

    title: str
    signal: FloatArray  # Events by cell of angle and energy, shape (a, b)
    measured: float  # Part of them from where lepton pairs were measured
    domain: BoolArray  # Where pairs of this mass were measured, on a finer grid, shape (c, d)


@styled
def production_figure(
    rows: Sequence[Sequence[ProductionMap]],
    edges: tuple[FloatArray, FloatArray],
    fine: tuple[FloatArray, FloatArray],
    spectrometer: tuple[tuple[float, float], float],
    *,
    mock: bool,
    title: str = "",
) -> Figure:
    """Draw maps of production in angle and energy, with what was measured and a spectrometer."""
    n_columns = max(len(row) for row in rows)
    figure, axes = style.new_figure(len(rows), n_columns, size=(1.2 + 4.1 * n_columns, 1.6 + 3.4 * len(rows)))
    theta, energy = 1e3 * edges[0], edges[1]
    (low, high), least = (1e3 * spectrometer[0][0], 1e3 * spectrometer[0][1]), spectrometer[1]
    # ranges that hold what is drawn
    maps = [entry.signal > 1e-3 * entry.signal.max() for row in rows for entry in row]
    i, j = (np.flatnonzero(np.any(maps, axis=0).any(axis=axis)) for axis in (1, 0))
    x_range = min(theta[i[0]], low) / 1.3, max(theta[i[-1] + 1], high) * 1.3
    y_range = min(energy[j[0]], least) / 1.3, float(energy[-1]) * 1.2
    mesh = None
    for row, line in zip(rows, axes, strict=True):
        for ax in line[len(row) :]:
            ax.set_axis_off()
        for ax, entry in zip(line, row, strict=False):
            top = float(entry.signal.max())
            density = np.where(entry.signal > 0, entry.signal, np.nan) / (top if top > 0 else 1.0)
            mesh = ax.pcolormesh(theta, energy, density.T, cmap="Blues", norm=LogNorm(1e-3, 1.0))
            mesh.set_rasterized(True)
            domain = entry.domain.T.astype(float)
            ax.contour(1e3 * fine[0], fine[1], domain, levels=[0.5], colors=COLOURS[1], linewidths=2.0)
            look: dict[str, Any] = {"edgecolor": COLOURS[2], "linestyle": "--", "linewidth": 1.8}
            box = Rectangle((low, least), high - low, energy[-1] - least, fill=False, zorder=5, **look)
            ax.add_patch(box)
            ax.set(yscale="log", xlim=x_range, ylim=y_range)
            style.log_mass_axis(ax)
            ax.set_title(f"{entry.title}\nmeasured: {100 * entry.measured:.3g} %", fontsize=11)
            ax.set(xlabel=r"$\theta$ to the beam [mrad]", ylabel="energy [GeV]")
            ax.label_outer()
            mark_mock(ax, mock, position=(0.04, 0.04))
    if mesh is not None:
        figure.colorbar(mesh, ax=axes, label="signal per cell over its maximum", extend="min")
    text = f"spectrometer: leptons in {low:g} to {high:g} mrad, pair above {least:g} GeV"
    handles = [Line2D([], [], color=COLOURS[1], linewidth=2.0, label="pairs were measured")]
    handles.append(Line2D([], [], color=COLOURS[2], linestyle="--", label=text))
    figure.legend(handles=handles, loc="outside upper center", ncols=2, title=title, fontsize=11)
    return figure
