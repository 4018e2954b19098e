"""From pairs to both edges of a reach: campaigns and an own truth, yields and an own Monte Carlo.

What is asked of the campaigns stands in `edges_campaigns`, and was written before any was compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from validation import edges_campaigns as campaigns
from validation import edges_yields
from validation._rows import row

from gammastar.core import constants

N_CAMPAIGNS, N_SAMPLES, ONE_SIGMA, FARTHEST = 104, 8, 0.683, 3.5
SIDES = ("lower", "upper")
INDEPENDENT = 5  # of the masses of one detector and side; 15 of all of them together


def rows(*, quick: bool) -> Iterator[dict]:
    yield from edges_yields.rows()
    if not quick:
        yield from flanks()
        yield from coverage()


def flanks() -> Iterator[dict]:
    """Yield pulls of bins of mass inside the measured domain, of samples of Pythia's hadrons of their own.

    The mean over the samples is expected to stay below one error of a single one, beside the lines as well.
    """
    found = [campaigns.mass_bins(k) for k in range(N_SAMPLES)]
    true = np.mean([one["true"] for one in found], axis=0)
    pulls, n_mass = [], len(true)
    for one in found:
        inside = one["domain"].reshape(n_mass, -1)
        error = np.zeros(n_mass)
        for i, cells in enumerate(inside):
            own = np.flatnonzero(cells) + i * len(cells)
            error[i] = np.sqrt(one["cov"][np.ix_(own, own)].sum())
        off = ((one["cells"] - true).reshape(n_mass, -1) * inside).sum(axis=1)
        pulls.append(np.divide(off, error, out=np.full(n_mass, np.nan), where=error > 0))
    pulls, label = np.array(pulls), f"{N_SAMPLES} samples of Pythia's hadrons"
    known = np.isfinite(pulls).all(axis=0)
    rms = float(np.sqrt(np.mean(pulls[:, known] ** 2)))
    scatter = 3 / np.sqrt(2 * N_SAMPLES * known.sum() / 4)  # of four bins that move together
    yield row(f"{label}: rms pull of bins of mass", rms, 0.5, 0.5 + scatter, "1 or less; three errors")
    low, high = campaigns.EDGES[:-1], campaigns.EDGES[1:]
    for name, pole in (("ω", constants.mass(223)), ("φ", constants.mass(333))):
        line = np.flatnonzero((low <= pole) & (pole < high))[0]
        for place, i in (("below", line - 1), ("of", line), ("above", line + 1)):
            text = (
                f"rms {np.sqrt(np.mean(pulls[:, i] ** 2)):.2f}; three errors of the mean and one of a sample"
            )
            where = f"{label}: mean pull of the bin {place} the {name}, {low[i]:.3f} to {high[i]:.3f} GeV"
            yield row(where, pulls[:, i].mean(), 0.0, 1.0 + 3 / np.sqrt(N_SAMPLES), text)


def coverage() -> Iterator[dict]:
    """Yield coverage of ±1σ by edge, of each detector and side, of each mass, and the farthest edge."""
    found = [campaigns.campaign(i) for i in range(N_CAMPAIGNS)]
    every, label = [], f"{N_CAMPAIGNS} campaigns"
    for name in campaigns.DETECTORS:
        for side, which in enumerate(SIDES):
            pulls = np.array([pull(one, name, side) for one in found])
            every.append(pulls)
            yield _covered(f"{label}: coverage of ±1σ, {which} edges of {name}", pulls, INDEPENDENT)
            for k, mass in enumerate(campaigns.MASSES):
                own = pulls[:, k][np.isfinite(pulls[:, k])]
                if len(own):
                    text = f"{len(own)} edges; mean pull {own.mean():+.2f}, farthest {np.abs(own).max():.1f}"
                    where = f"{label}: coverage, {which} edge of {name} at {mass:g} GeV"
                    yield row(where, np.mean(np.abs(own) < 1), ONE_SIGMA, 0.0, text) | {"measured": True}
    yield _covered(f"{label}: coverage of ±1σ, all edges", np.concatenate(every, axis=1), 3 * INDEPENDENT)
    far = np.nanmax(np.abs(every))
    yield row(f"{label}: farthest edge in σ", far, 0.0, FARTHEST, f"of {np.isfinite(every).sum()} edges")


def pull(found: dict[str, np.ndarray], name: str, side: int) -> np.ndarray:
    """Return ln(true/stated events) at the stated edges over its error, that of the truth in it, per mass."""
    one = campaigns.compared(found, name)
    return one["log"][:, side] / np.hypot(one["sigma"][:, side], one["true_error"][:, side])


def _covered(quantity: str, pulls: np.ndarray, independent: int) -> dict:
    """Return a row that fails below 0.683 less two errors; more is conservative."""
    value = float(np.mean(np.abs(pulls[np.isfinite(pulls)]) < 1))
    least = ONE_SIGMA - 2 * np.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / independent)
    source = f"asked ≥ {least:.2f}: 0.683 less two errors of {independent} independent masses"
    return row(quantity, value, 0.5 * (least + 1), 0.5 * (1 - least), source)
