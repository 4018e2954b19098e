"""What the stages of a run hand to each other, to the files and to the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import PairHists, Spectrum
from gammastar.pipeline.cache import Arrays

__all__ = ["Products", "needed"]


@dataclass
class Products:
    """What the stages of a run made, for the files and the report; a field is None until its stage ran.

    `record` is the folder of the record from which a reinterpretation starts.
    """

    simulated: Arrays = field(default_factory=dict)
    inputs: Any = None
    pairs: Pairs | None = None
    cutflow: Arrays | None = None
    hists: PairHists | None = None
    subtracted: Spectrum | None = None
    subtraction: Arrays | None = None
    matched: MatchedPairs | None = None
    truth: Any = None
    unfolded: Spectrum | None = None
    unfolding: Arrays | None = None
    spectrum: Spectrum | None = None
    training: Any = None
    trend: Any = None
    flow: Any = None
    spin: Any = None
    record: Path | None = None
    learning: Arrays | None = None
    production: Any = None
    joint: Any = None
    predicted: Arrays | None = None
    accepted: dict[str, Arrays] | None = None
    inferred: dict[str, Any] | None = None
    millicharge: Arrays | None = None
    millicharge_accepted: dict[str, Arrays] | None = None
    millicharge_inferred: dict[str, Any] | None = None


def needed(value: Any, stage: str) -> Any:
    """Return a product; refuse the absence of the stage that makes it."""
    if value is None:
        msg = f"the section [{stage}] is missing: a later stage needs its result"
        raise SteeringError(msg)
    return value
