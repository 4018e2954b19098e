"""The flow against `normflows` in the configuration of the data-driven paper: sampling and divergence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree
from topics._normflows import RANGE, Peer, cpu_seconds, fitted, sample

from gammastar.flow import KinematicFlow, kl_divergence

DRAWS = 20_000


def rows() -> Iterator[dict]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    flow = fitted(sample(310_000, rng)[:300_000], 2, 1)[0]
    yield from _sampling(flow, rng)
    yield from _divergence(rng)


def _sampling(flow: KinematicFlow, rng: np.random.Generator) -> Iterator[dict]:
    peer, contexts = Peer(1), torch.rand(DRAWS, 1)
    mass, fixed = rng.uniform(*RANGE, DRAWS), 0.7
    at_mass = flow.at_mass(fixed)
    at_mass(rng.standard_normal((10, 2)))  # compiles

    def theirs() -> None:
        with torch.no_grad():
            peer.sample(contexts)

    theirs()
    runs = [
        (
            cpu_seconds(theirs),
            cpu_seconds(lambda: flow.sample(mass, rng)),
            cpu_seconds(lambda: at_mass(rng.standard_normal((10 * DRAWS, 2)))) / 10,
        )
        for _ in range(5)
    ]
    peer_time, flow_time, mass_time = (min(column) for column in zip(*runs, strict=True))
    yield {
        "claim": f"sampling against {peer.name}, 2e4 draws",
        "measured": peer_time / flow_time,
        "goal": 15.0,
    }
    note = f"at one mass against {peer.name}, per draw"
    yield {"claim": note, "measured": peer_time / mass_time, "goal": 30.0}
    speed = {
        "claim": "draws per second, flow",
        "measured": DRAWS / flow_time / 1e6,
        "goal": 0.3,
        "unit": " M/s",
    }
    yield speed
    yield {
        **speed,
        "claim": "draws per second, at one mass",
        "measured": DRAWS / mass_time / 1e6,
        "goal": 3.0,
    }


def _plain_divergence(model: np.ndarray, data: np.ndarray, k: int = 2) -> float:
    """Return the same estimate with scipy's default trees."""
    scale = data.std(axis=0)
    model, data = model / scale, data / scale
    own = cKDTree(model).query(model, k=k + 1)[0][:, -1]
    other = cKDTree(data).query(model, k=k)[0][:, -1]
    return float(2 * np.mean(np.log(other / own)) + np.log(len(data) / (len(model) - 1)))


def _divergence(rng: np.random.Generator) -> Iterator[dict]:
    model, data = rng.normal(size=(100_000, 2)), rng.normal(size=(100_000, 2))
    ours, plain = kl_divergence(model, data), _plain_divergence(model, data)
    if abs(ours - plain) > 1e-6:
        msg = f"the two estimates differ: {ours} and {plain}"
        raise ValueError(msg)
    runs = [
        (cpu_seconds(lambda: _plain_divergence(model, data)), cpu_seconds(lambda: kl_divergence(model, data)))
        for _ in range(3)
    ]
    plain_time, our_time = (min(column) for column in zip(*runs, strict=True))
    claim = "divergence of 1e5 points against scipy's defaults, equal value"
    yield {"claim": claim, "measured": plain_time / our_time, "goal": 1.5}
