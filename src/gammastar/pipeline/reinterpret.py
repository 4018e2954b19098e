"""A reach for another model or detector from the record of a run alone: no ntuple, no simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gammastar import config
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.pipeline.checkpoint import open_book
from gammastar.pipeline.context import Context, Tell, shipped
from gammastar.pipeline.extrapolated import read_trend, write_trend
from gammastar.pipeline.learning import Domain
from gammastar.pipeline.order import Products, dark_half, writable
from gammastar.pipeline.record import kept_detector, kept_steering
from gammastar.spectrum import Trend
from gammastar.store.manifest import atomic, digest, file_sha256, read_json, write_json, write_text
from gammastar.store.records import read_spectrum

__all__ = ["read_domain", "reinterpret", "write_record"]

RECORD = ("steering.json", "spectrum.json", "domain.safetensors", "flow.json", "flow.safetensors")


def write_record(ctx: Context, domain: Domain, trend: Trend | None = None) -> None:
    """Write what a reinterpretation needs beside spectrum and flow.

    ``steering.json``, ``domain.safetensors``, ``extrapolation.safetensors`` and the files of the detectors.
    """
    write_json(
        ctx.folder / "steering.json",
        ctx.steering.model_dump(mode="json", by_alias=True, exclude_none=True),
    )
    with atomic(ctx.folder / "domain.safetensors") as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in domain.arrays().items()}, temporary)
    if trend is not None:
        write_trend(ctx.folder, trend)
    section = ctx.steering.accept
    for name in () if section is None else (*section.detectors, *section.millicharge_detectors):
        path = shipped(name, ctx.base, "detectors")
        (ctx.folder / "detectors").mkdir(exist_ok=True)
        write_text(ctx.folder / "detectors" / f"{path.stem}.toml", path.read_text(encoding="utf-8"))


def read_domain(path: Path) -> Domain:
    """Read ``domain.safetensors`` of a run.

    Raises
    ------
    InputFileError
        If the file is missing or damaged.
    """
    try:
        return Domain.of(load_file(path))
    except (OSError, KeyError, SafetensorError) as error:
        msg = f"{path}: is not the domain of a run ({error})"
        raise InputFileError(msg) from error


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
    book.inputs |= {name: file_sha256(results / name) for name in RECORD}
    ctx = Context(steering, Path().resolve(), output, book, tell)
    spectrum = read_spectrum(results / "spectrum.json")
    found = flow.load(results / "flow")
    book.done("spectrum", book.key(None), digest(spectrum.values, spectrum.cov, spectrum.domain))
    book.done("flow", book.key(None), flow.digest(found.to_tensors()))
    made = Products(
        spectrum=spectrum,
        training=read_domain(results / "domain.safetensors"),
        flow=found,
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
