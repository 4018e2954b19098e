"""Optional parts of a card: what a mock may hold beyond the cocktail, its background and a spectrometer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Charm", "CharmHadron", "Part"]


class Part(BaseModel):
    """A part of a card: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class CharmHadron(Part):
    """A charmed hadron: share among charmed hadrons, cτ [m], BR to a lepton, masses it recoils against [GeV].

    `heavy_share` of the semileptonic decays have the recoil `heavy_recoil` (K*, φ), the others `recoil`.
    """

    pdg: int
    share: float = Field(ge=0, le=1)
    ctau: float = Field(gt=0)
    branching: float = Field(ge=0, le=1)
    recoil: float = Field(ge=0)
    heavy_recoil: float = Field(ge=0)
    heavy_share: float = Field(ge=0, le=1)


class Charm(Part):
    """Open charm: cross section per nucleon [b], A^`a_power`, kinematics of the hadrons.

    dN/dpt ∝ pt (1 + (pt/p0)²)^−n; dN/dy* ∝ (1 − (y*/y_max)²)^`y_power` inside the kinematic limit; azimuths
    of the two hadrons von Mises about back-to-back with concentration `back_to_back`.
    """

    process: int = Field(default=9, ge=0, le=127)
    enabled: bool = True
    cross_section: float = Field(gt=0)
    a_power: float = Field(gt=0)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_power: float = Field(ge=0)
    back_to_back: float = Field(ge=0)
    pole_mass: float = Field(gt=1.9)
    hadrons: dict[str, CharmHadron]

    @model_validator(mode="after")
    def _some_hadron(self) -> Charm:
        if not sum(h.share * h.branching for h in self.hadrons.values()) > 0:
            msg = "charm.hadrons: none decays to leptons (share × branching = 0)"
            raise ValueError(msg)
        return self
