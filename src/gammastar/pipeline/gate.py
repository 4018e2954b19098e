"""The gate: one table of checks before the spectrum; an error stops the run, an alarm is told everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np

from gammastar import read, select, subtract
from gammastar.config.measured import load_cuts, load_runs, load_schema
from gammastar.core.errors import BranchError, InputFileError, SteeringError
from gammastar.core.records import Spectrum
from gammastar.core.sampling import stream
from gammastar.pipeline.context import Context, axes_of, needed
from gammastar.read.meaning import unnamed_weights
from gammastar.spectrum.checks import (
    KINEMATIC,
    Check,
    of_both,
    of_cuts,
    of_pairs,
    of_r_factor,
    of_simulation,
    of_subtraction,
    of_tracks,
    of_unfolding,
    of_yield,
)

ROWS, MIXED = 40_000, 40_000  # entries of the first file that are looked at again; mixed pairs of each charge


def gate(ctx: Context, state: Any, spectrum: Spectrum) -> None:
    """Check; enter the table into the manifest and each alarm into the notes, refuse what cannot be right."""
    ctx.tell("checks", None, "")
    again = "select" in ctx.cache.taken and "checks" in ctx.cache.previous  # no input file is opened again
    rows = [_row(one) for one in _of_results(ctx, state, spectrum)]
    rows += (
        [row for row in ctx.cache.previous["checks"] if row["of_file"]] if again else _of_files(ctx, state)
    )
    ctx.cache.checks = rows
    wrong = []
    for row in rows:
        text = f"{row['name']}: {row['number']}, expected {row['threshold']}; {row['cure']}"
        if row["verdict"] == "alarm":
            ctx.cache.alarm(text)
        elif row["verdict"] == "error":
            wrong.append(text)
    if wrong:
        raise SteeringError("no result of this input can be right:\n  " + "\n  ".join(wrong))


def _row(check: Check, *, of_file: bool = False) -> dict[str, Any]:
    """Return a check as the manifest holds it; `of_file`: it comes from the files of the user alone."""
    return {
        "name": check.name,
        "number": f"{check.number:.4g}",
        "threshold": check.threshold,
        "cure": check.cure,
        "verdict": check.verdict,
        "of_file": of_file,
    }


def _of_results(ctx: Context, state: Any, spectrum: Spectrum) -> Iterator[Check]:
    kept, unfolding = state.subtraction, state.unfolding
    beam = needed(spectrum.exposure, "spectrum").beam_energy
    schema = load_schema(needed(ctx.steering.read, "read"), ctx.code)
    yield from of_subtraction(state.hists, state.subtracted)
    if len(state.pairs):
        yield from of_pairs(state.pairs, schema.lepton, beam, weighted=bool(schema.weight))
        yield from of_both(state.pairs, kept["weight"], kept["posterior"], state.matched)
    yield from of_simulation(state.matched, beam)
    toys = unfolding.get("refolding_toys")
    p_value = None if toys is None else float(toys[4])
    yield from of_unfolding(
        state.unfolded, state.subtracted, unfolding["efficiency"], unfolding["prior"], p_value
    )
    yield from of_yield(spectrum)


def _of_files(ctx: Context, state: Any) -> list[dict[str, Any]]:
    """Return the checks of what the first rows of the first files hold beside what was read."""
    schema, asked = (
        load_schema(needed(ctx.steering.read, "read"), ctx.code),
        needed(ctx.steering.select, "select"),
    )
    reading, given = needed(ctx.steering.read, "read"), state.inputs
    runs = load_runs(reading, ctx.base)
    cuts = [load_cuts(asked, ctx.code, data=data, runs=runs) for data in (True, False)]
    found: list[Check] = []
    for files, truth in ((given.files, False), (given.response, True)):
        for name, mean in _weights(files, schema, truth=truth).items():
            cure = "unused, looks like a weight: name it as weight or prescale of the schema"
            found.append(Check(f"read: mean of the branch {name!r} of {files[0].name}", mean, 1.0, 1.0, cure))
    section = needed(ctx.steering.subtract, "subtract")
    chunks = [_first(given.files, schema), _first(given.response, schema.of_simulation())]
    if schema.layout != "pair" and chunks[0] is not None and not section.own and section.r_factor != "mixed":
        pool = subtract.mixing_pool([select.singles(chunks[0], cuts[0])])
        if len(np.unique(pool.charge)) == 2:
            mixed = subtract.mixed_pairs(pool, MIXED, rng=stream(ctx.seed, "checks"))
            plain = {name: limits for name, limits in cuts[0].pair.items() if name in KINEMATIC}
            hists = select.fill(select.apply(mixed, select.Cuts(pair=plain)), axes_of(asked))
            one = of_r_factor(hists, state.subtraction["like_sign"], state.subtracted)
            found += [one] if one is not None else []
    if schema.layout != "pair" and chunks[0] is not None and chunks[1] is not None:
        counts = ak.to_numpy(ak.num(chunks[1]["lepton"])).astype(np.float64)
        tracks = [select.singles(*both)[:2] for both in zip(chunks, cuts, strict=True)]
        found += of_tracks(tracks[0], tracks[1], counts)
    if chunks[1] is not None and (asked.event or asked.event_functions or asked.pair or asked.pair_functions):
        simulated = select.pairs(chunks[1], cuts[1])[1].rows()
        flow = {name: state.cutflow[f"cutflow_{name}"].tolist() for name in ("name", "n", "os")}
        data = [dict(zip(flow, row, strict=True)) for row in zip(*flow.values(), strict=True)]
        found += of_cuts(data, simulated)
    return [_row(one, of_file=True) for one in found]


def _weights(files: tuple[Any, ...], schema: read.Schema, *, truth: bool) -> dict[str, float]:
    """Return the unused weights of the first file, none of one that was skipped."""
    with contextlib.suppress(InputFileError, BranchError):
        return unnamed_weights(files[0], schema, truth=truth) if files else {}
    return {}


def _first(files: tuple[Any, ...], schema: read.Schema) -> Any:
    """Return the first rows of the first file, None where there are none or the file was skipped."""
    with contextlib.suppress(InputFileError, BranchError):
        return (
            next(read.open_events(str(files[0]), schema, step=ROWS, entry_stop=ROWS), None) if files else None
        )
    return None
