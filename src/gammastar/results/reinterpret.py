"""A reach anew, for another model or detector, from the record of a finished run alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gammastar import config, flow
from gammastar.core.errors import SteeringError, UserError
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState, Tell
from gammastar.pipeline.record import (
    checked_record,
    kept_detector,
    kept_steering,
    read_domain,
    refuse_code,
    tell_code,
)
from gammastar.pipeline.run import dark_half, writable
from gammastar.pipeline.stages import report
from gammastar.pipeline.stages.flow import read_spin
from gammastar.pipeline.stages.predict import read_trend
from gammastar.store.folder import working
from gammastar.store.manifest import digest
from gammastar.store.records import digest_of, read_spectrum

FEWEST = 10_000  # particles per mass
OF_RECORD = re.compile(
    r"(steering|spectrum)\.json|(domain|extrapolation|mass_counts|spin_density|flow.*)\.safetensors|flow.*\.json"
)


def reinterpret(
    results: Path,
    *,
    model: str | None = None,
    detector: Path | None = None,
    output: Path,
    tell: Tell,
    allow_partial: bool = False,
    trust_code: bool = False,
) -> Path:
    """Compute expected events and reach anew from the record of a finished run."""
    manifest = checked_record(results)
    steering, own = _steering(results, model, detector), () if model is None else (model,)
    if not trust_code:
        refuse_code(steering, results, own=own)
    if output.exists() and output.samefile(results):
        raise UserError(f"{output}: is the folder of the record; give another one with --output")
    writable(output)
    with working(output):
        cache = open_cache(output, resume=False, seed=steering.analysis.seed, mock=manifest["mock"])
        names = [name for name in manifest["files"] if OF_RECORD.fullmatch(name)]
        cache.enter({results / name: manifest["files"][name] for name in names})
        cache.partial |= manifest["partial"]
        ctx = Context(steering, Path().resolve(), output, cache, tell, allow_partial=allow_partial)
        tell_code(ctx, results, own=own)
        spectrum = read_spectrum(results / "spectrum.json")
        found = flow.load(results / "flow")
        with cache.write_on_exit():
            cache.done("spectrum", cache.key(None), digest_of(spectrum))
            cache.done("flow", cache.key(None), flow.digest(found.to_tensors()))
            spin = read_spin(results)
            if spin is not None:
                cache.done("spin", cache.key(None), digest(*spin.arrays().values()))
            state = RunState(
                spectrum=spectrum,
                training=read_domain(results / "domain.safetensors"),
                flow=found,
                spin=spin,
                record=results,
                trend=read_trend(results),
            )
            dark_half(ctx, state)
            if steering.report is not None:
                report.write(ctx, state)
            cache.finish()
    return output


def _steering(results: Path, model: str | None, detector: Path | None) -> config.Steering:
    """Return the steering of the run with model and detector replaced, and without its measured half."""
    kept = kept_steering(results)
    missing = [f"[{name}]" for name in ("predict", "accept", "infer") if getattr(kept, name) is None]
    if missing or kept.predict is None or kept.accept is None or kept.infer is None:
        raise SteeringError(f"{results}: the run had no {' and no '.join(missing)}, which a reach needs")
    changes: dict[str, Any] = {}
    if model is not None:
        changes["predict"] = kept.predict.model_copy(update={"model": model})
    if detector is not None:
        changes["accept"] = kept.accept.model_copy(update={"detectors": (str(detector),)})
        share = kept.predict.n_sample / max(1, len(kept.accept.detectors))  # of one detector
        asked = {"n_sample": max(int(share), min(FEWEST, kept.predict.n_sample))}
        changes["predict"] = changes.get("predict", kept.predict).model_copy(update=asked)
        changes["infer"] = kept.infer.model_copy(update={"background": None, "background_sigma": 0.0})
    else:
        names = {
            key: tuple(str(kept_detector(results, name).resolve()) for name in getattr(kept.accept, key))
            for key in ("detectors", "millicharge_detectors")
        }
        changes["accept"] = kept.accept.model_copy(update=names)
    return kept.model_copy(update=changes)
