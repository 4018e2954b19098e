"""Figures over the pair mass: raw spectra with the subtraction, and the unfolded spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from hist import Hist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gammastar.core.axes import LABELS, MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, PairHists, Spectrum
from gammastar.report.style import (
    COLOURS,
    GREY,
    LINES,
    checked,
    divided,
    log_range,
    mark_mock,
    new_figure,
    points,
    steps,
    styled,
)

__all__ = ["mass_projection", "mass_spectra", "unfolded_spectrum"]


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


@styled
def mass_spectra(
    hists: PairHists,
    subtracted: Spectrum,
    background: FloatArray | None = None,
    *,
    mock: bool,
    truth: FloatArray | None = None,
    log: bool = True,
) -> Figure:
    r"""Draw the pair mass before and after the like-sign subtraction.

    Parameters
    ----------
    hists : PairHists
        Opposite-sign, ++ and -- pairs; other axes than the mass are summed.
    subtracted : Spectrum
        Opposite sign minus background, quantity ``counts``, the same mass bins.
    background : NDArray, shape (n_mass,), optional
        Combinatorial background :math:`2R\sqrt{N_{++}N_{--}}` per mass bin; by default the opposite-sign
        pairs minus `subtracted`.
    mock : bool
        Write MOCK into the figure.
    truth : NDArray, shape (n_mass,), optional
        True signal pairs per bin of the reconstructed mass, known for mock data only; the panel below then
        shows the pulls (subtracted − truth) / σ.
    log : bool
        Logarithmic vertical axis.

    Returns
    -------
    matplotlib.figure.Figure
        Spectra above; below the background over the opposite-sign pairs, and the pulls if there is a truth.
    """
    edges, signal, cov = mass_projection(subtracted)
    os_pairs, os_variance = _mass_hist(hists.os)
    checked("mass bins of the subtracted spectrum", signal, os_pairs.shape)
    estimate = os_pairs - signal if background is None else checked("background", background, signal.shape)
    sigma = np.sqrt(np.diag(cov))
    divisor, unit = _per_width(edges)
    heights = (3.2, 1) if truth is None else (3.2, 1, 1)
    figure, axes = new_figure(
        len(heights), size=(7.2, 4.8 + 1.3 * (len(heights) - 1)), heights=heights, share_x=True
    )
    ax = axes[0, 0]
    _components(ax, edges, hists, (os_pairs / divisor, estimate / divisor), divisor)
    if truth is not None:
        true = checked("truth", truth, signal.shape)
        steps(ax, edges, true / divisor, color=COLOURS[5], linestyle=":", linewidth=1.8, label="true signal")
    points(ax, edges, signal / divisor, sigma / divisor, color=COLOURS[2], label="subtracted")
    ax.set_ylabel(f"pairs / {unit}")
    if log:
        log_range(ax, os_pairs / divisor, signal / divisor, estimate / divisor, rows=3)
    else:
        ax.set_ylim(
            min(0.0, 1.2 * float((signal / divisor).min())), 1.45 * float((os_pairs / divisor).max()) or 1.0
        )
        ax.axhline(0.0, color="0.5", linewidth=0.8, zorder=0)
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock)
    _background_fraction(axes[1, 0], edges, estimate, os_pairs, os_variance)
    if truth is not None:
        _pulls(axes[2, 0], edges, divided(signal - true, sigma))
    axes[-1, 0].set_xlabel(LABELS[MASS])
    axes[-1, 0].set_xlim(edges[0], edges[-1])
    figure.align_ylabels(axes[:, 0])
    return figure


def _components(
    ax: Axes, edges: FloatArray, hists: PairHists, main: tuple[FloatArray, FloatArray], divisor: FloatArray
) -> None:
    steps(ax, edges, main[0], color="black", label="opposite sign $N_{+-}$")
    label = r"combinatorial $2R\sqrt{N_{++}N_{--}}$"
    steps(ax, edges, main[1], color=COLOURS[0], histtype="fill", alpha=0.45, label=label)
    for sign, hist, colour, line in (
        ("$N_{++}$", hists.pp, COLOURS[1], "-"),
        ("$N_{--}$", hists.mm, COLOURS[3], "--"),
    ):
        values, _ = _mass_hist(hist)
        steps(ax, edges, values / divisor, color=colour, linestyle=line, linewidth=1.3, label=sign)


def _background_fraction(
    ax: Axes, edges: FloatArray, background: FloatArray, total: FloatArray, variance: FloatArray
) -> None:
    ratio = divided(background, total)
    points(
        ax, edges, ratio, np.abs(ratio) * divided(np.sqrt(variance), total), color=COLOURS[0], markersize=3
    )
    top = float(np.nanmax(ratio)) if np.isfinite(ratio).any() else 0.0
    ax.set_ylim(0.0, min(1.3, 1.25 * top) if top > 0 else 1.0)
    ax.set_ylabel("comb. / $N_{+-}$", loc="center")


def _pulls(ax: Axes, edges: FloatArray, pulls: FloatArray) -> None:
    steps(ax, edges, np.nan_to_num(pulls), histtype="fill", color=COLOURS[4], alpha=0.8)
    for level in (-2.0, 0.0, 2.0):
        ax.axhline(level, color="0.3", linewidth=0.8, linestyle="-" if level == 0 else ":")
    size = float(np.nanmax(np.abs(pulls))) if np.isfinite(pulls).any() else 0.0
    half = max(3.4, 1.15 * size)
    ax.set_ylim(-half, half)
    ax.set_ylabel(r"pull [$\sigma$]", loc="center")


@styled
def unfolded_spectrum(
    edges: FloatArray,
    values: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    references: Mapping[str, FloatArray] | None = None,
    measured: BoolArray | None = None,
    statistical: FloatArray | None = None,
    ylabel: str = r"$dN_{\gamma^\ast}/dm$ per POT [GeV$^{-1}$]",
) -> Figure:
    """Draw an unfolded mass spectrum, divided by the bin width.

    Parameters
    ----------
    edges : NDArray, shape (n + 1,) [GeV]
    values, errors : NDArray, shape (n,)
        Contents of the bins (not densities) and their total standard deviations, the root of the diagonal
        of the covariance: the band.
    mock : bool
    references : mapping of label to NDArray, shape (n,), optional
        The truth, the prior, a prediction; contents of the bins. The lower panel shows `values`
        over the first.
    measured : NDArray of bool, shape (n,), optional
        False marks bins where no dileptons were measured (open symbols, hatched).
    statistical : NDArray, shape (n,), optional
        Statistical part of `errors`, drawn as bars on the points.
    ylabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(edges) - 1
    values, errors = checked("values", values, (n,)), checked("errors", errors, (n,))
    bars = np.zeros(n) if statistical is None else checked("statistical", statistical, (n,))
    inside = np.ones(n, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
    width = np.diff(edges)
    curves = {label: checked(label, array, (n,)) for label, array in (references or {}).items()}
    rows = 2 if curves else 1
    figure, axes = new_figure(
        rows, size=(7.2, 4.6 + rows), heights=(3.2, 1) if rows == 2 else None, share_x=True
    )
    ax = axes[0, 0]
    _band(ax, edges, values / width, errors / width, label="uncertainty")
    for (label, array), colour, line in zip(
        curves.items(), cycle(COLOURS[2:] + COLOURS[:2]), cycle(LINES), strict=False
    ):
        steps(ax, edges, array / width, color=colour, linestyle=line, label=label)
    _split_points(ax, edges, values / width, bars / width, inside)
    log_range(ax, values / width, *(array / width for array in curves.values()), rows=3)
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper right")
    mark_mock(ax, mock)
    if curves:
        label, reference = next(iter(curves.items()))
        _ratio_panel(axes[1, 0], edges, (values, errors, bars), inside, reference)
        axes[1, 0].set_ylabel(f"unf. / {label}", loc="center", fontsize=12)
    axes[-1, 0].set_xlabel(LABELS[MASS])
    axes[-1, 0].set_xlim(edges[0], edges[-1])
    figure.align_ylabels(axes[:, 0])
    return figure


def _band(ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, **options: Any) -> None:
    low, high = values - errors, values + errors
    ax.stairs(high, edges, baseline=low, fill=True, color=COLOURS[0], alpha=0.35, linewidth=0, **options)


def _split_points(
    ax: Axes, edges: FloatArray, values: FloatArray, errors: FloatArray, inside: BoolArray
) -> None:
    size = {"markersize": 3.5}
    points(ax, edges, np.where(inside, values, np.nan), errors, label="unfolded", **size)
    if inside.all():
        return
    outside = np.where(inside, np.nan, values)
    points(ax, edges, outside, errors, mfc="white", color="0.45", label="extrapolated", **size)
    _hatch_outside(ax, edges, inside)


def _hatch_outside(ax: Axes, edges: FloatArray, inside: BoolArray) -> None:
    for low, high in zip(edges[:-1][~inside], edges[1:][~inside], strict=True):
        ax.axvspan(low, high, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=0)


def _ratio_panel(
    ax: Axes,
    edges: FloatArray,
    spectrum: tuple[FloatArray, FloatArray, FloatArray],
    inside: BoolArray,
    reference: FloatArray,
) -> None:
    ratio, error, bars = (divided(part, reference) for part in spectrum)
    _band(ax, edges, ratio, error)
    points(ax, edges, ratio, bars, markersize=3)
    ax.axhline(1.0, color=COLOURS[2], linewidth=1.2)
    _hatch_outside(ax, edges, inside)
    spread = float(np.nanquantile(np.abs(ratio - 1) + error, 0.9)) if np.isfinite(ratio).any() else 0.5
    half = min(max(1.3 * spread, 0.1), 1.0)
    ax.set_ylim(1 - half, 1 + half)
