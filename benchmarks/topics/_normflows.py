"""`normflows` in the configuration of the data-driven paper, and the pairs that it is compared on.

Where `normflows` is not installed, our own version of the same configuration takes its place and the claims
say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from na60_dimuon.paper_flow import PaperNetwork

from gammastar.core.files import data_path
from gammastar.flow import FlowOptions, KinematicFlow, fit
from gammastar.mock.card import load_card
from gammastar.mock.cocktail import generate_pairs

EPOCH = 50_000
RANGE = (0.2114, 1.1)


def sample(n: int, rng: np.random.Generator) -> np.ndarray:
    made = generate_pairs(load_card(data_path("cards/na60_mock.toml")), n, rng)
    values = np.column_stack([made.mass, made.pt, made.energy])
    return rng.permutation(values[(made.mass > RANGE[0]) & (made.mass < RANGE[1])])


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


class Peer:
    """Eight autoregressive spline steps of six bins with linear mixing, nets of 2 × 32, Adam at 1e-3."""

    def __init__(self, seed: int, n_context: int = 1) -> None:
        torch.manual_seed(seed)
        try:
            import normflows as nf
        except ImportError:
            self.name, self.model = (
                "the paper's preset (normflows is not installed)",
                PaperNetwork(8, 6, 32, 2, n_context),
            )
            self.log_prob, self.sample = self.model.log_density, self._own_sample
        else:
            steps = []
            for _ in range(8):
                steps.append(
                    nf.flows.AutoregressiveRationalQuadraticSpline(
                        2, 2, 32, num_context_channels=n_context, num_bins=6
                    )
                )
                steps.append(nf.flows.LULinearPermute(2))
            base = nf.distributions.DiagGaussian(2, trainable=False)
            self.name, self.model = "normflows", nf.ConditionalNormalizingFlow(base, steps)
            self.log_prob = self.model.log_prob
            self.sample = lambda context: self.model.sample(len(context), context)[0]
        self.adam = torch.optim.Adam(self.model.parameters(), lr=1e-3, weight_decay=1e-5)
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def _own_sample(self, context: torch.Tensor) -> torch.Tensor:
        return self.model.draw(torch.randn(len(context), 2), context)

    def step(self, x: torch.Tensor, context: torch.Tensor, rate: tuple[float, float] | None = None) -> None:
        """Make one step of the training, at a learning rate and first momentum if they are given."""
        if rate is not None:
            group = self.adam.param_groups[0]
            group["lr"], group["betas"] = rate[0], (rate[1], 0.999)
        loss = -self.log_prob(x, context).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


def fitted(train: np.ndarray, epochs: int, seed: int) -> tuple[KinematicFlow, float]:
    options = FlowOptions(epochs=epochs, epoch_size=EPOCH, mass_range=RANGE)
    start = time.process_time()
    flow = fit(*train.T, beam_energy=400.0, options=options, rng=np.random.default_rng(seed))
    return flow, time.process_time() - start
