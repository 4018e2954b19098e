"""Training of the flow against `normflows` in the configuration of the data-driven paper.

The peer is trained for 89 epochs of 5e4 pairs (minutes); ``--full`` goes on to all 500 of the paper, with
three seeds (an hour or two), GAMMASTAR_BENCHMARK_EPOCHS sets another number. A second peer has our
preprocessing and schedule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from na60_dimuon.paper_flow import Standardiser
from topics._normflows import EPOCH, Peer, cpu_seconds, fitted, sample

from gammastar.flow import FlowOptions, KinematicFlow
from gammastar.flow.network import make_bijection
from gammastar.flow.training import learning_rate

BATCH = 1024
LAST = 5  # epochs whose mean is the peer's result: at a constant rate the loss jumps
LENGTHS = (2, 4, 7, 12, 20, 40, 60)  # epochs of ours, each a schedule of its own
EPOCHS, FULL_EPOCHS, FULL_SEEDS = 89, 500, 3
HELPED = 10  # epochs of the peer with our preprocessing and schedule


def rows(*, full: bool = False) -> Iterator[dict]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    train = sample(310_000, rng)[:300_000]
    chooses, untouched = sample(60_000, rng), sample(105_000, rng)[:100_000]
    yield from _training(train, chooses, untouched, full=full)
    yield from _helped(train, chooses, untouched)


class Data:
    """The points as a peer sees them: logarithms, centred and scaled; or our Gaussianised marginals."""

    def __init__(self, train: np.ndarray, *, helped: bool) -> None:
        if helped:
            ones, edges = np.ones(len(train)), (float(train[:, 0].min()), float(train[:, 0].max()))
            self.map = make_bijection(*train.T, ones, beam_energy=400.0, mass_range=edges)
        else:
            self.map = Standardiser.of(*train.T, np.ones(len(train)))
        self.train, self.context, _ = self.of(train)

    def of(self, points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Return variables, context and ln |Jacobian|."""
        if isinstance(self.map, Standardiser):
            x, context, log_jacobian = self.map.forward(*points.T)
        else:
            x, log_jacobian = self.map.forward(*points.T)
            context = self.map.condition(np.clip(points[:, 0], *self.map.mass_range))
        return torch.from_numpy(x).float(), torch.from_numpy(context).float(), log_jacobian


def _peer_loss(peer: Peer, data: Data, points: np.ndarray) -> float:
    """Return the loss, p in GeV⁻²."""
    x, context, log_jacobian = data.of(points)
    with torch.no_grad():
        found = torch.cat(
            [peer.log_prob(a, c) for a, c in zip(x.split(10_000), context.split(10_000), strict=True)]
        )
    return float(-(found.double().numpy() + log_jacobian).mean())


def _peer_results(
    samples: tuple[np.ndarray, ...], milestones: tuple[int, ...], seed: int, *, helped: bool = False
) -> Iterator[tuple[Peer, int, float, list[float]]]:
    """Yield the peer, epochs, CPU time (steps alone) and losses on all samples but the first, per milestone.

    `helped`: our preprocessing and schedule, and the loss of the last epoch; else the mean of the last five.
    The peer's own learning rate is constant, so that a long training passes through the shorter ones.
    """
    data = Data(samples[0], helped=helped)
    peer = Peer(seed, data.context.shape[1])
    rng, seconds, losses, epochs = np.random.default_rng(seed), 0.0, [], milestones[-1]
    options = FlowOptions(epochs=epochs, learning_rate=3e-3)
    per_epoch = -(EPOCH // -BATCH)
    for epoch in range(epochs):
        index = torch.from_numpy(rng.choice(len(data.train), EPOCH, replace=False))

        def run(index: torch.Tensor = index, first: int = epoch * per_epoch) -> None:
            for number, part in enumerate(index.split(BATCH), start=first):
                rate = learning_rate(number, epochs * per_epoch, options) if helped else None
                peer.step(data.train[part], data.context[part], rate)

        seconds += cpu_seconds(run)
        if any(end - (1 if helped else LAST) <= epoch < end for end in milestones):
            losses.append([_peer_loss(peer, data, points) for points in samples[1:]])
        if epoch + 1 in milestones:
            yield peer, epoch + 1, seconds, np.mean(losses, axis=0).tolist()
            losses = []


def _loss(flow: KinematicFlow, points: np.ndarray) -> float:
    return float(-flow.log_prob(*points.T).mean())


def _ours(train: np.ndarray, chooses: np.ndarray, goal: float, seed: int) -> tuple[KinematicFlow, float, str]:
    """Return the shortest of our trainings that reaches the goal on `chooses`, CPU time and length."""
    for length in LENGTHS:
        flow, seconds = fitted(train, length, seed)
        if _loss(flow, chooses) <= goal:
            return flow, seconds, f"{length} epochs"
    return flow, float("inf"), f"not reached in {LENGTHS[-1]} epochs"


def _training(train: np.ndarray, chooses: np.ndarray, untouched: np.ndarray, *, full: bool) -> Iterator[dict]:
    short = int(os.environ.get("GAMMASTAR_BENCHMARK_EPOCHS", str(EPOCHS)))
    milestones = (short, FULL_EPOCHS) if full else (short,)
    for seed in range(1, (FULL_SEEDS if full else 1) + 1):
        samples = (train, chooses, untouched)
        for peer, epochs, theirs, (goal, target) in _peer_results(samples, milestones, seed):
            flow, ours, length = _ours(train, chooses, goal, seed)
            reached = _loss(flow, untouched)
            what = f"CPU time to the loss {target:.4f} of {peer.name} ({peer.parameters} parameters, "
            what += (
                f"{epochs} epochs, {theirs:.0f} s, seed {seed}); ours {length}, {ours:.1f} s, {reached:.4f}"
            )
            yield {"claim": what, "measured": theirs / ours, "goal": 10.0}
            yield {
                "claim": f"loss on untouched points, theirs ({epochs} epochs) minus ours (seed {seed})",
                "measured": target - reached,
                "goal": -0.001,
                "unit": " nat",
            }


def _helped(train: np.ndarray, chooses: np.ndarray, untouched: np.ndarray) -> Iterator[dict]:
    """Yield the same peer with our preprocessing and schedule: what the architecture alone is worth."""
    samples = (train, chooses, untouched)
    ((peer, _, theirs, (goal, target)),) = _peer_results(samples, (HELPED,), 1, helped=True)
    flow, ours, length = _ours(train, chooses, goal, 1)
    what = f"the same, {peer.name} with our preprocessing and schedule ({HELPED} epochs, {theirs:.0f} s, "
    what += f"{target:.4f}); ours {length}, {ours:.1f} s, {_loss(flow, untouched):.4f}; reported, no goal"
    yield {"claim": what, "measured": theirs / ours, "goal": 0.0}
