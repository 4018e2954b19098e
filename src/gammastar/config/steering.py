"""The steering file: TOML; a stage runs when its section is there. Reading it never touches the data."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from gammastar.config.fields import Section
from gammastar.config.learning import FlowSection
from gammastar.config.limits import Infer, Report
from gammastar.config.measured import Read, Select, SpectrumSection, Subtract, Unfold
from gammastar.config.searching import Accept, Predict
from gammastar.config.simulation import Analysis, Simulate
from gammastar.core.errors import SteeringError

__all__ = ["STAGES", "Steering", "load", "parse", "read_toml"]

STAGES = (
    "simulate",
    "read",
    "select",
    "subtract",
    "unfold",
    "spectrum",
    "flow",
    "predict",
    "accept",
    "infer",
    "report",
)

MAX_BYTES = 1 << 20


class Steering(Section):
    """A whole analysis; every section but ``[analysis]`` is optional."""

    analysis: Analysis
    simulate: Simulate | None = None
    read: Read | None = None
    select: Select | None = None
    subtract: Subtract | None = None
    unfold: Unfold | None = None
    spectrum: SpectrumSection | None = None
    flow: FlowSection | None = None
    predict: Predict | None = None
    accept: Accept | None = None
    infer: Infer | None = None
    report: Report | None = None

    @model_validator(mode="after")
    def _needs(self) -> Steering:
        needs = {
            "select": "read",
            "subtract": "select",
            "unfold": "subtract",
            "spectrum": "unfold",
            "flow": "spectrum",
            "predict": "spectrum",
            "accept": "predict",
            "infer": "accept",
        }
        if self.predict is not None and self.predict.source == "theory":
            del needs["predict"]
        for stage, before in needs.items():
            if getattr(self, stage) is not None and getattr(self, before) is None:
                msg = f"[{stage}] needs the section [{before}]"
                raise ValueError(msg)
        if (
            self.accept
            and self.predict
            and self.accept.millicharge_detectors
            and not self.predict.millicharge
        ):
            msg = "[accept] millicharge_detectors need the section [predict.millicharge]"
            raise ValueError(msg)
        return self


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "steering"
        lines.append(f"{key}: {item['msg']} (value: {item['input']!r})"[:300])
    return "\n".join(lines)


def parse(content: dict[str, Any], source: str = "steering") -> Steering:
    """Validate the content of a steering file.

    Raises
    ------
    SteeringError
        Naming every wrong key, its value and the reason.
    """
    try:
        return Steering.model_validate(content)
    except ValidationError as error:
        msg = f"{source}:\n{_explain(error)}"
        raise SteeringError(msg) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    SteeringError
        If the file is missing or is not TOML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            msg = f"{path}: larger than 1 MB; a steering file is not"
            raise SteeringError(msg)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise SteeringError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path}: is not TOML ({error})"
        raise SteeringError(msg) from error


def load(path: Path) -> Steering:
    """Read and validate a steering file.

    Raises
    ------
    SteeringError
        If the file is missing, is not TOML, or holds an unknown or wrong key.
    """
    try:
        return parse(read_toml(path), str(path))
    except RecursionError as error:
        msg = f"{path}: is nested too deep for a steering file"
        raise SteeringError(msg) from error
