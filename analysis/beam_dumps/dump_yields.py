"""What a dump produces and how it is read: production channels and variants of CHARM and NuCal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gammastar import accept, infer, predict
from gammastar.core.constants import CTAU_PER_GEV, M_E
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics import bremsstrahlung
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.geometry import Cylinder
from gammastar.physics.hadrons import FORM_FACTORS
from gammastar.physics.mesons import MesonTable
from gammastar.physics.qed import RTable, lepton_width
from gammastar.predict import theory

LIMITS = {"charm": 2.3026, "nucal": 3.6}  # events: none seen; 5 seen with 3.5 expected, as ALPINIST takes it
KERNEL = "fww_vmd"
COUPLINGS = (1e-9, 1e-3, 241)
N_SAMPLE = 100_000
TABLE_A = 207.2  # the tables of mesons carry factors from pp to p-Pb
FLUX = 2.9e17 / 2.4e18  # neutral pions per proton in the solid angle of CHARM; recalled from its axion search
LEPTONS = ("ee", "mumu")
SOFT = 3.0  # GeV: lower cut on the energy that the published curve of NuCal seems to rest on


class Electrons:
    """A dark photon that decays to electrons alone, its lifetime from that width."""

    def ctau(self, mass, coupling):
        """Return cτ [m]."""
        return CTAU_PER_GEV / (lepton_width(mass, M_E) * np.square(coupling))

    def branching(self, mass):
        """Return the branching ratios, closed below threshold."""
        return {"ee": float(mass > 2 * M_E)}


@dataclass(frozen=True)
class Variant:
    """One reading of an experiment.

    Attributes
    ----------
    detector : Detector
    channels : tuple of Channel
    states : tuple of str
        Final states that count.
    limit : float
        Events that are excluded.
    model : LongLived or None
        None: the minimal dark photon.
    """

    detector: Detector
    channels: tuple
    states: tuple[str, ...] = LEPTONS
    limit: float = 2.3026
    model: Electrons | None = None


def mesons(beam_energy: float, a: float) -> MesonTable:
    """Return the mesons of a beam on a nucleus: the factors of the table go as a power of A."""
    table = MesonTable.read(data_path(f"measurements/mesons_{beam_energy:.0f}gev.toml"))
    power = np.log(a) / np.log(TABLE_A)
    scaled = {name: replace(m, a_factor=float(m.a_factor**power)) for name, m in table.mesons.items()}
    return replace(table, mesons=scaled)


def channels(detector: Detector, *, only: str = "") -> tuple:
    """Return bremsstrahlung and decays of mesons (π⁰, η, η′ → γA′; ω → π⁰A′ and the like)."""
    beam = detector.beam_energy
    table = mesons(beam, detector.target.a)
    found = {
        "brem": theory.Bremsstrahlung(bremsstrahlung.preset(KERNEL), beam),
        "pi0": theory.PionDalitz(table, beam),
        "eta": theory.PseudoscalarDalitz(table, beam),
        "vector": theory.VectorDalitz(table, beam),
    }
    return (found[only],) if only else tuple(found.values())


def detector_of(name: str) -> Detector:
    """Return the detector of the card."""
    return load_detector(data_path(f"detectors/{name}.toml"))


def in_solid_angle(detector: Detector, meson: str, n: int = 2_000_000) -> float:
    """Return mesons per proton that fly into the last plane of a detector."""
    table = mesons(detector.beam_energy, detector.target.a)
    source, plane = table.mesons[meson], detector.planes[-1]
    p = source.sample(source.mass, n, detector.beam_energy, stream(1, detector.name, meson))
    x0, y0, z0 = detector.target.position
    x, y = (at + p[k] / p[2] * (plane.z - z0) for k, at in ((0, x0), (1, y0)))
    inside = (p[2] > 0) & (np.abs(x) < plane.half_x) & (np.abs(y) < plane.half_y)
    return source.per_interaction * float((inside & (np.hypot(x, y) < plane.r_max)).mean())


def variant(name: str, kind: str = "default") -> Variant:
    """Return a reading of an experiment.

    Parameters
    ----------
    name : {"charm", "nucal"}
    kind : str
        "default": the card, all channels. "brem", "pi0", "eta", "vector": one channel. "paper brem" and
        "paper pi0" (NuCal): one channel, the line of the dark photon and not both leptons inside the radius,
        and energies above 3 GeV; "paper point-like": the first without a form factor of the proton. "flux"
        (CHARM): η alone, as many per proton in the solid angle as CHARM has neutral pions there, and decays
        to electrons alone. "open" (CHARM): no upper cut on the energy. The inputs of "paper", "flux" and
        "open" are inferred from the published curves, not read in their papers.
    """
    detector = detector_of(name)
    base = Variant(detector, channels(detector), limit=LIMITS[name])
    if kind == "default":
        return base
    if kind.startswith("paper "):
        volume = Cylinder(radius=detector.planes[-1].r_max, z0=detector.volume.z0, z1=detector.volume.z1)
        cuts = replace(detector.cuts, min_energy_sum=SOFT)
        line = replace(detector, planes=(), cuts=cuts, volume=volume)
        if kind == "paper point-like":
            kernel = replace(bremsstrahlung.preset(KERNEL), form_factor=FORM_FACTORS["pointlike"])
            return replace(
                base, detector=line, channels=(theory.Bremsstrahlung(kernel, detector.beam_energy),)
            )
        return replace(base, detector=line, channels=channels(detector, only=kind.split()[1]))
    if kind == "flux":
        (eta,) = channels(detector, only="eta")
        scale = FLUX / in_solid_angle(detector, "eta")
        table = eta.table
        more = {key: replace(m, multiplicity=m.multiplicity * scale) for key, m in table.mesons.items()}
        found = (replace(eta, table=replace(table, mesons=more)),)
        return replace(base, channels=found, states=("ee",), model=Electrons())
    if kind == "open":
        cuts = replace(detector.cuts, max_energy_sum=np.inf)
        return replace(base, detector=replace(detector, cuts=cuts))
    return replace(base, channels=channels(detector, only=kind))


def couplings():
    return np.geomspace(*COUPLINGS)


def events(case: Variant, masses, n: int = N_SAMPLE):
    """Return expected events, shape (n_masses, n_couplings)."""
    model = case.model or predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    total = np.zeros((len(masses), COUPLINGS[2]))
    for i, mass in enumerate(map(float, masses)):
        for channel in case.channels:
            if channel.rate(mass)[0] <= 0:
                continue
            rng = stream(1, case.detector.name, channel.group, i)
            sample = channel.produce(mass, n=n, rng=rng)
            found = accept.yields(
                sample, mass, couplings(), model, case.detector, final_states=case.states, rng=rng
            )
            total[i] += found.signal
    return total


def reach(case: Variant, masses, n: int = N_SAMPLE):
    """Return the excluded couplings."""
    return infer.reach(np.asarray(masses, dtype=float), couplings(), events(case, masses, n), case.limit)


def edges(case: Variant, masses, n: int = N_SAMPLE):
    """Return log10 of the lowest and highest excluded coupling at each mass, nan where there is none."""
    found = reach(case, masses, n)
    rows = []
    for mass in masses:
        here = found.edges[np.isclose(found.mass, mass)]
        rows.append(
            [np.nanmin(here[:, 0]), np.nanmax(here[:, 1])] if np.isfinite(here).any() else [np.nan] * 2
        )
    return np.log10(np.array(rows))
