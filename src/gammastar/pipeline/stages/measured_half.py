"""The subtraction of a run, its simulation with truth, and their files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from gammastar import subtract
from gammastar.core.axes import effective_size
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.read import match_stage
from gammastar.pipeline.stages.stored import CHUNK, StoredPairs, reopened
from gammastar.pipeline.stages.subtract import needs_simulation, subtract_stage
from gammastar.store.pairs import PairChunk, write_pairs
from gammastar.store.records import write_mass_histograms, write_table

__all__ = [
    "match_simulation",
    "subtract_half",
]


def subtract_half(ctx: Context, made: Any) -> None:
    """Subtract; write ``pairs.root``, the pairs with their weights as Parquet, and the named corrections."""
    if made.pairs is None:
        msg = "the section [select] is missing: the subtraction needs its result"
        raise SteeringError(msg)
    stored = reopened(ctx, made.cutflow)
    if needs_simulation(ctx.steering.subtract):
        match_simulation(ctx, made)
    made.hists, made.subtracted, made.subtraction = subtract_stage(
        ctx, made.pairs, made.simulated, made.inputs, made.truth, stored
    )
    write_mass_histograms(ctx.folder, made.hists, made.subtracted)
    if stored is None:
        _write_parquet(ctx, made.pairs, made.subtraction)
    else:
        _note_sample(ctx, stored, made.pairs, made.subtraction)
    kept = made.subtraction
    if "mixed_leptons" in kept:
        ctx.book.notes.append(
            f"more leptons than select.max_in_memory: mixed events are of {int(kept['mixed_leptons'])}, in "
            "events that their hash chooses, with classes weighted to all events"
        )
    if len(kept["removed_names"]):
        amount, sigma, fraction = kept["removed"].T
        table = {
            "source": kept["removed_names"],
            "pairs": amount,
            "error": sigma,
            "fraction": fraction,
            "reference": kept["removed_sources"],
        }
        write_table(ctx.folder / "corrections.csv", {key: column.tolist() for key, column in table.items()})


def match_simulation(ctx: Context, made: Any) -> None:
    """Read the simulation; say so where the stages that need it in memory have a sample."""
    made.truth = match_stage(ctx, made.inputs)
    made.matched = made.truth.sample
    stored = made.truth.stored
    if stored is not None:
        size = effective_size(made.matched.weight)
        ctx.book.numbers["simulated pairs in files"] = f"{stored.rows.n}"
        ctx.book.numbers["simulated pairs in memory"] = f"{len(made.matched)} (effective {size:.0f})"
        ctx.book.notes.append(
            f"{stored.rows.n} simulated photons and fakes are more than select.max_in_memory: the response "
            f"is of all of them; OmniFold, line shapes and the extrapolation have {len(made.matched)} "
            f"photons (effective {size:.0f}) of {stored.rows.share:.3%} of the events, chosen by their hash"
        )


def _note_sample(ctx: Context, stored: StoredPairs, pairs: Pairs, kept: Arrays) -> None:
    """Say which pairs the stages in memory have."""
    size = effective_size(kept["posterior"])
    ctx.book.numbers["pairs in files"] = f"{stored.n}"
    ctx.book.numbers["pairs in memory"] = f"{len(pairs)} (effective {size:.0f})"
    ctx.book.notes.append(
        f"{stored.n} pairs are more than select.max_in_memory: histograms and background are of all of them; "
        f"classifier, flow and OmniFold have {len(pairs)} pairs (effective {size:.0f}) of {stored.share:.3%} "
        "of the events, chosen by their hash, with weights scaled to the sum of all"
    )


def _write_parquet(ctx: Context, pairs: Pairs, kept: Arrays) -> None:
    """Write the pairs of the data with signed and posterior weights and bootstrap seeds, file by file."""
    if importlib.util.find_spec("pyarrow") is None:
        ctx.book.notes.append("pairs are not written as Parquet: pyarrow is not installed")
        return
    dataset = ctx.steering.analysis.name

    def chunks() -> Iterator[PairChunk]:
        for start in range(0, len(pairs), CHUNK):
            part = slice(start, start + CHUNK)
            index = np.arange(start, min(start + CHUNK, len(pairs)))
            seeds = subtract.event_seeds(pairs.event[part], dataset=dataset)
            yield PairChunk(pairs.select(index), seeds, kept["weight"][part], kept["posterior"][part])

    write_pairs(ctx.folder / "pairs", chunks(), dataset=dataset)
