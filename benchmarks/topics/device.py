"""Training and draws of the flow on a CUDA device, beside one core of the same machine.

Left out where torch finds no such device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from topics._normflows import sample

from gammastar.flow import FlowOptions, KinematicFlow, fit, fit_ensemble, has_cuda
from gammastar.flow.options import Table

BEAM = 400.0
DRAWS = 1_000_000
MEMBERS = 8


def seconds(function: Callable[[], object], rounds: int = 3) -> float:
    """Return the shortest time of some rounds [s]; the time of the clock, as the device works beside us."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def trained(pairs: np.ndarray, options: FlowOptions) -> KinematicFlow:
    return fit(*pairs.T, beam_energy=BEAM, options=options, rng=np.random.default_rng(2))


def rows() -> Iterator[dict]:
    if not has_cuda():
        print("device: left out, torch finds no CUDA device", file=sys.stderr)
        return
    torch.set_num_threads(1)
    name, rng = torch.cuda.get_device_name(), np.random.default_rng(1)
    pairs, untouched = np.split(sample(310_000, rng)[:310_000], [300_000])
    on_core, on_device = FlowOptions(), FlowOptions(device="auto")
    trained(pairs, replace(on_core, epochs=1)), trained(pairs, replace(on_device, epochs=1))  # first calls
    ours, theirs = (seconds(lambda o=o: trained(pairs, o), 2) for o in (on_device, on_core))
    claim = f"training, 3e5 pairs, 20 epochs: {name} {ours:.3g} s, one core {theirs:.3g} s"
    yield {"claim": claim, "measured": theirs / ours, "goal": 3.0}
    flows = [trained(pairs, options) for options in (on_core, on_device)]
    losses = [-float(flow.log_prob(*untouched.T).mean()) for flow in flows]
    claim = f"loss on 1e4 untouched points, device {losses[1]:.4f} minus core {losses[0]:.4f}"
    yield {"claim": claim, "measured": losses[1] - losses[0], "goal": 0.003, "higher": False, "unit": " nat"}
    table = Table(*pairs.T, np.ones(len(pairs)), np.arange(len(pairs)))
    many = {"beam_energy": BEAM, "members": MEMBERS, "seed": 1}
    ours = seconds(lambda: fit_ensemble(table, options=on_device, **many), 1)
    claim = f"{MEMBERS} members on replicas of the events, on the device"
    yield {"claim": claim, "measured": ours, "goal": 20.0, "higher": False, "unit": " s"}
    yield from _draws(flows[0], rng)


def _draws(flow: KinematicFlow, rng: np.random.Generator) -> Iterator[dict]:
    there, mass = flow.on("auto"), rng.uniform(*flow.mass_range, DRAWS)
    normal = rng.standard_normal((DRAWS, 2))
    here_pt, here_energy = flow.transform(mass, normal)
    pt, energy = there.transform(mass, normal)
    ours, theirs = (seconds(lambda f=f: f.transform(mass, normal)) for f in (there, flow))
    claim = f"10⁶ draws at 10⁶ masses: device {ours:.3g} s, one core {theirs:.3g} s"
    yield {"claim": claim, "measured": theirs / ours, "goal": 2.0}
    apart = np.maximum(np.abs(pt / here_pt - 1), np.abs(energy / here_energy - 1))
    claim = "the same draws there and here, 99.9 % of them agree within"
    yield {"claim": claim, "measured": np.quantile(apart, 0.999), "goal": 1e-3, "higher": False, "unit": ""}
    ours, theirs = (seconds(lambda f=f: f.log_prob(mass, pt, energy, single=True)) for f in (there, flow))
    claim = f"10⁶ densities, single precision: device {ours:.3g} s, one core {theirs:.3g} s"
    yield {"claim": claim, "measured": theirs / ours, "goal": 2.0}
