"""Expected events, efficiency and mass resolution over mass and coupling, per production mode and channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import production
from cuts import Search, as_pairs
from simulated_decays import signal_events, signal_scan

from gammastar import accept
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.predict import DarkPhoton

POT = 1.4e17
MODES = ("bremsstrahlung", "mesons")
STATES = ("ee", "mumu")
THRESHOLD = {"ee": 0.0011, "mumu": 0.2114}  # GeV
COUPLINGS = np.geomspace(1e-7, 2e-4, 133)
EVENT = 0.411 + 1e-3 * np.array([-9, -6, -3, -1.5, 0, 1.5, 3, 6, 9])  # GeV, around the observed dimuon
MASSES = np.unique(np.r_[np.geomspace(0.01, 0.2, 14), np.linspace(0.2, 0.7, 41), EVENT])  # GeV
EFFICIENCY_ROWS = {  # relative uncertainties, Table I of the letter
    "simulation": 0.021,
    "CHOD association": 0.006,
    "PID": 0.011,
    "spectrometer quality and resolution": 0.015,
    "trigger": 0.005,
    "LAV random veto": 0.001,
    "ANTI0 random veto": 0.001,
}
SIGMAS = {"bremsstrahlung": 0.01, "mesons": 0.20, "pot": np.log(1.2)}

Source = Callable[[float, int, np.random.Generator], Sample | None]


def efficiency_sigma() -> float:
    """Return the relative uncertainty of the efficiency, the rows in quadrature."""
    return float(np.sqrt(sum(value**2 for value in EFFICIENCY_ROWS.values())))


def extra_efficiency(search: Search, mode: str, state: str) -> float:
    """Return the efficiency of the cards for what the simulation leaves out, per mode and channel."""
    card = production.Mesons.read().card["efficiency"] if mode == "mesons" else {}
    return float(search.detector.efficiency[state] * card.get(state, 1.0))


def model() -> DarkPhoton:
    """Return the dark photon with R from ALPINIST."""
    return DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))


def sources(multiplicity: str | None = None) -> dict[str, Source]:
    """Return the two production modes as functions of (mass, n, rng)."""
    return {
        "bremsstrahlung": production.bremsstrahlung,
        "mesons": production.Mesons.read(multiplicity).sample,
    }


@dataclass(frozen=True)
class Layer:
    """One production mode in one channel; arrays of shape (masses, couplings).

    signal: expected events; efficiency: selected over decays in the volume; resolution: of the mass [GeV];
    relative_error: of the signal, from the finite sample.
    """

    signal: FloatArray
    efficiency: FloatArray
    resolution: FloatArray
    relative_error: FloatArray
    in_domain: FloatArray


@dataclass(frozen=True)
class Plane:
    """Layers by (mode, state) on common masses and couplings."""

    mass: FloatArray
    coupling: FloatArray
    layers: Mapping[tuple[str, str], Layer]

    def signal(self, state: str, modes: Sequence[str] = MODES) -> FloatArray:
        """Return the expected events of a channel, summed over modes."""
        return np.sum([self.layers[mode, state].signal for mode in modes], axis=0)

    def resolution(self, state: str, modes: Sequence[str] = MODES) -> FloatArray:
        """Return the mass resolution, modes combined as variances weighted with their signal."""
        total, square = np.zeros((len(self.mass), len(self.coupling))), 0.0
        for mode in modes:
            layer = self.layers[mode, state]
            total = total + layer.signal
            square = square + layer.signal * np.nan_to_num(layer.resolution) ** 2
        return np.sqrt(np.divide(square, total, out=np.full_like(total, np.nan), where=total > 0))

    def total_sigma(self, state: str) -> FloatArray:
        """Return the relative uncertainty of the expected events without that of the protons on target."""
        parts = [SIGMAS[mode] * self.layers[mode, state].signal for mode in MODES]
        total = self.signal(state)
        relative = np.divide(np.hypot(*parts), total, out=np.zeros_like(total), where=total > 0)
        return np.hypot(relative, efficiency_sigma())


def full_plane(
    search: Search,
    *,
    masses: FloatArray = MASSES,
    couplings: FloatArray = COUPLINGS,
    n: int = 50_000,
    modes: Sequence[str] = MODES,
    states: Sequence[str] = STATES,
    seed: int = 1,
) -> Plane:
    """Return the plane from simulated tracks and the selection of search.toml."""
    dark, made = model(), sources()
    layers = {}
    for mode in modes:
        for state in states:
            source = (mode, made[mode])
            rows = [
                _tracked(search, source, state, float(m), couplings, dark, n, stream(seed, mode, state, i))
                for i, m in enumerate(masses)
            ]
            layers[mode, state] = Layer(*(np.stack(column) for column in zip(*rows, strict=True)))
    return Plane(masses, couplings, layers)


def isolation_planes(
    search: Search, *, masses: FloatArray, couplings: FloatArray = COUPLINGS, n: int = 50_000
) -> dict[str, Plane]:
    """Return the plane of ee from bremsstrahlung with the isolation at the sides of its range."""
    return {
        side: full_plane(
            search.isolated_by(side),
            masses=masses,
            couplings=couplings,
            n=n,
            modes=("bremsstrahlung",),
            states=("ee",),
        )
        for side in ("low", "high")
    }


def _tracked(
    search: Search,
    production_mode: tuple[str, Source],
    state: str,
    mass: float,
    couplings: FloatArray,
    dark: DarkPhoton,
    n: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, ...]:
    nothing = np.zeros_like(couplings)
    mode, source = production_mode
    sample = source(mass, n, rng) if mass > THRESHOLD[state] else None
    if sample is None:
        return nothing, nothing * np.nan, nothing * np.nan, nothing, nothing
    events = signal_events(sample, mass, state, search.detector, search.card, rng=rng)
    passed, reconstructed = search.selected(as_pairs(events.positive, events.negative, events.weight), state)
    scan = signal_scan(events, passed, reconstructed, dark.ctau(mass, couplings))
    scale = POT * couplings**2 * dark.branching(mass)[state] * extra_efficiency(search, mode, state)
    error = np.divide(scan.mc_error, scan.selected, out=np.zeros_like(nothing), where=scan.selected > 0)
    return scale * scan.selected, scan.efficiency, scan.resolution, error, scale * scan.in_domain


def unit_efficiency_signal(
    states: Sequence[str],
    *,
    masses: FloatArray,
    couplings: FloatArray = COUPLINGS,
    n: int = 100_000,
    modes: Sequence[str] = ("bremsstrahlung",),
    multiplicity: str | None = None,
    detector_name: str = "na62_dump",
    seed: int = 1,
) -> FloatArray:
    """Return expected events (masses, couplings) within the apertures alone, channels and modes summed."""
    detector, dark = load_detector(data_path(f"detectors/{detector_name}.toml")), model()
    made = sources(multiplicity)
    rows = np.zeros((len(masses), len(couplings)))
    for mode in modes:
        for i, mass in enumerate(masses):
            rng = stream(seed, "unit", mode, f"{mass:.6f}")
            sample = made[mode](float(mass), n, rng)
            if sample is not None:
                found = accept.yields(
                    sample, float(mass), couplings, dark, detector, final_states=states, rng=rng
                )
                rows[i] += found.signal
    return rows
