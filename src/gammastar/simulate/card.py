"""The input card of the mock: every number carries a tag and a source."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from gammastar.core.errors import SteeringError
from gammastar.simulate.card_parts import (
    Charm,
    Continuum,
    Piece,
    Polarisation,
    PythiaCard,
    Spectrometer,
    Tuning,
)
from gammastar.simulate.card_parts import Part as _Part

__all__ = [
    "Background",
    "Beam",
    "Card",
    "DetectorCard",
    "Efficiency",
    "Hadron",
    "Meson",
    "Mode",
    "Prior",
    "Provenance",
    "RunCard",
    "Target",
]


# keys that a card need not have, with what stands for their absence
OPTIONAL = {
    "lepton": "mu",
    "radiation": False,
    **dict.fromkeys(("charm", "pythia", "spectrometer", "tuning")),
}
OPTIONAL_MODE = {"polarisation": None, "continuum": None}
OPTIONAL_DETECTOR = {"sextants": 1, "coil": 0.0, "pt_min": 0.0}
OPTIONAL_TARGET = {"profile": "uniform", "pieces": None}


class Provenance(NamedTuple):
    """Where a number of the card comes from."""

    tag: str
    source: str


class Beam(_Part):
    """Proton beam: energy [GeV]."""

    energy: float = Field(gt=1.0)


class Target(_Part):
    """Target: atomic numbers, thickness in interaction lengths, inelastic cross section [b].

    `z_size` is its length [cm]; `profile` the depth of the interactions: uniform, or attenuated as a beam is
    in a thick target. `pieces`: several targets one behind the other.
    """

    name: str
    index: int
    a: float = Field(gt=0)
    z: float = Field(gt=0)
    thickness: float = Field(gt=0)
    sigma_inel: float = Field(gt=0)
    z_size: float = Field(ge=0)
    profile: Literal["uniform", "attenuated"] = "uniform"
    pieces: dict[str, Piece] | None = None

    @property
    def interactions(self) -> float:
        """Inelastic interactions per proton: the thickness if it is thin, 1 − exp(−thickness) otherwise."""
        return self.thickness if self.profile == "uniform" else -math.expm1(-self.thickness)


class RunCard(_Part):
    """Default size of a data-like sample, and of a burst in recorded events."""

    n_pairs: int = Field(gt=0)
    events_per_burst: int = Field(gt=0)


class Meson(_Part):
    """A meson species: yield per interaction and kinematics.

    dN/dpt ∝ pt (1 + (pt/p0)²)^−n; y* Gaussian of standard deviation `y_width`, inside the kinematic limit.
    """

    pdg: int
    multiplicity: float = Field(ge=0)
    a_factor: float = Field(gt=0)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_width: float = Field(gt=0)


class Mode(_Part):
    """A decay of a meson to a virtual photon, with its process code in the ntuple."""

    meson: str
    process: int = Field(ge=0, le=127)
    kind: Literal["pseudoscalar_dalitz", "vector_dalitz", "breit_wigner", "narrow", "rho", "continuum"]
    branching: float = Field(ge=0)
    enabled: bool = True
    form_factor: Literal["pointlike", "eta2", "omega2", "eta_prime2", "pi0_2"] = "pointlike"
    normalisation: Literal["branching", "form_factor"] = "branching"
    branching_photon: float | None = None
    temperature: float | None = None
    polarisation: Polarisation | None = None
    continuum: Continuum | None = None

    @model_validator(mode="after")
    def _complete(self) -> Mode:
        if self.kind == "rho" and self.temperature is None:
            msg = "kind 'rho' needs the key 'temperature'"
            raise ValueError(msg)
        if (self.kind == "continuum") != (self.continuum is not None):
            msg = "kind 'continuum' and the section 'continuum' belong together"
            raise ValueError(msg)
        if self.polarisation is not None and self.kind.endswith("dalitz"):
            msg = (
                "polarisation: the photon of a Dalitz decay is transverse about its flight; leave the key out"
            )
            raise ValueError(msg)
        if self.normalisation == "form_factor" and self.branching_photon is None:
            msg = "normalisation 'form_factor' needs the key 'branching_photon'"
            raise ValueError(msg)
        return self


class DetectorCard(_Part):
    """Lepton acceptance [GeV, rad] and resolution (relative momentum, angle per plane [rad]).

    A muon closer than `coil` [rad] to the border of a magnet's sector is lost. `pt_min` [GeV].
    """

    e_min: float = Field(ge=0)
    theta_min: float = Field(ge=0)
    theta_max: float = Field(gt=0)
    sigma_p: float = Field(ge=0)
    sigma_theta: float = Field(ge=0)
    sextants: int = Field(default=1, ge=1)
    coil: float = Field(default=0.0, ge=0)
    pt_min: float = Field(default=0.0, ge=0)


class Efficiency(_Part):
    """Trigger and reconstruction efficiency of a muon pair; see `simulate.detector.efficiency`."""

    plateau: float = Field(gt=0, le=1)
    soft_depth: float = Field(ge=0, lt=1)
    soft_scale: float = Field(gt=0)
    energy_half: float = Field(ge=0)
    energy_width: float = Field(gt=0)


class Hadron(_Part):
    """A charged hadron that decays to μν: kinematics as `Meson`, share among charged hadrons."""

    pdg: int
    share: float = Field(ge=0, le=1)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_width: float = Field(gt=0)
    branching: float = Field(ge=0, le=1)
    ctau: float = Field(gt=0)


class Background(_Part):
    """Combinatorial background: charge-balanced clusters of charged hadrons that decay in flight."""

    fraction: float = Field(ge=0, lt=1)
    clusters: float = Field(gt=0)
    nbd_k: float = Field(gt=0)
    cluster_y_width: float = Field(gt=0)
    positive_excess: float = Field(ge=0)
    decay_length: float = Field(gt=0)
    third_muon_factor: float = Field(ge=0)
    hadrons: dict[str, Hadron]


class Prior(_Part):
    """Factors that turn the card into another one, for simulation that differs from the data."""

    p0: float = Field(gt=0)
    y_width: float = Field(gt=0)
    yields: dict[str, float]


class Card(_Part):
    """A complete description of a mock sample; `provenance` maps each number's key to tag and source."""

    name: str
    beam: Beam
    target: Target
    run: RunCard
    mesons: dict[str, Meson]
    modes: dict[str, Mode]
    detector: DetectorCard
    efficiency: Efficiency
    background: Background
    priors: dict[str, Prior]
    lepton: Literal["mu", "e"] = "mu"
    charm: Charm | None = None
    pythia: PythiaCard | None = None
    spectrometer: Spectrometer | None = None
    tuning: Tuning | None = None
    radiation: bool = False
    provenance: dict[str, Provenance] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _mesons_exist(self) -> Card:
        for key, mode in self.modes.items():
            if mode.meson not in self.mesons:
                msg = f"modes.{key}.meson = {mode.meson!r} is not among the mesons {sorted(self.mesons)}"
                raise ValueError(msg)
        if not any(mode.enabled for mode in self.modes.values()):
            msg = "modes: none is enabled"
            raise ValueError(msg)
        return self

    @property
    def has_charm(self) -> bool:
        """Whether data-like samples hold open charm."""
        return self.charm is not None and self.charm.enabled

    @property
    def digest(self) -> str:
        """SHA-256 of all values (without their sources); optional parts that are not used do not count."""
        values = self.model_dump(mode="json", exclude={"provenance"})
        parts: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (values, OPTIONAL),
            (values["target"], OPTIONAL_TARGET),
            (values["detector"], OPTIONAL_DETECTOR),
            *((mode, OPTIONAL_MODE) for mode in values["modes"].values()),
        ]
        for part, optional in parts:
            for key, default in optional.items():
                if part[key] == default:
                    del part[key]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def with_prior(self, name: str) -> Card:
        """Return the card under another prior: scaled p₀ and rapidity widths, other yields of the modes.

        Parameters
        ----------
        name : str
            ``"nominal"`` (this card) or a key of `priors`.

        Raises
        ------
        SteeringError
            If the card knows no such prior.
        """
        if name == "nominal":
            return self
        if name not in self.priors:
            msg = f"prior {name!r} is not in the card; it has {['nominal', *sorted(self.priors)]}"
            raise SteeringError(msg)
        prior = self.priors[name]
        mesons = {
            key: meson.model_copy(
                update={
                    "p0": meson.p0 * prior.p0,
                    "y_width": meson.y_width * prior.y_width,
                }
            )
            for key, meson in self.mesons.items()
        }
        modes = {
            key: mode.model_copy(
                update={
                    "branching": mode.branching * prior.yields.get(key, 1.0),
                    "branching_photon": None
                    if mode.branching_photon is None
                    else mode.branching_photon * prior.yields.get(key, 1.0),
                }
            )
            for key, mode in self.modes.items()
        }
        return self.model_copy(update={"name": f"{self.name} ({name})", "mesons": mesons, "modes": modes})
