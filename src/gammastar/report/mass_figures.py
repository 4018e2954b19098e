"""Figures over the pair mass: raw spectra, unfolded spectrum and its correlations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mplhep
import numpy as np
from hist import Hist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gammastar.core.axes import LABELS, MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, PairHists, Spectrum
from gammastar.report.style import COLOURS, GREY, checked, log_range, mark_mock, new_figure, styled

__all__ = ["correlation_matrix", "mass_projection", "mass_spectra", "unfolded_spectrum"]


def mass_projection(spectrum: Spectrum) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum a spectrum over all axes but the mass, with its full covariance.

    Parameters
    ----------
    spectrum : Spectrum
        With an axis named ``mass``.

    Returns
    -------
    edges : NDArray, shape (n + 1,) [GeV]
    values : NDArray, shape (n,)
    cov : NDArray, shape (n, n)

    Raises
    ------
    PhysicsError
        If there is no mass axis.
    """
    names = [axis.name for axis in spectrum.hist.axes]
    if MASS not in names:
        msg = f"report: the spectrum has the axes {names}, one named {MASS!r} is needed"
        raise PhysicsError(msg)
    index = names.index(MASS)
    shape = spectrum.values.shape
    n = len(shape)
    others = tuple(i for i in range(n) if i != index)
    values = spectrum.values.sum(axis=others)
    cov = spectrum.cov.reshape(shape + shape).sum(axis=others + tuple(n + i for i in others))
    edges = np.asarray(spectrum.hist.axes[index].edges, dtype=np.float64)
    return edges, values, cov


def _mass_hist(hist: Hist[Any]) -> tuple[FloatArray, FloatArray]:
    projected: Any = hist.project(MASS)
    values = np.asarray(projected.values(), dtype=np.float64)
    variances = projected.variances()
    return values, (values if variances is None else np.asarray(variances, dtype=np.float64))


def _per_width(edges: FloatArray) -> tuple[FloatArray, str]:
    """Return divisors and unit: the bin width itself if all bins are equal, else 1 GeV."""
    width = np.diff(edges)
    if np.allclose(width, width[0], rtol=1e-6):
        return np.ones_like(width), f"{1e3 * width[0]:.4g} MeV"
    return width, "GeV"


def _step(ax: Axes, edges: FloatArray, values: FloatArray, **options: Any) -> None:
    mplhep.histplot(values, bins=edges, ax=ax, yerr=False, flow="none", **options)


def _points(ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, **options: Any) -> None:
    centre = 0.5 * (edges[1:] + edges[:-1])
    style: dict[str, Any] = {"fmt": "o", "color": "black", "markersize": 4, "linewidth": 1.2, "capsize": 0}
    ax.errorbar(centre, values, yerr=errors, xerr=0.5 * np.diff(edges), **(style | options))


@styled
def mass_spectra(
    hists: PairHists,
    subtracted: Spectrum,
    background: FloatArray | None = None,
    *,
    mock: bool,
    log: bool = True,
) -> Figure:
    """Draw the pair mass before and after the like-sign subtraction.

    Parameters
    ----------
    hists : PairHists
        Opposite-sign, ++ and -- pairs; other axes than the mass are summed.
    subtracted : Spectrum
        Opposite sign minus background, quantity ``counts``, the same mass bins.
    background : NDArray, shape (n_mass,), optional
        Background per mass bin; by default the opposite-sign pairs minus `subtracted`.
    mock : bool
        Write MOCK into the figure.
    log : bool
        Logarithmic vertical axis.

    Returns
    -------
    matplotlib.figure.Figure
        Spectra above, background over opposite-sign pairs below.
    """
    edges, signal, cov = mass_projection(subtracted)
    os_pairs, os_variance = _mass_hist(hists.os)
    checked("mass bins of the subtracted spectrum", signal, os_pairs.shape)
    estimate = os_pairs - signal if background is None else checked("background", background, signal.shape)
    divisor, unit = _per_width(edges)
    figure, axes = new_figure(2, size=(7.2, 6.6), heights=(3.2, 1), share_x=True)
    ax, low = axes[:, 0]
    _step(ax, edges, os_pairs / divisor, color="black", label=r"opposite sign $N_{+-}$")
    _step(
        ax,
        edges,
        estimate / divisor,
        color=COLOURS[0],
        histtype="fill",
        alpha=0.45,
        label="like-sign estimate",
    )
    like = {r"$N_{++}$": _mass_hist(hists.pp)[0], r"$N_{--}$": _mass_hist(hists.mm)[0]}
    for (label, values), colour, line in zip(
        like.items(), (COLOURS[1], COLOURS[3]), ("-", "--"), strict=True
    ):
        _step(ax, edges, values / divisor, color=colour, linestyle=line, linewidth=1.3, label=label)
    errors = np.sqrt(np.diag(cov)) / divisor
    _points(ax, edges, signal / divisor, errors, color=COLOURS[2], label="subtracted")
    ax.set_ylabel(f"pairs / {unit}")
    if log:
        log_range(ax, os_pairs / divisor, signal / divisor, estimate / divisor, headroom=25.0)
    else:
        ax.set_ylim(min(0.0, 1.2 * float((signal / divisor).min())), 1.45 * float((os_pairs / divisor).max()))
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock)
    _background_fraction(low, edges, estimate, os_pairs, os_variance)
    return figure


def _background_fraction(
    ax: Axes, edges: FloatArray, background: FloatArray, total: FloatArray, variance: FloatArray
) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(total > 0, background / total, np.nan)
        error = np.where(total > 0, np.abs(ratio) * np.sqrt(variance) / total, np.nan)
    _points(ax, edges, ratio, error, color=COLOURS[0], markersize=3)
    ax.set_ylim(0.0, min(1.3, 1.25 * float(np.nanmax(ratio))) if np.nanmax(ratio) > 0 else 1.0)
    ax.set_ylabel("bkg. / $N_{+-}$", loc="center")
    ax.set_xlabel(LABELS[MASS])
    ax.set_xlim(edges[0], edges[-1])


@styled
def unfolded_spectrum(
    edges: FloatArray,
    values: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    references: Mapping[str, FloatArray] | None = None,
    measured: BoolArray | None = None,
    ylabel: str = r"$\gamma^*$ per POT",
) -> Figure:
    """Draw an unfolded mass spectrum, divided by the bin width.

    Parameters
    ----------
    edges : NDArray, shape (n + 1,) [GeV]
    values, errors : NDArray, shape (n,)
        Contents of the bins (not densities) and their standard deviations.
    mock : bool
    references : mapping of label to NDArray, shape (n,), optional
        The truth, the prior, a prediction; contents of the bins. The lower panel shows `values`
        over the first.
    measured : NDArray of bool, shape (n,), optional
        False marks bins where no dileptons were measured (open symbols, hatched).
    ylabel : str
        Quantity; " / GeV" is added.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(edges) - 1
    values, errors = checked("values", values, (n,)), checked("errors", errors, (n,))
    inside = np.ones(n, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
    width = np.diff(edges)
    curves = {label: checked(label, array, (n,)) for label, array in (references or {}).items()}
    rows = 2 if curves else 1
    figure, axes = new_figure(
        rows, size=(7.2, 4.6 + rows), heights=(3.2, 1) if rows == 2 else None, share_x=True
    )
    ax = axes[0, 0]
    for (label, array), colour, line in zip(curves.items(), COLOURS, ("-", "--", "-.", ":"), strict=False):
        _step(ax, edges, array / width, color=colour, linestyle=line, label=label)
    _split_points(ax, edges, values / width, errors / width, inside)
    log_range(ax, values / width, *(array / width for array in curves.values()))
    ax.set_ylabel(f"{ylabel} / GeV")
    ax.legend(loc="upper right")
    mark_mock(ax, mock)
    if curves:
        _ratio_panel(axes[1, 0], edges, values, errors, *next(iter(curves.items())))
    axes[-1, 0].set_xlabel(LABELS[MASS])
    axes[-1, 0].set_xlim(edges[0], edges[-1])
    return figure


def _split_points(
    ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, inside: BoolArray
) -> None:
    outside_values = np.where(inside, np.nan, values)
    _points(ax, edges, np.where(inside, values, np.nan), errors, label="unfolded")
    if not inside.all():
        _points(ax, edges, outside_values, errors, mfc="white", color="0.45", label="extrapolated")
        for low, high in zip(edges[:-1][~inside], edges[1:][~inside], strict=True):
            ax.axvspan(low, high, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=0)


def _ratio_panel(
    ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, label: str, reference: FloatArray
) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, error = (np.where(reference > 0, a / reference, np.nan) for a in (values, errors))
    _points(ax, edges, ratio, error, markersize=3)
    ax.axhline(1.0, color=COLOURS[0], linewidth=1.2)
    spread = float(np.nanquantile(np.abs(ratio - 1) + error, 0.9)) if np.isfinite(ratio).any() else 0.5
    half = min(max(1.3 * spread, 0.1), 1.0)
    ax.set_ylim(1 - half, 1 + half)
    ax.set_ylabel(f"ratio to {label}", loc="center", fontsize=11)


@styled
def correlation_matrix(cov: FloatArray, edges: FloatArray | None = None, *, mock: bool) -> Figure:
    """Draw the correlations of a covariance matrix.

    Parameters
    ----------
    cov : NDArray, shape (n, n)
    edges : NDArray, shape (n + 1,), optional
        Mass edges [GeV]; by default the index of the cell in C order.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure
        Cells with zero variance are left grey.
    """
    n = len(cov)
    cov = checked("cov", cov, (n, n))
    sigma = np.sqrt(np.clip(np.diag(cov), 0.0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.where(np.outer(sigma, sigma) > 0, cov / np.outer(sigma, sigma), np.nan)
    ticks = np.arange(n + 1, dtype=np.float64) if edges is None else checked("edges", edges, (n + 1,))
    figure, axes = new_figure(size=(6.6, 5.6))
    ax = axes[0, 0]
    ax.set_facecolor("0.85")
    mesh = ax.pcolormesh(ticks, ticks, correlation, cmap="RdBu_r", vmin=-1.0, vmax=1.0, rasterized=True)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.set_label("correlation")
    label = "cell" if edges is None else LABELS[MASS]
    ax.set(xlabel=label, ylabel=label, aspect="equal", xlim=ticks[[0, -1]], ylim=ticks[[0, -1]])
    mark_mock(ax, mock)
    return figure
