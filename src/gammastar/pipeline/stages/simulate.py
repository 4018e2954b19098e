"""The MOCK data set of a run, made from a card at run time."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from gammastar import mock
from gammastar.core.errors import SteeringError
from gammastar.core.files import shipped
from gammastar.core.records import Arrays
from gammastar.pipeline.context import Context, RunState, needed
from gammastar.store.events import tree_writer
from gammastar.store.manifest import file_sha256

N_R_FACTOR = 50_000  # generated events for R, where the engine is Pythia


def simulate_stage(ctx: Context, state: RunState) -> None:
    """Write the mock files; keep what later stages need to know about them."""
    section = needed(ctx.steering.simulate, "simulate")
    ctx.tell("simulate", None, f"card {section.card}")
    card = mock.load_card(shipped(section.card, ctx.base, "cards"), leave_out=section.leave_out)

    def compute() -> Arrays:
        result: Arrays = {}
        common: Any = {"pairing": section.pairing, "workers": min(os.cpu_count() or 1, 4)}
        sizes = {"data": section.n_pairs, "response": section.n_response}
        for name, n in sizes.items():
            blocks = mock.simulate_blocks(
                card,
                n,
                kind="data" if name == "data" else "mc",
                prior="nominal" if name == "data" else section.response_prior,
                engine=section.engine if name == "data" else "toy",
                seed=ctx.seed,
                progress=functools.partial(_count, ctx, f"MOCK {name}"),
                **common,
            )
            path = ctx.folder / "input" / f"mock_{name}.root"
            with tree_writer(path, compression=section.compression, layout=section.format) as file:
                meta = mock.write_blocks(file, blocks)
            result |= {f"{name}_sha": np.array(file_sha256(path)), f"{name}_pot": np.array(meta["N_POT"])}
        ctx.tell("simulate", None, "charge ratio R of simulated combinatorial pairs")
        combinatorial = mock.simulate_events(
            card,
            min(section.n_pairs, mock.BLOCK),
            kind="background",
            engine=section.engine,
            n_events=N_R_FACTOR,
            seed=ctx.seed + 1,
            **common,
        )
        ratio = (combinatorial.meta["r_factor"], combinatorial.meta["r_factor_sigma"])
        return result | {"r_factor": np.array(ratio)}

    key = ctx.cache.key(section, card.digest)
    ctx.cache.inputs[f"card {card.name}"] = card.digest
    result = ctx.cache.arrays("simulate", key, compute)
    for kind in ("data", "response"):
        path = ctx.folder / "input" / f"mock_{kind}.root"
        if not path.is_file() or file_sha256(path) != str(result[f"{kind}_sha"]):
            raise SteeringError(f"{path}: missing or changed since it was made; run without --resume")
    state.simulated = result


def _count(ctx: Context, text: str, done: int, total: int) -> None:
    ctx.tell("simulate", done / total, f"{text}: {done} of {total}")
