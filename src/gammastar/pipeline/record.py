"""The published record of a run, from which a reinterpretation starts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gammastar import config, flow, predict, spectrum
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import InputFileError, SteeringError, UserError
from gammastar.core.files import shipped, text_of
from gammastar.core.records import Spectrum
from gammastar.core.resolve import python_names
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.polarisation import SpinDensities
from gammastar.pipeline.cache import skipped_input_message
from gammastar.pipeline.context import Context, detector_files
from gammastar.pipeline.stages.flow import read_spin
from gammastar.pipeline.stages.predict import mass_dependence, photons_of, read_mass_counts, write_trend
from gammastar.spectrum import Domain
from gammastar.store.folder import check_results, published, read_tensors, write_tensors
from gammastar.store.manifest import read_json, read_spectrum, write_json, write_text

FILES = (
    *("steering.json", "manifest.json", "spectrum.json", "domain.safetensors", "flow.json"),
    "flow.safetensors",
)
PARTS = re.compile(
    r"(steering|spectrum)\.json|(domain|extrapolation|mass_counts|spin_density)\.safetensors|flow(_members.*|_pairs)?\.(json|safetensors)"
    r"|detectors/.*|reach.*\.json"
)
MEASURED_HALF = ("simulate", "read", "select", "subtract", "unfold", "in_situ", "flow")


@dataclass(frozen=True)
class Record:
    """What a finished run published: everything that rate and kinematics need, and no ntuple."""

    steering: config.Steering
    spectrum: Spectrum  # Per proton on target, with covariance
    domain: Domain
    flow: Any
    mock: bool
    folder: Path
    loss: str = ""  # What of the input was skipped; "" if nothing was
    spin: SpinDensities | None = None  # Of the measured pairs, if the run fitted it

    def channel(self) -> predict.VirtualPhoton:
        """Return the data-driven channel."""
        section = self.steering.spectrum
        if section is None:
            raise SteeringError(f"{self.folder}/steering.json: the run had no section [spectrum]")
        return photons_of(
            self.spectrum,
            LEPTON_MASS[section.lepton],
            self.flow,
            self.domain.in_domain,
            mass_dependence=mass_dependence(self.steering),
            coherence=self.steering.systematics.coherence,
            counts=read_mass_counts(self.folder),
        )

    def detectors(self) -> dict[str, Detector]:
        """Return the detectors of the run by the stems of their files."""
        section = self.steering.accept
        names = () if section is None else section.detectors
        paths = [kept_detector(self.folder, name) for name in names]
        return {path.stem: load_detector(path) for path in paths}


def write_record(ctx: Context, domain: Domain, trend: spectrum.Trend | None = None) -> None:
    """Write what a reinterpretation needs beside spectrum and flow: steering, domain, detectors."""
    content = ctx.steering.model_dump(mode="json", by_alias=True, exclude_none=True)
    write_json(ctx.folder / "steering.json", content)
    write_tensors(ctx.folder / "domain.safetensors", domain.arrays())
    if trend is not None:
        write_trend(ctx.folder, trend)
    section = ctx.steering.accept
    names = () if section is None else (*section.detectors, *section.millicharge_detectors)
    for path in detector_files(names, ctx.base, "accept").values():
        text = text_of(path)
        marked = text if "gammastar" in text else f"# copied by gammastar\n{text}"
        write_text(ctx.folder / "detectors" / f"{path.stem}.toml", marked)


def read_domain(path: Path) -> Domain:
    """Read ``domain.safetensors`` of a run."""
    return Domain.of(read_tensors(path, {"low": 1, "high": 1, "values": 3, "found": 3, "floor": 1}))


def kept_detector(folder: Path, name: str) -> Path:
    """Return the file of a detector of a run: the copy that the run kept, or a shipped one."""
    copy = folder / "detectors" / f"{Path(name).stem}.toml"
    if not copy.is_file():
        return shipped(name, folder, "detectors")
    check_results(folder, [f"detectors/{copy.name}"])
    return copy


def kept_steering(folder: Path) -> config.Steering:
    """Return the steering of a run without its measured half, which a record has behind it."""
    path = folder / "steering.json"
    fields = config.Steering.model_fields
    sections: dict[str, Any] = {"systematics": config.Systematics()}
    name = "steering"
    try:
        document = read_json(path)
        if not isinstance(document, dict) or not isinstance(document.get("analysis"), dict):
            raise ValueError("it has no section [analysis]")
        for name in [name for name in document if name in fields and name not in MEASURED_HALF]:
            kind: Any = fields[name].annotation
            sections[name] = TypeAdapter(kind).validate_json(json.dumps(document[name]))
    except (ValidationError, ValueError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            why = "; ".join(".".join(map(str, (name, *e["loc"]))) + f": {e['msg']}" for e in error.errors())
        raise InputFileError(f"{path}: is not the steering of a run of this version ({why})") from error
    return config.Steering.model_construct(**(dict.fromkeys(fields) | sections))


def refuse_code(steering: config.Steering, folder: Path, *, own: Collection[str] = ()) -> None:
    """Refuse Python code that the record of a run names; `own` is what the user named himself."""
    named = _code_of(steering, own)
    if named:
        files = ", ".join(f"{Path(name.partition(':')[0]).resolve()} ({key})" for key, name in named)
        raise UserError(
            f"{folder}/steering.json names Python code, which a record does not run: {files}; look at it, "
            "then give --trust-code (trust_code=True), or another model with --model"
        )


def tell_code(ctx: Context, folder: Path, *, own: Collection[str] = ()) -> None:
    """Tell which files a trusted record runs, with their digests, before any of them does."""
    names = [name for _, name in _code_of(ctx.steering, own)]
    for file, sha in ctx.code.shas(names).items():
        ctx.cache.alarm(f"runs {(ctx.base / file).resolve()}, SHA-256 {sha}, as {folder}/steering.json asks")


def _code_of(steering: config.Steering, own: Collection[str]) -> list[tuple[str, str]]:
    """Return keys and values of the steering that name Python code."""
    content = steering.model_dump(mode="json")
    names = ((key, name) for key, value in content.items() for name in python_names(value))
    return [(f"[{key}]", name) for key, name in names if name not in own]


def checked_record(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished run after comparing the files of its record with it."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        msg = f"{folder}: lacks {', '.join(missing)}; give the folder of a finished run with a flow"
        raise InputFileError(msg)
    names = [name for name in published(folder) if PARTS.fullmatch(name)]
    manifest = check_results(folder, names, finished=True)
    gone = sorted(name for name in manifest["files"] if PARTS.fullmatch(name) and name not in names)
    if gone:
        raise InputFileError(f"{folder}: lacks {', '.join(gone[:5])}, which the run wrote")
    return manifest


def read_record(folder: Path) -> Record:
    """Read the record of a finished run."""
    manifest = checked_record(folder)
    return Record(
        steering=kept_steering(folder),
        spectrum=read_spectrum(folder / "spectrum.json"),
        domain=read_domain(folder / "domain.safetensors"),
        flow=flow.load(folder / "flow"),
        mock=manifest["mock"],
        folder=folder,
        loss=skipped_input_message(manifest["partial"]),
        spin=read_spin(folder),
    )
