"""Likelihoods that somebody published, tested signal by signal: the lines of ``gammastar scan``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from gammastar import config, infer
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.core.files import write_whole
from gammastar.core.records import FloatArray
from gammastar.infer.binned.toys import goodness_of_fit, strength_interval
from gammastar.infer.counting import ASYMPTOTIC_FROM
from gammastar.infer.histfactory.cards import to_card
from gammastar.infer.histfactory.likelihoods import Likelihood
from gammastar.infer.scanning import ScanPoint, strength_limits, write_hs3
from gammastar.pipeline.record import kept_steering
from gammastar.pipeline.stages.infer import KEYS
from gammastar.store.events import write_histograms
from gammastar.store.folder import check_results, published
from gammastar.store.manifest import MANIFEST, is_published, manifest_like, read_manifest

OF_LIKELIHOOD = re.compile(r"(workspace|patchset|hs3).*|steering\.json")
DEFAULT_CL = 0.95
AVERAGED = ("marginalised", "mid-p")  # of [infer] method: exact, toys averaged over the nuisances


@dataclass(frozen=True)
class _How:
    """Method, confidence level, and who chose ("": nobody)."""

    method: str
    cl: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class ScanRequest:
    """What is tested of every signal."""

    strength: float = 1.0  # Signal strength μ
    # Confidence level at which a signal counts as excluded; that of the run that wrote the likelihood, if
    # any, else 0.95
    cl: float | None = None
    limit: bool = False  # Also find the upper limit on μ
    json: bool = False  # Give one JSON document instead of lines
    # Also say how well signal plus background fits the data (`infer.binned.toys`)
    goodness: bool = False
    interval: bool = False  # Also find the Feldman-Cousins interval of μ (`infer.binned.toys`)
    hs3: Path | None = None  # Also write each tested signal into this folder


def scan_lines(
    path: str | os.PathLike[str],
    *,
    request: ScanRequest | None = None,
    names: tuple[str, ...] = (),
    method: str | None = None,
    statistic: Any = None,
    auxiliary: Any = None,
    steering: Path | None = None,
    **where: Any,
) -> Iterator[str]:
    """Yield whose convention holds, a line per tested signal, warnings, and a line per HS3 document."""
    path, request = Path(path), request or ScanRequest()
    _checked(path)
    likelihood = infer.read_likelihood(path, **where)
    how = _how(path, likelihood, method, steering)
    if how.method in AVERAGED and auxiliary not in {None, "averaged"}:
        raise SteeringError(
            f"scan: method = {how.method!r} averages over the nuisances; it cannot take {auxiliary!r} toys"
        )
    cl = request.cl or how.cl or DEFAULT_CL
    level = f"; excluded at {100 * cl:g} % CL is what lies below {1 - cl:.3g}" if how.cl else ""
    head = [f"as {how.source} says: method = {how.method!r}{level}"] if how.source else []
    options: dict[str, Any] = {
        "method": "exact" if how.method in AVERAGED else how.method,
        "convention": _convention(path, likelihood, how, statistic, auxiliary),
    }
    tested = []
    if not request.json:
        yield from (f"# {line}" for line in head)
    for point in infer.scan(likelihood, names or None, strength=request.strength, **options):
        entry, text = _result(likelihood, point, request, cl, options)
        tested.append(entry)
        if not request.json:
            yield text
    notes = list(_doubts(tested))
    if request.json:
        document = {"cl": cl, "strength": request.strength, "notes": head + notes, "signals": tested}
        yield json.dumps(document, indent=1, ensure_ascii=False)
    else:
        yield from (f"warning: {note}" for note in notes)
    if request.hs3 is not None:
        written = write_hs3(likelihood, request.hs3, names or None)
        yield from (f"wrote {path}" for path in written if not request.json)


def _result(
    likelihood: Likelihood, point: ScanPoint, request: ScanRequest, cl: float, options: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return what a test found for JSON and as a line, or why it failed."""
    limits, more, failure = None, {}, point.failure
    try:
        if request.limit and not failure:
            limits = strength_limits(likelihood, point.name, cl=cl, **options)
        if not failure:
            more = _fitted(likelihood, point, request, cl)
    except (InputFileError, PhysicsError) as error:
        failure = str(error)
    if failure:
        return _entry(point, cl, None) | {"failure": failure}, f"{point.name} failed: {failure}"
    text = _line(point, request, cl, limits) + "".join(f" {key} {value}" for key, value in more.items())
    return _entry(point, cl, limits) | more, text


def write_cards(
    path: str | os.PathLike[str], folder: Path, names: Sequence[str] | None = None, **where: Any
) -> list[Path]:
    """Write signals of a likelihood as datacards of Combine, ``<name>.txt`` and ``<name>.root`` each."""
    path = Path(path)
    _checked(path)
    likelihood, written = infer.read_likelihood(path, **where), []
    for name in names or tuple(likelihood.patches) or ("workspace",):
        if Path(name).name != name:
            raise InputFileError(f"{name[:100]!r} is no name of a file; choose others with --patch")
        card = to_card(likelihood.patched(name), root=f"{name}.root", note=f"{name}, by gammastar")
        if card.histograms:
            write_histograms(folder / f"{name}.root", card.histograms)
            written.append(folder / f"{name}.root")
        write_whole(folder / f"{name}.txt", card.text.encode())
        written.append(folder / f"{name}.txt")
    return written


def _fitted(likelihood: Likelihood, point: ScanPoint, request: ScanRequest, cl: float) -> dict[str, Any]:
    """Return goodness of fit and interval, as far as they are asked for."""
    found: dict[str, Any] = {}
    if not (request.goodness or request.interval):
        return found
    spec, rng = likelihood.patched(point.name), np.random.default_rng(1)
    if request.goodness:
        fit = goodness_of_fit(spec, rng=rng)
        found["goodness"] = {"p_value": fit.p_value, "error": round(fit.error, 5), "toys": fit.toys}
        found["goodness"] |= {"statistic": round(fit.statistic, 6), "freedom": fit.freedom}
    if request.interval:
        low, high = strength_interval(spec, rng=rng, cl=cl)
        found["mu_interval"] = [round(low, 6), round(high, 6)]
    return found


def _line(point: ScanPoint, request: ScanRequest, cl: float, limits: tuple[float, FloatArray] | None) -> str:
    """Return what a test found as a line."""
    values = " ".join(v if isinstance(v, str) else f"{v:g}" for v in point.values)
    expected = " ".join(f"{value:.4g}" for value in point.expected)
    error = f" +- {point.error:.2g}" if point.error > 0 else ""
    observed = "masked" if np.isnan(point.observed) else f"{point.observed:.6g}{error}"
    text = f"{point.name} {values} CLs {observed} expected {expected}"
    if request.cl is not None:
        what = {True: "excluded", False: "not excluded", None: "masked"}[_excluded(point.observed, cl)]
        text += f" {what} at {100 * cl:g} % CL"
    if limits is not None:
        band = " ".join(f"{value:.4g}" for value in limits[1])
        seen = "masked" if np.isnan(limits[0]) else f"{limits[0]:.4g}"
        text += f" mu < {seen} expected {band} at {100 * cl:g} % CL"
    return f"{text} [{point.method}]"


def _excluded(level: float, cl: float) -> bool | None:
    return None if np.isnan(level) else bool(level < 1.0 - cl)


def _entry(point: ScanPoint, cl: float, limits: tuple[float, FloatArray] | None) -> dict[str, Any]:
    """Return what a test found, for JSON: null stands for what is masked or not finite."""
    found = {
        "name": point.name,
        "values": list(point.values),
        "cls": point.observed,
        "cls_error": point.error,
        "cls_expected": point.expected.tolist(),
        "excluded": _excluded(point.observed, cl),
        "expected_events": point.events,
        "method": point.method,
        "doubtful": point.doubtful,
    }
    if limits is not None:
        found["mu_limit"], found["mu_limit_expected"] = limits[0], limits[1].tolist()
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _doubts(tested: Sequence[dict[str, Any]]) -> Iterator[str]:
    failed = [entry["name"] for entry in tested if "failure" in entry]
    if failed:
        yield f"{len(failed)} of {len(tested)} signals failed, {failed[0]} first: their rows say why"
    few = [entry for entry in tested if entry["doubtful"]]
    if few:
        least = min(few, key=lambda entry: entry["expected_events"])
        fewest = f"{least['name']}: {least['expected_events']:.3g}"
        yield (
            f"asymptotic formulae with fewer than {ASYMPTOTIC_FROM:g} expected events at {len(few)} of "
            f"{len(tested)} signals (fewest at {fewest}); they exclude too much there: use --method auto, "
            "exact or marginalised"
        )


def _how(path: Path, likelihood: Likelihood, method: str | None, steering: Path | None) -> _How:
    """Return how to test: as request, else as the steering, else as the run that wrote the likelihood."""
    if steering is not None:
        section = config.load(steering).infer
        if section is None:
            raise SteeringError(
                f"{steering}: has no [infer], which says how limits are set; add it, or leave --steering out"
            )
        source = str(steering)
    else:
        section, source = _of_record(path, likelihood)
        if section is None:
            return _How(method or "asymptotic")
    return _How(section.method, section.cl, source) if method is None else _How(method, section.cl)


def _convention(
    path: Path, likelihood: Likelihood, how: _How, statistic: Any, auxiliary: Any
) -> infer.Convention:
    """Return the convention of exact CLs: as request, else as the patch set says, else that of NA62."""
    said = likelihood.convention
    usual: Any = "averaged" if how.method in AVERAGED else said.get("auxiliary", "fixed")
    try:
        kind = statistic or said.get("statistic", "ratio")
        return infer.Convention(kind, auxiliary or usual, ties="mid-p" if how.method == "mid-p" else "whole")
    except PhysicsError as error:
        why = f"{path}: metadata of the patch set say how limits were set, but not so: {error}"
        raise InputFileError(why) from error


def _checked(path: Path) -> None:
    """Compare a likelihood that lies in the folder of a run with the manifest."""
    folder = path if path.is_dir() else path.parent
    if not (folder / MANIFEST).is_file():
        return
    if manifest_like(folder) is None and not (folder / "steering.json").is_file():
        return  # another program's
    if path.is_file() and not is_published(path.name):
        return
    check_results(folder, [name for name in published(folder) if OF_LIKELIHOOD.fullmatch(name)])


def _of_record(path: Path, likelihood: Likelihood) -> tuple[config.Infer | None, str]:
    """Return the [infer] of the run that wrote a likelihood, and where that stands; None for others."""
    if likelihood.convention:
        known = {key: value for key, value in likelihood.convention.items() if key in KEYS}
        try:
            return config.Infer.model_validate(known), "the run that wrote the patch set"
        except ValidationError as error:
            parts = ((e["loc"][-1], str(e["input"])[:50], e["msg"]) for e in error.errors())
            wrong = "; ".join(f"{key} = {value!r}: {text}" for key, value, text in parts)
            raise InputFileError(
                f"{path}: metadata of the patch set say how limits were set, but not so: {wrong[:500]}"
            ) from error
    folder = path if path.is_dir() else path.parent
    if not all((folder / name).is_file() for name in ("steering.json", "manifest.json")):
        return None, ""
    if path.is_file() and path.name not in read_manifest(folder)["files"]:
        return None, ""
    return kept_steering(folder).infer, str(folder / "steering.json")
