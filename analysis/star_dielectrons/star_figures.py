"""Figures of the subtraction on STAR's tables: measured data, nothing is mock."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from star_tables import (
    MIXED_ABOVE,
    RESIDUAL,
    Subtracted,
    acceptance,
    mixed_events,
    r_from_errors,
    ratio,
    signal_shift,
)

from gammastar.report import style

MASS = "$m_{ee}$ [GeV]"


def subtraction_figure(table: Subtracted, unit: str, title: str) -> Figure:
    """Return unlike-sign pairs, background and signal, and ours minus the published signal."""
    with style.house_style():
        figure, axes = style.new_figure(2, size=(7.6, 7.0), heights=(3.0, 1.0), share_x=True)
        above, below = axes[:, 0]
        centre, half = 0.5 * (table.low + table.high), 0.5 * (table.high - table.low)
        for values, name, colour in (
            (table.unlike, "unlike-sign", style.COLOURS[0]),
            (table.background, table.name, style.COLOURS[4]),
        ):
            above.errorbar(centre, values, xerr=half, fmt="none", color=colour, label=name, linewidth=2)
        good = table.signal > 0
        marks = {"fmt": "o", "markersize": 4, "linewidth": 1.0}
        above.errorbar(
            centre[good],
            table.signal[good],
            yerr=table.error[good],
            xerr=half[good],
            color="black",
            label="signal, ours",
            **marks,
        )
        seen = table.published > 0
        above.plot(
            centre[seen],
            table.published[seen],
            "s",
            color=style.COLOURS[2],
            markersize=8,
            fillstyle="none",
            label="signal, published",
        )
        off = (table.without_r > 0) & (np.abs(table.without_r / table.signal - 1) > 0.02)
        if off.any():
            above.plot(
                centre[off], table.without_r[off], "x", color=style.COLOURS[3], label="signal with R = 1"
            )
        style.log_range(above, table.unlike, table.signal[good], decades=10.0, rows=1)
        above.legend(loc="upper right")
        above.set_ylabel(unit)
        below.axhspan(-1, 1, color=style.BAND68, linewidth=0)
        below.plot(centre, table.residual, "o", color="black", markersize=4)
        below.set(xlabel=MASS, ylim=(-1.6, 1.6), xlim=(0, table.high[-1]))
        below.set_ylabel("(ours − publ.)\n/ rounding", fontsize=12)
        style.header(figure, f"STAR, {title}")
    return figure


def acceptance_figure() -> Figure:
    """Return R of mixed events, like-sign over mixed pairs, and what the signal would lose."""
    with style.house_style():
        figure, axes = style.new_figure(3, size=(7.6, 8.4), heights=(1.2, 1.2, 1.0), share_x=True)
        first, second, third = axes[:, 0]
        low, high, value, error = ratio("star_2014/fg17")
        style.points(first, np.append(low, high[-1]), value, error, label="mixed unlike / like (Fig. 17)")
        mass, r, blur = r_from_errors()
        first.errorbar(
            mass,
            r,
            yerr=blur,
            fmt="s",
            color=style.COLOURS[2],
            markersize=6,
            fillstyle="none",
            label="from errors of the background",
        )
        first.set(ylabel="R", ylim=(0.92, 1.04))
        first.legend(loc="lower right")
        low, high, value, error = ratio("star_2014/fg18")
        fits = mixed_events()
        style.points(
            second, np.append(low, high[-1]), value, error, label="like-sign / mixed unlike (Fig. 18)"
        )
        fine = np.linspace(RESIDUAL[0], 3.0, 400)
        n = fits["bins"]
        flat, bent = fits["chi2 of constant"] / n, fits["chi2 of constant/R"] / n
        second.plot(
            fine,
            np.full_like(fine, fits["constant"]),
            color=style.COLOURS[0],
            label=rf"constant, $\chi^2/n$ = {flat:.0f}",
        )
        second.plot(
            fine,
            fits["constant/R"] / acceptance(fine)[0],
            color=style.COLOURS[1],
            linestyle="--",
            label=rf"constant / R, $\chi^2/n$ = {bent:.0f}",
        )
        second.set(ylabel="like / mixed", ylim=(0.965, 1.085))
        second.legend(loc="upper right")
        mass, shift = signal_shift()
        third.axhline(0, color="0.6", linewidth=1)
        third.plot(mass, shift, "o-", color="black", markersize=4)
        third.set(xlabel=MASS, xscale="log", xlim=(0.01, 3.9))
        third.set_ylabel("change of signal,\nmixed for like", fontsize=12)
        third.axvline(MIXED_ABOVE, color="0.6", linestyle=":")
        third.text(
            1.07,
            0.9,
            "background\npublished:\nmixed events",
            fontsize=11,
            va="top",
            transform=third.get_xaxis_transform(),
        )
        style.header(figure, "STAR, Au+Au 200 GeV, arXiv:1504.01317")
    return figure
