"""The order of the stages of a run."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config
from gammastar.core.errors import SteeringError, StoreError
from gammastar.core.resolve import user_code_errors
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, Executor, RunState, Tell, needed
from gammastar.store.folder import working

MAX_REFINEMENTS = 4  # in which masses are added to a contour


def silent(stage: str, fraction: float | None, text: str) -> None:
    """Report nothing."""


def writable(folder: Path) -> None:
    """Make a result folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: cannot be made ({error.strerror}); choose another folder with --output"
        raise StoreError(msg) from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"{folder}: no permission to write; choose another folder with --output")


def run(
    steering: Path,
    *,
    output: Path | None = None,
    resume: bool = False,
    only: str | None = None,
    tell: Tell = silent,
    executor: Executor | None = None,
    allow_partial: bool = False,
) -> Path:
    """Run the stages of a steering file and write the results."""
    parsed = config.load(steering)
    names = [name for name in config.STAGES if getattr(parsed, name) is not None]
    if only is not None and only not in names:
        raise SteeringError(f"--only {only}: {steering} has the sections {', '.join(names)}")
    folder = output or Path("results") / parsed.analysis.name
    writable(folder)
    from gammastar.read.files import kept_open

    fixed = folder.absolute()  # whatever user code does to the working folder
    mock = parsed.analysis.mock or parsed.simulate is not None
    with working(fixed), kept_open():
        again = resume or only is not None
        cache = open_cache(
            fixed, resume=again, seed=parsed.analysis.seed, mock=mock, stages=names, begin=False
        )
        cache.force = only
        ctx = Context(parsed, steering.resolve().parent, fixed, cache, tell, executor, allow_partial)
        _check(ctx, names[: names.index(only) + 1] if only else names)
        cache.begin()
        with cache.write_on_exit():
            _run(ctx, names, only)
    return folder


def _run(ctx: Context, names: Sequence[str], only: str | None) -> None:
    state = RunState()
    for stage in names:
        if stage in STAGES:
            with ctx.cache.wrap_errors(stage), user_code_errors():
                STAGES[stage](ctx, state)
        if stage == only:
            return
    if ctx.steering.report is not None:
        from gammastar.pipeline.stages import report

        with ctx.cache.wrap_errors("report"), user_code_errors():
            report.write(ctx, state)
    ctx.cache.finish()


def _check(ctx: Context, stages: list[str]) -> None:
    """Check all that can be known before the first stage, but files whose selection is finished."""
    from gammastar.config.checks import check_steering, listing  # a reinterpretation opens no input

    again = ctx.cache.resume and "select" in ctx.cache.previous.get("stages", {})
    skip = ctx.executor is not None and ctx.executor.skip_bad
    found = check_steering(ctx.steering, ctx.base, stages=stages, open_files=not again, skip_bad=skip)
    for finding in found:
        if finding.level == "warning":
            ctx.cache.alarm(str(finding))
    wrong = listing(found)
    if wrong:
        raise SteeringError(wrong)


def _select(ctx: Context, state: RunState) -> None:
    from gammastar.pipeline.stages import read

    ctx.tell("select", None, "")
    state.inputs = read.inputs(ctx, state.simulated)
    state.pairs, state.cutflow = read.select_stage(ctx, state.inputs)


def _later(name: str) -> Callable[[Context, RunState], None]:
    """Return ``<name>_stage`` of ``stages/<name>.py``, imported when it runs."""

    def stage(ctx: Context, state: RunState) -> None:
        getattr(importlib.import_module(f"gammastar.pipeline.stages.{name}"), f"{name}_stage")(ctx, state)

    return stage


def _flow(ctx: Context, state: RunState) -> None:
    from gammastar.pipeline import record
    from gammastar.pipeline.stages import flow, predict

    flow.flow_stage(ctx, state)
    flow.spin_stage(ctx, state)
    pairs = flow.training(ctx, state)
    record.write_record(ctx, pairs.domain, predict.trend_of(ctx, state, pairs))
    flow.write_pairs_near(ctx.folder, pairs, needed(state.flow, "flow").mass_range)


def dark_half(ctx: Context, state: RunState) -> None:
    """Run predict, accept and infer on the spectrum, the flow and the domain that `state` holds."""
    _predict(ctx, state)
    _accept(ctx, state)
    _infer(ctx, state)


def _production(ctx: Context, state: RunState) -> Any:
    """Return the production channels of the run, made once."""
    from gammastar.pipeline.stages import flow, predict

    def sampler() -> tuple[Any, Any, Any]:
        if state.sampler is not None:  # of a published table
            return state.sampler, None, None
        if predict.section_of(ctx).sampler == "histogram":
            beam = needed(needed(state.spectrum, "spectrum").exposure, "spectrum").beam_energy
            pairs = flow.training(ctx, state)
            return flow.histogram_sampler(ctx, pairs, beam), None, pairs.near
        if state.flow is None:
            raise SteeringError("predict.sampler = 'flow' needs the section [flow]; or set it to 'histogram'")
        from gammastar.flow import load_variations

        folder = state.record or ctx.folder
        members = load_variations(folder)
        return state.flow, None if members is None else members.weights, flow.pairs_near(folder)

    if state.production is None:
        state.production = predict.production_of(ctx, state, lambda: flow.training(ctx, state), sampler)
    return state.production


def _predict(ctx: Context, state: RunState) -> None:
    from gammastar.pipeline.stages import predict

    production = _production(ctx, state)
    state.rate = predict.predict_stage(ctx, production, state)
    state.pair_rate = predict.pair_stage(ctx, production, state)


def _accept(ctx: Context, state: RunState) -> None:
    from gammastar.pipeline.stages import accept

    production = _production(ctx, state)
    state.planes = accept.accept_stage(ctx, production, needed(state.rate, "predict"))
    state.charge_planes = accept.millicharge_stage(ctx, production, state.pair_rate, state)


def _infer(ctx: Context, state: RunState) -> None:
    from gammastar.pipeline.stages import infer

    if ctx.cache.partial and not ctx.allow_partial:
        lost = {stage: f"{entry['lost_fraction']:.3%}" for stage, entry in ctx.cache.partial.items()}
        msg = f"part of the input was skipped ({lost} of the entries); a limit needs --allow-partial"
        raise SteeringError(msg)
    exposure = _production(ctx, state).exposure
    _refine(ctx, state)
    state.searches = infer.infer_stage(ctx, needed(state.planes, "accept"), exposure, state)
    state.charge_searches = infer.millicharge_stage(ctx, state.charge_planes, exposure)


def _refine(ctx: Context, state: RunState) -> None:
    """Add masses where a contour bends or ends, at most [infer] max_extra_masses of them."""
    from gammastar.pipeline.stages import accept, infer, predict

    rate, planes = needed(state.rate, "predict"), needed(state.planes, "accept")
    production = _production(ctx, state)
    most = infer.section_of(ctx).max_extra_masses
    first = len(rate.mass)
    for _ in range(MAX_REFINEMENTS if most else 0):
        room = first + most - len(rate.mass)
        new = infer.missing_masses(ctx, planes, production.exposure, room)
        if not len(new):
            break
        masses = np.unique(np.r_[rate.mass, new])
        ctx.tell("accept", None, f"{len(masses)} masses, {len(new)} of them new")
        rate = predict.predict_stage(ctx, production, state, masses)
        planes = accept.accept_stage(ctx, production, rate)
    state.rate, state.planes = rate, planes
    if most:
        added = len(rate.mass) - first
        text = f"{first} of the grid, {added} where the contour bends or ends"
        ctx.cache.methods["masses of the reach"] = text


STAGES = {  # files are opened by the selection, and the report comes last
    "simulate": _later("simulate"),
    "select": _select,
    "subtract": _later("subtract"),
    "unfold": _later("unfold"),
    "spectrum": _later("spectrum"),
    "in_situ": _later("in_situ"),
    "flow": _flow,
    "predict": _predict,
    "accept": _accept,
    "infer": _infer,
}
