"""Dark photons per proton on target and ε² from a record of weighted events; needs numpy alone.

    python3 dark_photon_rate.py events.json 0.3 0.5 0.78

The file beside the .json, of the same name and .npz, holds the events. Printed are mass [GeV], rate, and its
error from the replicas and from the sources that move all masses together.
"""

import json
import sys
from pathlib import Path

import numpy as np


def kappa(mass, about):
    """Return (α/3π)(1 + 2 mₗ²/m²) √(1 − 4 mₗ²/m²)."""
    x = np.minimum((about["lepton_mass"] / mass) ** 2, 0.25)
    return about["alpha"] / (3 * np.pi) * (1 + 2 * x) * np.sqrt(1 - 4 * x)


def rates(path, masses):
    """Return the rate at some masses [GeV] with its weights varied: nominal, replicas, sources."""
    about = json.loads(Path(path).read_text(encoding="utf-8"))
    events = np.load(Path(path).with_suffix(".npz"), allow_pickle=False)
    order = np.argsort(events["mass"])
    mass, weight = events["mass"][order], events["weight"][order]
    if "mass_edges" in about:  # the weights are known per bin
        edges = np.array(about["mass_edges"])
        bins = np.clip(np.searchsorted(edges, masses, "right") - 1, 0, len(edges) - 2)
        low, high = edges[bins], edges[bins + 1]
        start, stop = np.searchsorted(mass, low), np.searchsorted(mass, high)
        count = lambda w: np.append(0, np.cumsum(w))[stop] - np.append(0, np.cumsum(w))[start]  # noqa: E731
    else:  # the masses are even: every event stands for the part of the range around it
        first, last = about["mass_range"]
        low = np.maximum(np.subtract(masses, about["half_window"]), first)
        high = np.minimum(np.add(masses, about["half_window"]), last)
        ends = np.concatenate([[first], 0.5 * (mass[1:] + mass[:-1]), [last]])
        sums = lambda w: np.append(0, np.cumsum(w))  # noqa: E731
        count = lambda w: np.interp(high, ends, sums(w)) - np.interp(low, ends, sums(w))  # noqa: E731
    grid = low + (high - low) * (np.arange(200)[:, None] + 0.5) / 200
    per_rate = (2 * kappa(grid, about) / grid).mean(axis=0) * (high - low)
    varied = lambda name: [weight * row for row in events[name][:, order]] if name in events else []  # noqa: E731
    nominal = count(weight) / per_rate
    replicas = [count(w) / per_rate for w in varied("replicas")]
    sources = [count(w) / per_rate for w in varied("sources")]  # what one standard deviation adds
    return nominal, np.array(replicas), np.array(sources)


if __name__ == "__main__":
    wanted = np.array(sys.argv[2:], dtype=float)
    found, copies, shifts = rates(sys.argv[1], wanted)
    variance = (copies.var(axis=0, ddof=1) if len(copies) else 0) + (shifts**2).sum(axis=0)
    np.savetxt(sys.stdout, np.stack([wanted, found, np.sqrt(variance) * np.ones_like(found)], 1), "%.6g")
