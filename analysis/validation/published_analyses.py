"""Rows of the topic `published`: measured tables of NA60, STAR and PHENIX through the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ANALYSIS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ANALYSIS / name) for name in ("na60_2016", "star_dielectrons", "phenix_2015")]

import combined as phenix_combined  # noqa: E402
import phenix_tables  # noqa: E402
import star_tables  # noqa: E402
from form_factors import DECAYS, PUBLISHED, FormFactor2, dimuon_fraction, fit_pole  # noqa: E402
from measured_dalitz import channel, partial_rate  # noqa: E402

from gammastar.core import constants  # noqa: E402

NA60 = "NA60, arXiv:1608.07898"
STAR_19, STAR_200 = "STAR, arXiv:1501.05341, table 1", "STAR, arXiv:1504.01317"
PHENIX = "PHENIX, arXiv:1409.0851"


def analysis_rows() -> Iterator[dict]:
    """Yield the rows; all of them are quick."""
    yield from _form_factors()
    yield from _rate()
    yield from _star()
    yield from _phenix()


def _row(
    quantity: str, ours: float, expected: float, tolerance: float, source: str, *, measured: bool = False
) -> dict:
    row = {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": float(tolerance),
    }
    return row | {"source": source} | ({"measured": True} if measured else {})


def _form_factors() -> Iterator[dict]:
    for meson, (value, statistical, systematic) in PUBLISHED.items():
        measured = FormFactor2.read(meson)
        fit, free = fit_pole(measured), fit_pole(measured, free_norm=True)
        sigma = float(np.hypot(statistical, systematic))
        name = {"eta": "η", "omega": "ω"}[meson]
        told = f"{NA60}: ± {statistical} ± {systematic}"
        yield _row(
            f"Λ⁻² of {name} [GeV⁻²], fit of {len(measured.value)} points", fit.value[0], value, sigma, told
        )
        told = f"F(0) = 1; error of the fit, correlation {free.cov[0, 1] / np.prod(free.error):.2f}"
        yield _row(
            f"norm of the squared form factor of {name}, fitted with Λ⁻²",
            free.value[1],
            1.0,
            2 * free.error[1],
            told,
        )
        found, table = dimuon_fraction(measured, fit), constants.BRANCHING[DECAYS[meson][1]]
        own = f"± {found.points:.1e} (apart), {found.common:.1e} (together), {found.photons:.1e} (photons)"
        both = float(np.hypot(found.error, table.error))
        apart = abs(found.value - table.value) / both
        told = f"Particle Data Group, ± {table.error:.1e}; ours {own}; {apart:.1f} σ apart, tolerance 2 σ"
        yield _row(f"BR({DECAYS[meson][1]}) from the points", found.value, table.value, 2 * both, told)


def _rate() -> Iterator[dict]:
    mass = np.array([0.2125, 0.3, 0.4, 0.47, 0.5, 0.6])
    rate, error = partial_rate(mass)
    for m, value, sigma in zip(mass, rate, error, strict=True):
        quantity = f"PARTIAL A′ per interacting proton and ε², copper, {m:g} GeV"
        yield _row(quantity, value, sigma, 0, "η and ω Dalitz; 'expected' is the error", measured=True)
    for meson in PUBLISHED:
        made = channel(meson)
        m = np.linspace(*made.measured.mass_range, 200)[1:-1]
        step = made.fit.at(m) / made.measured.at(m) - 1
        worst = float(np.abs(step).max())
        yield _row(
            f"points against pole, {meson}: largest step",
            worst,
            0,
            0,
            f"{NA60}; an error of the rate",
            measured=True,
        )


def _star() -> Iterator[dict]:
    for table, source, lowest in (
        (star_tables.gold_19(), STAR_19, 1000),
        (star_tables.gold_200(), STAR_200, 0),
    ):
        n = len(table.low)
        good = int((np.abs(table.residual) <= 1).sum())
        yield _row(f"bins whose signal agrees to rounding, of {n}", good, n, 0, source)
        many = table.unlike * (table.high - table.low) / star_tables.PER_BIN >= lowest
        ratio = (table.error / table.published_error)[many]
        worst = ratio[np.argmax(np.abs(ratio - 1))]
        yield _row(
            "error of the signal over the published one, farthest bin",
            worst,
            1,
            0.005,
            f"{source}; ours from counts",
        )
    mass, r, _ = star_tables.r_from_errors()
    ratio = (r / star_tables.acceptance(mass)[0])[1:]
    worst = ratio[np.argmax(np.abs(ratio - 1))]
    yield _row(
        "R implied by errors over R of mixed events, farthest bin above 10 MeV",
        worst,
        1,
        0.01,
        f"{STAR_200}, Figs. 17, 20",
    )
    mixed = star_tables.mixed_events()
    yield _row(
        "like-sign over mixed pairs, 0.15 to 3 GeV",
        mixed["constant"],
        1,
        0,
        f"{STAR_200}, Fig. 18",
        measured=True,
    )
    shift = star_tables.numbers()["200 GeV"][
        "signal with R = 1: largest shift in standard deviations, like-sign region"
    ]
    yield _row("signal with R = 1: largest shift [standard deviations]", shift, 0, 0, STAR_200, measured=True)


def _phenix() -> Iterator[dict]:
    found = phenix_tables.numbers()
    told = f"{PHENIX}, Fig. 5; one constant, smoothing chosen by left-out points ({found['chosen']})"
    n = found["masses"]
    yield _row(
        f"masses whose ε² is within 5 % of the published one, of {n} (goal 90 %)",
        found["within 5 %"],
        n,
        0.1 * n,
        told,
    )
    yield _row("ε² over the published one, rms of 61 masses", found["rms"], 0, 0.03, told)
    yield _row(
        "drift of ε² over the published one from 30 to 90 MeV", found["drift from end to end"], 0, 0.03, told
    )
    printed = found["within 5 %, every candidate"]["printed, ln m"]
    yield _row(
        "the same with the bins of the spectrum as printed", printed, n, 0, "arXiv:0912.0244", measured=True
    )
    both = phenix_combined.combined(np.array([0.04, 0.05, 0.06, 0.07, 0.08]))
    told = "product of two normal likelihoods; candidates of PHENIX, and a MOCK search in situ"
    worst = np.abs(both.both / both.normal - 1).max()
    yield _row("MOCK: ε² of both in one workspace, largest difference at 5 masses", worst, 0, 0.01, told)
    gain = float(np.max(both.both / np.minimum(both.phenix, both.mock)))
    yield _row("MOCK: that ε² over the better of either, largest", gain, 1, 0, "below one", measured=True)
