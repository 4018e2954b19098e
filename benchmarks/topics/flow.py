"""The flow against `normflows` in the configuration of the data-driven paper: training, sampling, divergence.

The peer is trained for 89 epochs of 5e4 pairs (minutes); ``--full`` goes on to all 500 of the paper, with
three seeds (an hour or two), GAMMASTAR_BENCHMARK_EPOCHS sets another number. A second peer has our
preprocessing and schedule. Where `normflows` is not installed, our own version of the same configuration
takes its place and the claims say so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree

from gammastar.core.data import data_path
from gammastar.flow import FlowOptions, KinematicFlow, PaperNetwork, fit, kl_divergence, tabulate
from gammastar.flow.bijection import make_bijection
from gammastar.flow.optimise import learning_rate
from gammastar.flow.paper import Standardiser
from gammastar.simulate.card_file import load_card
from gammastar.simulate.toy import generate_pairs

BATCH, EPOCH, DRAWS = 1024, 50_000, 20_000
LAST = 5  # epochs whose mean is the peer's result: at a constant rate the loss jumps
LENGTHS = (2, 4, 7, 12, 20, 40, 60)  # epochs of ours, each a schedule of its own
EPOCHS, FULL_EPOCHS, FULL_SEEDS = 89, 500, 3
HELPED = 10  # epochs of the peer with our preprocessing and schedule
RANGE = (0.2114, 1.1)


def _sample(n: int, rng: np.random.Generator) -> np.ndarray:
    made = generate_pairs(load_card(data_path("cards/na60_mock.toml")), n, rng)
    values = np.column_stack([made.mass, made.pt, made.energy])
    return rng.permutation(values[(made.mass > RANGE[0]) & (made.mass < RANGE[1])])


def _seconds(function: Callable[[], object]) -> float:
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


def rows(*, full: bool = False) -> Iterator[dict]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    train = _sample(310_000, rng)[:300_000]
    chooses, untouched = _sample(60_000, rng), _sample(105_000, rng)[:100_000]
    yield from _training(train, chooses, untouched, full=full)
    yield from _helped(train, chooses, untouched)
    flow = _fit(train, 2, 1)[0]
    yield from _sampling(flow, rng)
    yield from _divergence(rng)


def _fit(train: np.ndarray, epochs: int, seed: int) -> tuple[KinematicFlow, float]:
    options = FlowOptions(epochs=epochs, epoch_size=EPOCH, mass_range=RANGE)
    start = time.process_time()
    flow = fit(*train.T, beam_energy=400.0, options=options, rng=np.random.default_rng(seed))
    return flow, time.process_time() - start


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

        seconds += _seconds(run)
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
        flow, seconds = _fit(train, length, seed)
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


def _sampling(flow: KinematicFlow, rng: np.random.Generator) -> Iterator[dict]:
    peer, contexts = Peer(1), torch.rand(DRAWS, 1)
    mass, fixed = rng.uniform(*RANGE, DRAWS), 0.7
    table = tabulate(flow, fixed, rng=rng)
    table.draw(10, rng)  # compiles

    def theirs() -> None:
        with torch.no_grad():
            peer.sample(contexts)

    theirs()
    runs = [
        (
            _seconds(theirs),
            _seconds(lambda: flow.sample(mass, rng)),
            _seconds(lambda: table.draw(100 * DRAWS, rng)) / 100,
        )
        for _ in range(5)
    ]
    peer_time, flow_time, table_time = (min(column) for column in zip(*runs, strict=True))
    yield {
        "claim": f"sampling against {peer.name}, 2e4 draws",
        "measured": peer_time / flow_time,
        "goal": 15.0,
    }
    note = f"table at one mass against {peer.name} (error {table.error:.1g}), per draw"
    yield {"claim": note, "measured": peer_time / table_time, "goal": 100.0}
    speed = {
        "claim": "draws per second, flow",
        "measured": DRAWS / flow_time / 1e6,
        "goal": 0.3,
        "unit": " M/s",
    }
    yield speed
    yield {**speed, "claim": "draws per second, table", "measured": DRAWS / table_time / 1e6, "goal": 10.0}


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
        (_seconds(lambda: _plain_divergence(model, data)), _seconds(lambda: kl_divergence(model, data)))
        for _ in range(3)
    ]
    plain_time, our_time = (min(column) for column in zip(*runs, strict=True))
    claim = "divergence of 1e5 points against scipy's defaults, equal value"
    yield {"claim": claim, "measured": plain_time / our_time, "goal": 1.5}
