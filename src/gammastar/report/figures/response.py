"""Figures of the detector response and of the unfolding: efficiency, migration, correlations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gammastar.core.axes import LABELS, MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Response
from gammastar.report.style import COLOURS, checked, divided, mark_mock, new_figure, points, steps, styled

__all__ = ["correlation_matrix", "efficiency_figure", "mass_migration", "migration_matrix"]


def mass_migration(response: Response, migration: FloatArray | None = None) -> FloatArray:
    """Project a response on the mass: P(reconstructed mass bin | true mass bin).

    Parameters
    ----------
    response : Response
    migration : NDArray, shape (..., n_reco, n_true), optional
        Matrices to project instead of the response's own, e.g. its replicas.

    Returns
    -------
    NDArray, shape (..., n_reco_mass, n_true_mass)
        The true cells of a mass bin are weighted with the prior; nan in columns without prior. Columns sum
        to the efficiency.

    Raises
    ------
    PhysicsError
        If the reconstructed or the true axes lack a mass.
    """
    matrix = response.migration if migration is None else migration
    true, n_true = _mass_cells(response.true)
    reco, n_reco = _mass_cells(response.reco)
    to_true = np.eye(n_true)[true] * response.prior[:, None]
    joint = np.eye(n_reco)[reco].T @ matrix @ to_true
    return divided(joint, to_true.sum(axis=0))


def _mass_cells(axes: tuple[Any, ...]) -> tuple[npt.NDArray[np.int64], int]:
    """Return the mass bin of each cell in C order, and the number of mass bins."""
    names = [axis.name for axis in axes]
    if MASS not in names:
        msg = f"report: the response has the axes {names}, one named {MASS!r} is needed"
        raise PhysicsError(msg)
    shape = tuple(len(axis) for axis in axes)
    cells = np.indices(shape)[names.index(MASS)].ravel()
    return np.asarray(cells, dtype=np.int64), shape[names.index(MASS)]


def _mass_edges(axes: tuple[Any, ...]) -> FloatArray:
    found = [axis for axis in axes if axis.name == MASS]
    return np.asarray(found[0].edges, dtype=np.float64)


@styled
def efficiency_figure(response: Response, *, mock: bool) -> Figure:
    """Draw acceptance times efficiency, and what stays in its bin, against the mass.

    Parameters
    ----------
    response : Response
        With mass axes; other axes are averaged with the prior. The error is the standard deviation of the
        bootstrapped replicas if there are any.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure
        Above: the efficiency. Below: the fraction of reconstructed pairs that stay in their mass bin
        (if reconstructed and true mass bins are the same).
    """
    matrix = mass_migration(response)
    edges = _mass_edges(response.true)
    efficiency = matrix.sum(axis=0)
    replicas = response.cov_replicas
    spread = np.zeros_like(efficiency)
    if len(replicas) > 1:
        spread = mass_migration(response, replicas).sum(axis=-2).std(axis=0, ddof=1)
    same = np.array_equal(edges, _mass_edges(response.reco))
    figure, axes = new_figure(
        2 if same else 1, size=(7.2, 5.8), heights=(2.2, 1) if same else None, share_x=True
    )
    ax = axes[0, 0]
    points(ax, edges, efficiency, spread, color=COLOURS[0], label="simulation, averaged with its spectrum")
    top = float(np.nanmax(efficiency)) if np.isfinite(efficiency).any() else 1.0
    ax.set_ylim(0.0, 1.35 * top if top > 0 else 1.0)
    ax.set_ylabel(r"acceptance $\times$ efficiency")
    ax.legend(loc="upper right")
    mark_mock(ax, mock)
    if same:
        stays = divided(np.diagonal(matrix), efficiency)
        steps(axes[1, 0], edges, np.nan_to_num(stays), color=COLOURS[3], linewidth=1.6)
        axes[1, 0].set_ylim(0.0, 1.05)
        axes[1, 0].set_ylabel("stays in bin", loc="center")
    axes[-1, 0].set_xlabel("true " + LABELS[MASS])
    axes[-1, 0].set_xlim(edges[0], edges[-1])
    figure.align_ylabels(axes[:, 0])
    return figure


@styled
def migration_matrix(response: Response, *, mock: bool) -> Figure:
    """Draw the probability of a reconstructed mass given the true mass, for reconstructed pairs.

    Parameters
    ----------
    response : Response
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure
        Columns sum to one; the efficiency is in `efficiency_figure`. White: less than 10⁻⁴.
    """
    matrix = mass_migration(response)
    shape = divided(matrix, np.broadcast_to(matrix.sum(axis=0), matrix.shape))
    figure, axes = new_figure(size=(6.9, 5.6))
    ax = axes[0, 0]
    reco, true = _mass_edges(response.reco), _mass_edges(response.true)
    shown = np.ma.masked_less(np.nan_to_num(shape), 1e-4)
    mesh = ax.pcolormesh(true, reco, shown, cmap="cividis_r", norm=LogNorm(1e-4, 1.0), rasterized=True)
    figure.colorbar(mesh, ax=ax, pad=0.02).set_label("P(reconstructed bin | true bin, reconstructed)")
    ax.set(xlabel="true " + LABELS[MASS], ylabel="reconstructed " + LABELS[MASS])
    ax.set(xlim=true[[0, -1]], ylim=reco[[0, -1]])
    mark_mock(ax, mock)
    return figure


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
    correlation = divided(cov, np.outer(sigma, sigma))
    ticks = np.arange(n + 1, dtype=np.float64) if edges is None else checked("edges", edges, (n + 1,))
    figure, axes = new_figure(size=(6.6, 5.6))
    ax = axes[0, 0]
    ax.set_facecolor("0.85")
    mesh = ax.pcolormesh(ticks, ticks, correlation, cmap="RdBu_r", vmin=-1.0, vmax=1.0, rasterized=True)
    figure.colorbar(mesh, ax=ax, pad=0.02).set_label("correlation coefficient")
    _square(ax, ticks, "cell" if edges is None else LABELS[MASS])
    mark_mock(ax, mock)
    return figure


def _square(ax: Axes, ticks: FloatArray, label: str) -> None:
    ax.set(xlabel=label, ylabel=label, aspect="equal", xlim=ticks[[0, -1]], ylim=ticks[[0, -1]])
    ax.set_yticks([tick for tick in ax.get_xticks() if ticks[0] <= tick <= ticks[-1]])
