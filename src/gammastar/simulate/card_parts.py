"""Optional parts of a card: what a mock may hold beyond the cocktail, its background and a spectrometer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "Charm",
    "CharmHadron",
    "Continuum",
    "Knowledge",
    "Part",
    "Piece",
    "Polarisation",
    "PythiaCard",
    "Spectrometer",
    "Trigger",
    "Tuning",
]


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


class Continuum(Part):
    """A mass continuum dN/dm ∝ m^−`power` (1 − m/√s)^`end` between `low` and `high` [GeV] (Drell-Yan)."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    power: float
    end: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Continuum:
        if not self.low < self.high:
            msg = f"low = {self.low!r} must lie below high = {self.high!r}"
            raise ValueError(msg)
        return self


class Polarisation(Part):
    """Angular coefficients of dN/dΩ ∝ 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ, and their frame."""

    theta: float = Field(default=0.0, ge=-1, le=1)
    phi: float = Field(default=0.0, ge=-1, le=1)
    theta_phi: float = Field(default=0.0, ge=-1, le=1)
    frame: Literal["helicity", "collins_soper", "laboratory"] = "collins_soper"

    @model_validator(mode="after")
    def _positive(self) -> Polarisation:
        if self.lowest < -1e-9:
            msg = f"the angular distribution becomes negative ({self.lowest:.3g}) for these coefficients"
            raise ValueError(msg)
        return self

    @property
    def lowest(self) -> float:
        """Smallest value of the distribution: the least eigenvalue of a quadratic form on the sphere."""
        import numpy as np

        form = np.array(
            [
                [1.0 + self.phi, 0.0, self.theta_phi],
                [0.0, 1.0 - self.phi, 0.0],
                [self.theta_phi, 0.0, 1.0 + self.theta],
            ]
        )
        return float(np.linalg.eigvalsh(form)[0])

    @property
    def highest(self) -> float:
        """Largest value of the distribution, or a little above it."""
        return 1.0 + max(abs(self.theta), abs(self.phi)) + abs(self.theta_phi)


class PythiaCard(Part):
    """How the engine "pythia" is used.

    `system`: collisions of "pp" or "pPb" (Angantyr). `normalisation`: yields of the card, or those of the
    generator times `species`. `pt`: spectra of the generator, or reweighted to the card's p₀ and n. `reuse`:
    decays of one meson on average.
    """

    system: Literal["pp", "pPb"] = "pp"
    normalisation: Literal["card", "generator"] = "card"
    pt: Literal["generator", "card"] = "generator"
    reuse: float = Field(default=3.0, gt=0)
    species: dict[str, float] = Field(default_factory=dict)
    settings: tuple[str, ...] = ()


class Knowledge(Part):
    """Gaussian knowledge of the factor on one source of a fitted spectrum."""

    factor: float = Field(ge=0)
    error: float = Field(gt=0)


class Tuning(Part):
    """Yields fitted to a measured mass spectrum of opposite-sign pairs, background included.

    `spectrum`: ``file.csv`` (columns low, high, entries) or ``file.root:name``, beside the card; `pot`:
    protons on target of the measurement; `n`: simulated dimuons of the templates; `constraints`: by mode,
    ``combinatorial`` or ``charm``.
    """

    spectrum: str
    pot: float = Field(gt=0)
    n: int = Field(default=200_000, gt=0)
    constraints: dict[str, Knowledge] = Field(default_factory=dict)


class Piece(Part):
    """One of several targets: index in the ntuple, place [cm] and share of the interactions."""

    index: int
    z: float
    share: float = Field(gt=0)


class Trigger(Part):
    """A trigger: its bit, the factor of its prescale, and what it asks of the muons."""

    bit: int = Field(ge=0, le=31)
    prescale: int = Field(default=1, ge=1)
    muons: int = Field(default=2, ge=1)
    different_sextants: bool = False
    charge: Literal["any", "opposite", "like"] = "any"


class Spectrometer(Part):
    """Quantities that a selection cuts on: sextants, hits, χ² of track and match, offsets.

    Resolution of the offset [µm]: √(a² + (b/p)²). Muons of decays in flight have `kink` times wider offsets
    and χ². `tracks`: mean number of other tracks at the vertex.
    """

    planes: int = Field(ge=3)
    stations: int = Field(ge=2)
    hit_efficiency: float = Field(gt=0, le=1)
    offset_constant: float = Field(gt=0)
    offset_scattering: float = Field(ge=0)
    kink: float = Field(ge=1)
    tracks: float = Field(ge=0)
    pot_per_burst: float = Field(gt=0)
    triggers: dict[str, Trigger]
