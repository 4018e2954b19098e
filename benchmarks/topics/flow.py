"""Training step and sampling of the flow against an autoregressive spline flow of the paper's size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import zuko

from gammastar.flow import FlowOptions, fit

BATCH, STEPS, DRAWS = 1024, 20, 20_000


def _sample(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mass = rng.uniform(0.22, 1.1, n)
    pt = rng.gamma(2.2, 0.15 + 0.15 * mass)
    energy = np.hypot(mass, pt) * np.cosh(rng.normal(4.0, 0.4, n))
    inside = energy < 400.0
    return mass[inside], pt[inside], energy[inside]


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def rows() -> Iterator[dict]:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    sample = _sample(60_000, rng)
    # Of the paper: eight autoregressive steps of six bins, two hidden layers of 32, Adam at a constant rate.
    reference = zuko.flows.NSF(2, 1, bins=6, transforms=8, hidden_features=(32, 32))
    adam = torch.optim.Adam(reference.parameters(), lr=1e-3, weight_decay=1e-5)
    x, context = torch.randn(BATCH, 2), torch.rand(BATCH, 1)

    def reference_steps() -> None:
        for _ in range(STEPS):
            loss = -reference(context).log_prob(x).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()

    def train(epochs: int) -> float:
        options = FlowOptions(epochs=epochs, epoch_size=STEPS * BATCH, batch=BATCH, validation=0.02)
        return _seconds(
            lambda: fit(*sample, beam_energy=400.0, options=options, rng=np.random.default_rng(2))
        )

    flow = fit(*sample, beam_energy=400.0, options=FlowOptions(epochs=2), rng=np.random.default_rng(2))
    mass = rng.uniform(*flow.mass_range, DRAWS)
    contexts = torch.rand(DRAWS, 1)

    def draw_reference() -> None:
        with torch.no_grad():
            reference(contexts).sample()

    reference_steps(), draw_reference()  # first calls are slower
    # Set-up and the fit of the marginals drop out of the difference of two lengths.
    rounds = [(_seconds(reference_steps), (train(9) - train(1)) / 8) for _ in range(3)]
    theirs, ours = (min(column) for column in zip(*rounds, strict=True))
    yield {
        "claim": "training step against zuko NSF of the paper's size",
        "measured": theirs / ours,
        "goal": 3.0,
    }
    draws = [(_seconds(draw_reference), _seconds(lambda: flow.sample(mass, rng))) for _ in range(5)]
    theirs, ours = (min(column) for column in zip(*draws, strict=True))
    yield {"claim": "sampling against the same, 2e4 draws", "measured": theirs / ours, "goal": 4.0}
    yield {
        "claim": "samples per second on one core",
        "measured": DRAWS / ours / 1e6,
        "goal": 0.1,
        "unit": " M/s",
    }
