"""A reach for another model or detector from the record of a run alone: no ntuple, no simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gammastar import config
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.pipeline.checkpoint import open_book
from gammastar.pipeline.context import Context, Tell
from gammastar.pipeline.extrapolated import read_trend
from gammastar.pipeline.order import dark_half, writable
from gammastar.pipeline.products import Products
from gammastar.pipeline.record import kept_detector, kept_steering, read_domain
from gammastar.store.manifest import digest, file_sha256, read_json
from gammastar.store.records import read_spectrum

__all__ = ["reinterpret"]

RECORD = ("steering.json", "spectrum.json", "domain.safetensors", "flow.json", "flow.safetensors")
MEMBERS = "flow_members.*"  # the band of the flow, if the run has one


def reinterpret(
    results: Path,
    *,
    model: str | None = None,
    detector: Path | None = None,
    output: Path,
    tell: Tell,
) -> Path:
    """Compute expected events and reach anew from the record of a finished run.

    Parameters
    ----------
    results : Path
        Folder of a finished run with a flow.
    model : str, optional
        ``file.py:attribute``; the run's own model by default.
    detector : Path, optional
        Detector file; the run's own detectors by default.
    output : Path
        Folder of the new results.
    tell : callable
        Receives progress.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputFileError
        If a file of the record is missing.
    SteeringError
        If the run had no section that a reach needs.
    """
    from gammastar import flow
    from gammastar.pipeline import pages

    missing = [name for name in RECORD if not (results / name).is_file()]
    if missing:
        msg = f"{results}: lacks {', '.join(missing)}; a reinterpretation needs a finished run with a flow"
        raise InputFileError(msg)
    steering = _steering(results, model, detector)
    writable(output)
    book = open_book(
        output, resume=False, seed=steering.analysis.seed, mock=read_json(results / "manifest.json")["mock"]
    )
    members = sorted(path.name for path in results.glob(MEMBERS))
    book.inputs |= {name: file_sha256(results / name) for name in (*RECORD, *members)}
    ctx = Context(steering, Path().resolve(), output, book, tell)
    spectrum = read_spectrum(results / "spectrum.json")
    found = flow.load(results / "flow")
    book.done("spectrum", book.key(None), digest(spectrum.values, spectrum.cov, spectrum.domain))
    book.done("flow", book.key(None), flow.digest(found.to_tensors()))
    made = Products(
        spectrum=spectrum,
        training=read_domain(results / "domain.safetensors"),
        flow=found,
        record=results,
        trend=read_trend(results),
    )
    dark_half(ctx, made)
    if steering.report is not None:
        pages.write(ctx, made)
    book.finish()
    return output


def _steering(results: Path, model: str | None, detector: Path | None) -> config.Steering:
    """Return the steering of the run with model and detector replaced, and without its measured half."""
    kept = kept_steering(results)
    if kept.predict is None or kept.accept is None or kept.infer is None:
        msg = f"{results}/steering.json: needs the sections [predict], [accept] and [infer]"
        raise SteeringError(msg)
    changes: dict[str, Any] = {}
    if model is not None:
        changes["predict"] = kept.predict.model_copy(update={"model": model})
    if detector is not None:
        changes["accept"] = kept.accept.model_copy(update={"detectors": (str(detector),)})
        changes["infer"] = kept.infer.model_copy(update={"background": None, "background_sigma": 0.0})
    else:
        names = {
            key: tuple(str(kept_detector(results, name).resolve()) for name in getattr(kept.accept, key))
            for key in ("detectors", "millicharge_detectors")
        }
        changes["accept"] = kept.accept.model_copy(update=names)
    return kept.model_copy(update=changes)
