"""Rows of pseudo-experiments of the main job: Pythia data, exact masses, full phase space, all errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "na60_dimuon"))

import campaigns
import pythia_campaigns

SIGMA = 0.683


def jackknife(statistic: Callable[[np.ndarray], float], pulls: np.ndarray) -> float:
    """Return the standard error of a statistic of pulls (campaigns, masses): delete-one jackknife."""
    n = len(pulls)
    left = [statistic(np.delete(pulls, i, axis=0)) for i in range(n)]
    return float(np.sqrt((n - 1) * np.var(left)))


def rms(pulls: np.ndarray) -> float:
    """Return the root of the mean square about the truth."""
    return float(np.sqrt(np.mean(pulls**2)))


def width(pulls: np.ndarray) -> float:
    """Return the width about the campaigns' own mean, mean over masses."""
    return float(pulls.std(axis=0, ddof=1).mean())


def covered(pulls: np.ndarray) -> float:
    """Return the share within one standard deviation."""
    return float(np.mean(np.abs(pulls) < 1.0))


def rows(n: int = pythia_campaigns.N_CAMPAIGNS) -> Iterator[dict]:
    """Yield the rows of every variant; the main one has the priors of the simulations thrown."""
    thrown, fixed = pythia_campaigns.VARIANTS
    pythia_campaigns.produce([thrown], n, campaigns.FOLDER)
    pythia_campaigns.produce([fixed], pythia_campaigns.N_QUICK, campaigns.FOLDER)
    yield from _rows(thrown, n)
    pulls, rate, _ = _pulls(fixed, n)
    label = f"{len(pulls)} campaigns of the main job, {fixed}"
    yield _measured(f"{label}: mean pull", pulls.mean(), 0.0, _with_error(pulls, np.mean))
    yield _measured(f"{label}: mean of rate/truth − 1", (rate - 1.0).mean(), 0.0, "common to all of them")


def _pulls(name: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pulls, rates over truth for the true protons, both (n, masses), and stated over true protons."""
    kept = campaigns.kept(name, n, pythia_campaigns.of_steering(campaigns.FOLDER))
    pulls = [(one["rate"] - one["truth"]) / one["error"] for one in kept]
    rates = [one["rate"] * one["pot"] / one["truth"] for one in kept]
    return np.array(pulls), np.array(rates), np.array([one["pot"] for one in kept])


def _rows(name: str, n: int) -> Iterator[dict]:
    pulls, rate, pot = _pulls(name, n)
    label = f"{len(pulls)} campaigns of the main job, {name}, full phase space"
    own = jackknife(rms, pulls)
    yield {
        "quantity": f"{label}: rms pull about the truth, all masses",
        "ours": rms(pulls),
        "expected": 1.025,
        "tolerance": 0.125 + 2.0 * own,
        "source": f"0.9 to 1.15, and twice its own error of {own:.3f}",
    }
    common = "what all campaigns share, the shape of Pythia where nothing is measured, is in the mean"
    yield _measured(
        f"{label}: width about their own mean", width(pulls), 1.0, _with_error(pulls, width, common)
    )
    yield _measured(f"{label}: mean pull", pulls.mean(), 0.0, _with_error(pulls, np.mean))
    yield {
        "quantity": f"{label}: covered by ±1σ",
        "ours": covered(pulls),
        "expected": SIGMA,
        "tolerance": 3.0 * jackknife(covered, pulls),
        "source": "three standard errors over campaigns",
    }
    kept = campaigns.kept(name, n, pythia_campaigns.of_steering(campaigns.FOLDER))
    worst = np.unravel_index(np.abs(pulls).argmax(), pulls.shape)
    source = (
        f"{pulls.shape[1]} masses each; the campaign whose protons are stated as {pot[worst[0]]:.2f} of them"
    )
    yield _measured(f"{label}: largest |pull| of a mass", np.abs(pulls).max(), 0.0, source)
    yield _measured(
        f"{label}: share of masses beyond 3σ", np.mean(np.abs(pulls) > 3.0), 0.0027, "normal: 0.0027"
    )
    bias, scatter = (rate - 1.0).mean(), rate.std(axis=0, ddof=1).mean()
    yield _measured(f"{label}: mean of rate/truth − 1, true protons on target", bias, 0.0, "of all masses")
    moved = np.mean([one["extrapolation_step"] for one in kept])
    quantity = f"{label}: mean relative step to the trend continued outside the domain"
    yield _measured(quantity, moved, 0.0, "part of the error; the central rate does not take it")
    yield _measured(f"{label}: scatter of rate/truth, true protons on target", scatter, 0.0, "of all masses")


def _with_error(pulls: np.ndarray, statistic: Callable[[np.ndarray], float], more: str = "") -> str:
    return f"± {jackknife(statistic, pulls):.3f}" + (f"; {more}" if more else "")


def _measured(quantity: str, ours: float, expected: float, source: str) -> dict:
    keys = ("quantity", "ours", "expected", "tolerance", "source")
    return dict(zip(keys, (quantity, float(ours), expected, 0.0, source), strict=True)) | {"measured": True}
