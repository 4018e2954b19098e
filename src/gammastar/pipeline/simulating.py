"""Mock files at run time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gammastar import simulate
from gammastar.core.errors import SteeringError
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, shipped
from gammastar.store.events import write_tree
from gammastar.store.manifest import file_sha256

__all__ = ["simulate_stage", "write_mock"]

N_R_FACTOR = 100_000  # generated events for R, where the engine is Pythia


def simulate_stage(ctx: Context) -> Arrays:
    """Write the mock files; keep what later stages need to know about them."""
    section = ctx.steering.simulate
    if section is None:
        return {}
    card = simulate.load_card(shipped(section.card, ctx.base, "cards"))

    def compute() -> Arrays:
        result: Arrays = {}
        sizes = {"data": section.n_pairs, "response": section.n_response}
        for name, n in sizes.items():
            events = simulate.simulate_events(
                card,
                n,
                kind="data" if name == "data" else "mc",
                prior="nominal" if name == "data" else section.response_prior,
                pairing=section.pairing,
                engine=section.engine if name == "data" else "toy",
                workers=min(os.cpu_count() or 1, 4),
                cache=ctx.folder / "input" / "pythia",
                seed=ctx.seed,
                progress=_counter(ctx, f"MOCK {name}"),
            )
            path = ctx.folder / "input" / f"mock_{name}.root"
            write_mock(path, events)
            result |= {
                f"{name}_sha": np.array(file_sha256(path)),
                f"{name}_pot": np.array(events.meta["N_POT"]),
            }
        ctx.tell("simulate", None, "charge ratio R of simulated combinatorial pairs")
        combinatorial = simulate.simulate_events(
            card,
            section.n_pairs,
            kind="background",
            pairing=section.pairing,
            engine=section.engine,
            n_events=N_R_FACTOR,
            workers=min(os.cpu_count() or 1, 4),
            cache=ctx.folder / "input" / "pythia",
            seed=ctx.seed + 1,
        )
        found = (combinatorial.meta["r_factor"], combinatorial.meta["r_factor_sigma"])
        return result | {"r_factor": np.array(found)}

    key = ctx.book.key(section, card.digest)
    ctx.book.inputs[f"card {card.name}"] = card.digest
    result = ctx.book.arrays("simulate", key, compute)
    for kind in ("data", "response"):
        path = ctx.folder / "input" / f"mock_{kind}.root"
        if not path.is_file() or file_sha256(path) != str(result[f"{kind}_sha"]):
            msg = f"{path}: missing or changed since it was made; run without --resume"
            raise SteeringError(msg)
    return result


def _counter(ctx: Context, text: str) -> Callable[[int, int], None]:
    def count(done: int, total: int) -> None:
        ctx.tell("simulate", done / total, f"{text}: {done} of {total}")

    return count


def write_mock(path: Path, events: simulate.SimulatedEvents) -> None:
    """Write a mock sample as the trees ``events`` and ``meta``."""
    write_tree(path, {"events": events.branches, "meta": events.meta_branches()})
