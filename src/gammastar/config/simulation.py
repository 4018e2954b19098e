"""What the run is, and the mock data it makes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gammastar.config.fields import Section, Title

__all__ = [
    "Analysis",
    "Simulate",
]


class Analysis(Section):
    """Name, seed and nature of the data."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
    title: Title = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    mock: bool = False


class Simulate(Section):
    """Mock data made at run time from a card: data-like events, and simulation under another prior.

    The data come from `engine`, the response always from the toy engine: with Pythia, which needs the extra
    ``simulate``, a closure test is not trivial. `leave_out` names modes of the card that are not made.
    `format` and `compression` are those of the ROOT files.
    """

    card: str
    leave_out: tuple[str, ...] = ()
    n_pairs: Annotated[int, Field(gt=0, le=10**12)]
    n_response: Annotated[int, Field(gt=0, le=10**12)]
    response_prior: str = "nominal"
    pairing: Literal["same-event", "mixed"] = "same-event"
    engine: Literal["toy", "pythia"] = "pythia"
    format: Literal["ttree", "rntuple"] = "ttree"
    compression: Literal["zstd", "zlib", "lz4", "lzma", "none"] = "zstd"
