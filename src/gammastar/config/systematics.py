"""[systematics]: every source of uncertainty that a steering file sizes, switches or brings along."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gammastar.config.fields import Fraction, Section
from gammastar.core.sources import KINDS

Share = Annotated[float, Field(ge=0, le=1)]
UNFOLDED = ("polarisation", "radiation", "efficiency", "prior", "background", "charm", "corrections")


class Systematics(Section):
    """Sources of uncertainty, one standard deviation each, by the names that they keep up to the limit."""

    polarisation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the spectrum: σ(λθ) about the flight of the pair in the laboratory."""
    radiation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the spectrum: radiation of photons by the leptons, relative."""
    efficiency: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the spectrum: efficiency of a pair, relative."""
    prior: bool | None = None
    """Of the spectrum: how far it moves if the simulation has the unfolded transverse momenta and energies;
    by default with [unfold] method = 'likelihood'."""
    background: bool = False
    """Of the spectrum: take R out of the measured covariance and propagate it as a source of its own."""
    charm: bool = False
    """Of the spectrum: the same for the amount of open charm."""
    corrections: bool = False
    """Of the spectrum: the same for the size of each correction."""
    pot: Fraction = 0.0
    """Of rate and signal: protons on target of the calibration, relative."""
    coherence: Share = 0.7
    """Of the rate beside the ω: σ of both quadratures of the interference of ρ and ω, whose phase is free."""
    spin: Share | None = None
    """Of the signal: error of [accept] longitudinal; by default the range that photons transverse along the
    axis of each frame span."""
    scaling: Annotated[float, Field(ge=0)] = 0.0
    """Of the signal: error of [accept] alpha."""
    extrapolation: Annotated[float, Field(ge=0, le=3)] | None = None
    """Of the signal outside the measured domain: ln κ; by default from how well the simulation describes the
    measured part."""
    forward_power: Annotated[float, Field(ge=0, le=10)] = 1.5
    """Of rate and signal beyond the measured x_R: σ of [spectrum] forward_power."""
    own: Annotated[tuple[Annotated[str, Field(pattern=r"^.+\.py:\w+$")], ...], Field(max_length=50)] = ()
    """Sources of one's own, 'file.py:name' with a `gammastar.core.sources.OwnSource`."""
    in_limit: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=100)
    ] = ("pot",)
    """Kinds or names of sources that limits take: 'pot', 'spectrum', 'kinematics', 'polarisation', 'scaling',
    'widths', 'extrapolation', 'theory', 'sample', 'own'; 'sample' is in every patch anyway."""

    def of(self, stage: Literal["unfold", "predict", "accept"]) -> dict[str, Any]:
        """Return the keys that decide what a stage computes."""
        keys = {
            "unfold": (*UNFOLDED, "own"),
            "predict": ("coherence", "forward_power"),
            "accept": ("spin", "scaling", "own"),
        }
        return self.model_dump(mode="json", include=set(keys[stage]))

    def unknown(self, names: tuple[str, ...]) -> list[str]:
        """Return what `in_limit` lists that is neither a kind nor one of some names."""
        return [name for name in self.in_limit if name not in KINDS and name not in names]
