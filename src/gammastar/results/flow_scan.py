"""The scan of architectures, Appendix A of the data-driven paper, on the pairs of a run; resumable."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.records import FloatArray
from gammastar.core.resolve import user_code_errors
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState, Tell
from gammastar.pipeline.run import STAGES, silent, writable
from gammastar.pipeline.stages.flow import training
from gammastar.spectrum import TrainingSet
from gammastar.store.folder import working
from gammastar.store.manifest import manifest_like

DEFAULT_GRID: Mapping[str, Sequence[Any]] = {"bins": (8, 16), "layers": (1, 2), "hidden": (32, 48, 64)}
TEST_SHARE = 0.2
HALF_WINDOW, LEAST = 0.03, 100  # GeV and test pairs of a divergence


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the grid of texts such as ``hidden=32,64``."""
    grid = {}
    for text in texts:
        name, _, values = text.partition("=")
        found: tuple[Any, ...] = ()
        with contextlib.suppress(SyntaxError, ValueError):
            found = ast.literal_eval(f"({values},)")
        if not (name and found):
            raise UserError(f"--grid {text}: expected OPTION=VALUE,VALUE,…, for example hidden=32,64")
        grid[name] = found
    return grid


def split_for_scan(training: TrainingSet, seed: int) -> tuple[TrainingSet, FloatArray]:
    """Return the pairs of four events in five, and unweighted test pairs (mass, pt, energy) of the fifth.

    Test pairs are taken with a probability proportional to their reference weight (posterior over
    efficiency), which is not negative.
    """
    rng = stream(seed, "scan", "test")
    unique, index = np.unique(training.event, return_inverse=True)
    held_out = (rng.random(len(unique)) < TEST_SHARE)[index]
    usable = np.flatnonzero(held_out & (training.reference > 0))
    weight = training.reference[usable]
    kept = usable[rng.random(len(usable)) * np.max(weight, initial=0.0) < weight]
    columns = ("mass", "pt", "energy", "weight", "reference", "event", "measured")
    rest = {name: getattr(training, name)[~held_out] for name in columns}
    test = np.stack([training.mass[kept], training.pt[kept], training.energy[kept]], axis=1)
    return TrainingSet(**rest, domain=training.domain), test


def scan_folder(steering: Path) -> Path:
    """Return where a scan of architectures goes by default."""
    return Path("results") / f"{config.load(steering).analysis.name}_scan"


@user_code_errors()
def training_pairs(steering: Path, output: Path | None, *, tell: Tell = silent) -> tuple[Context, Any]:
    """Run the stages before the flow, or take kept ones; return the run and the flow's pairs."""
    parsed = config.load(steering)
    folder = output or scan_folder(steering)
    writable(folder)
    mock = parsed.analysis.mock or parsed.simulate is not None
    cache = open_cache(folder, resume=True, seed=parsed.analysis.seed, mock=mock)
    ctx, state = Context(parsed, steering.resolve().parent, folder, cache, tell), RunState()
    with cache.write_on_exit():
        for stage in config.STAGES[: config.STAGES.index("flow")]:
            if stage in STAGES and stage != "in_situ" and getattr(parsed, stage) is not None:
                STAGES[stage](ctx, state)
        return ctx, training(ctx, state)


def scan_flows(
    steering: Path,
    *,
    output: Path | None = None,
    preset: str = "paper",
    epochs: int | None = None,
    seeds: int = 2,
    grid: Sequence[str] = (),
    tell: Tell,
) -> Iterator[str]:
    """Train every architecture of a grid and yield a table; trainings that are done already are kept."""
    wanted = parse_grid(grid)
    old = None if output is None else manifest_like(output)
    if old is not None and old["finished"]:
        raise UserError(f"{output} holds a finished run; give the scan a folder of its own with --output")
    with working(output or scan_folder(steering)):
        found = training_pairs(steering, output, tell=tell)
        yield from _scan(found, wanted, preset=preset, epochs=epochs, seeds=seeds, tell=tell)


def _scan(
    found: tuple[Context, Any],
    wanted: dict[str, Any],
    *,
    preset: str,
    epochs: int | None,
    seeds: int,
    tell: Tell,
) -> Iterator[str]:
    from gammastar import flow

    ctx, training = found
    section = ctx.steering.spectrum
    if section is None:
        raise SteeringError("[spectrum] is needed for the beam energy of the flow")
    rest, test = split_for_scan(training, ctx.seed)
    low, high = float(np.min(training.mass)), float(np.max(training.mass))
    masses = [m for m in (0.3, 0.7, 1.0) if np.sum(np.abs(test[:, 0] - m) < HALF_WINDOW) >= LEAST]
    if not masses:
        raise SteeringError(
            f"the {len(test)} test pairs are too few for a divergence at 0.3, 0.7 or 1 GeV; use more data"
        )
    changes: dict[str, Any] = {"mass_range": (low, high)} | ({} if epochs is None else {"epochs": epochs})
    base = flow.FlowOptions.paper(**changes) if preset == "paper" else flow.FlowOptions(**changes)
    points = flow.scan(
        rest,
        test,
        beam_energy=section.beam_energy,
        base=base,
        file=ctx.folder / "flow_scan.jsonl",
        grid=wanted or (flow.architecture_scan.PAPER_GRID if preset == "paper" else DEFAULT_GRID),
        masses=masses,
        seeds=range(1, seeds + 1),
        progress=lambda done, total: tell("flow scan", done / total, f"{done} of {total} trainings"),
    )
    yield from _table(points, masses)
    yield f"{len(points)} trainings in {ctx.folder / 'flow_scan.jsonl'}"


def _table(points: Sequence[Any], masses: Sequence[float]) -> Iterator[str]:
    """Yield one line per architecture: parameters, loss and divergences, mean and spread over the seeds."""
    groups: dict[str, list[Any]] = {}
    for point in points:
        groups.setdefault(" ".join(f"{k}={v}" for k, v in point.changes.items()), []).append(point)
    yield f"{'architecture':34s} parameters  loss [nat]  " + "  ".join(f"KL {m:g} GeV [nat]" for m in masses)
    for name, group in groups.items():
        loss, kl = np.array([p.loss for p in group]), np.array([p.divergence for p in group])
        spread = kl.std(axis=0, ddof=1) if len(group) > 1 else np.full(len(masses), np.nan)
        cells = "  ".join(f"{a:+.4f} ± {b:.4f}" for a, b in zip(kl.mean(axis=0), spread, strict=True))
        yield f"{name:34s} {group[0].parameters:10d}  {loss.mean():10.4f}  {cells}"
