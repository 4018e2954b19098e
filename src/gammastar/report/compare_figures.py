"""Our rate of dark photons beside tables of other tools, on one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.style import (
    BAND68,
    COLOURS,
    LINES,
    MASS_DARK,
    checked,
    log_range,
    mark_mock,
    new_figure,
    styled,
)

__all__ = ["RateTable", "compare_figure"]


@dataclass(frozen=True, slots=True, eq=False)
class RateTable:
    """Rates of another tool at its own masses.

    Attributes
    ----------
    name : str
    mass : NDArray, shape (n,) [GeV]
    rate : NDArray, shape (n,)
    low, high : NDArray, shape (n,), or None
        Its own envelope.

    Raises
    ------
    PhysicsError
        If a column is of another length, or masses do not increase.
    """

    name: str
    mass: FloatArray
    rate: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None

    def __post_init__(self) -> None:
        for column in ("rate", "low", "high"):
            values = getattr(self, column)
            if values is not None and values.shape != self.mass.shape:
                msg = f"RateTable {self.name!r}: {column} has shape {values.shape}, mass {self.mass.shape}"
                raise PhysicsError(msg)
        if len(self.mass) < 2 or (np.diff(self.mass) <= 0).any():
            msg = f"RateTable {self.name!r}: give at least two masses that increase"
            raise PhysicsError(msg)

    def at(self, mass: FloatArray) -> FloatArray:
        """Return the rate at other masses, straight in its logarithm, nan outside the table."""
        positive = self.rate > 0
        logs = np.interp(mass, self.mass[positive], np.log(self.rate[positive]), left=np.nan, right=np.nan)
        result: FloatArray = np.exp(logs)
        return result


@styled
def compare_figure(
    mass: FloatArray,
    rate: FloatArray,
    errors: FloatArray,
    tables: list[RateTable],
    *,
    mock: bool,
    label: str = "from dileptons",
    unit: str = "interaction",
) -> Figure:
    """Draw the rate with those of other tools, and their ratios to it.

    Parameters
    ----------
    mass, rate, errors : NDArray, shape (n,)
        Ours, with one standard deviation.
    tables : list of RateTable
        In the same unit.
    mock : bool
    label : str
    unit : str
        "interaction" or "POT".

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: rates, and tables over ours.
    """
    n = len(mass)
    rate, errors = checked("rate", rate, (n,)), checked("errors", errors, (n,))
    figure, axes = new_figure(2, size=(7.6, 7.4), heights=(2.6, 1.0), share_x=True)
    ax, below = axes[:, 0]
    ax.fill_between(mass, rate - errors, rate + errors, color=BAND68, linewidth=0, zorder=3)
    ax.plot(mass, rate, color="black", label=label + r" $\pm1\sigma$", zorder=4)
    share = np.divide(errors, rate, out=np.zeros_like(rate), where=rate > 0)
    below.fill_between(mass, 1 - share, 1 + share, color=BAND68, linewidth=0)
    below.axhline(1.0, color="black", linewidth=1.2)
    shown = [rate]
    for i, table in enumerate(tables):
        look = {"color": (COLOURS[2:] + COLOURS[:2])[i % len(COLOURS)], "linestyle": LINES[1 + i % 4]}
        inside = (table.mass >= mass[0] * 0.8) & (table.mass <= mass[-1] * 1.2)
        shown.append(table.rate[inside])
        ax.plot(table.mass, np.where(table.rate > 0, table.rate, np.nan), label=table.name, **look)
        if table.low is not None and table.high is not None:
            ax.fill_between(table.mass, table.low, table.high, color=look["color"], alpha=0.18, linewidth=0)
        below.plot(mass, table.at(mass) / rate, **look)
    log_range(ax, *shown, decades=6.0, rows=5)
    ax.set(xlim=(mass[0], mass[-1]))
    ax.set_ylabel(rf"$N_{{A′}}$ / {unit} / $\varepsilon^2$")
    ax.legend(loc="upper right")
    below.set(yscale="log", xlabel=MASS_DARK, ylim=(1e-3, 1e2))
    below.set_ylabel("other / ours", loc="center")
    mark_mock(ax, mock)
    figure.align_ylabels(axes[:, 0])
    return figure
