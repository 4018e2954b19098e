"""The selection of the search as functions of pairs: same functions for ntuples and for the fast scan."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from beam_line import BeamLine, approach, invariant_mass
from tracking import Spectrometer, Tracks, extrapolate, inside, load_spectrometer, plane_of

from gammastar.core.constants import M_E, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.polarisation import two_track_vertex

MASSES = {"e": M_E, "mu": M_MU, "pi": M_PI_CHARGED}
STATES = {"ee": ("e", "e"), "mumu": ("mu", "mu")}
CONTROLS = {"mue": ("mu", "e"), "mupi": ("mu", "pi"), "epi": ("e", "pi"), "pipi": ("pi", "pi")}


def _isolation(numbers: dict[str, Any], side: str) -> tuple[float, float]:
    card = tomllib.loads(data_path(numbers["isolation"]).read_text())
    return card["first_plane"][side], card["calorimeter"][side]


def tracks_of(pairs: Pairs, leg: int) -> Tracks:
    """Return one leg of every pair."""
    column = {name.removesuffix(f"_{leg}"): value for name, value in pairs.columns.items()}
    return Tracks(
        p=np.stack([column[name] for name in ("qx", "qy", "qz")], axis=1),
        point=np.stack([column[name] for name in ("x", "y", "z")], axis=1),
        charge=column["q"].astype(np.int8),
        energy=column["calorimeter"],
        muon_hit=column["muon_hit"] > 0.5,
        time=column["time"],
    )


def as_pairs(first: Tracks, second: Tracks, weight: FloatArray) -> Pairs:
    """Return simulated tracks as pairs with the columns that an ntuple would give."""
    columns: dict[str, FloatArray] = {}
    for leg, track in ((1, first), (2, second)):
        for i, axis in enumerate("xyz"):
            columns[f"q{axis}_{leg}"], columns[f"{axis}_{leg}"] = track.p[:, i], track.point[:, i]
        columns |= {
            f"q_{leg}": track.charge.astype(float),
            f"calorimeter_{leg}": track.energy,
            f"muon_hit_{leg}": track.muon_hit.astype(float),
            f"time_{leg}": track.time,
        }
    total = first.p + second.p
    mass = invariant_mass(first.p, second.p, M_E, M_E)
    pt = np.hypot(total[:, 0], total[:, 1])
    energy = np.sqrt(np.sum(total**2, axis=1) + mass**2)
    charge = (first.charge + second.charge).astype(np.int8)
    return Pairs(mass, pt, energy, charge, weight, np.arange(len(weight)), columns)


@dataclass(frozen=True)
class Search:
    """The numbers of search.toml with the detector, and the cuts as methods."""

    numbers: dict[str, Any]
    detector: Detector
    card: Spectrometer
    beam: BeamLine
    isolation: tuple[
        float, float
    ]  # least distance of the tracks at the first chamber and the calorimeter [m]

    @classmethod
    def read(cls, path: Path | None = None) -> Search:
        """Read search.toml; the default lies beside this file."""
        path = Path(__file__).with_name("search.toml") if path is None else path
        numbers = tomllib.loads(path.read_text())
        detector = load_detector(data_path(numbers["detector"]))
        card = load_spectrometer(data_path(numbers["spectrometer"]))
        return cls(numbers, detector, card, BeamLine(**numbers["beam"]), _isolation(numbers, "nominal"))

    def isolated_by(self, side: str) -> Search:
        """Return the search with both distances at one side of their ranges: "low", "nominal" or "high"."""
        return replace(self, isolation=_isolation(self.numbers, side))

    def identify(self, tracks: Tracks) -> dict[str, BoolArray]:
        """Return which tracks are electrons, muons, pions."""
        pid, ratio = self.numbers["pid"], tracks.energy / tracks.momentum
        low, high = pid["electron"]
        quiet = ~tracks.muon_hit
        return {
            "e": quiet & (tracks.energy > pid["min_energy"]) & (ratio > low) & (ratio < high),
            "mu": tracks.muon_hit & (ratio < pid["muon_max"]),
            "pi": quiet & (ratio < pid["pion_max"]),
        }

    def pair_is(self, pairs: Pairs, kinds: tuple[str, str]) -> BoolArray:
        """Return the pairs of two kinds, in either order."""
        first, second = (self.identify(tracks_of(pairs, leg)) for leg in (1, 2))
        a, b = kinds
        return (first[a] & second[b]) | (first[b] & second[a])

    def good_tracks(self, pairs: Pairs) -> BoolArray:
        """Momentum, acceptance of every plane, time with respect to the trigger."""
        keep = np.ones(len(pairs), dtype=np.bool_)
        for leg in (1, 2):
            track = tracks_of(pairs, leg)
            keep &= track.momentum > self.numbers["track"]["min_momentum"]
            keep &= np.abs(track.time) < self.numbers["track"]["trigger_window"]
            for plane in self.detector.planes:
                keep &= inside(plane, *extrapolate(track, plane, self.detector))
        return keep

    def isolated(self, pairs: Pairs) -> BoolArray:
        """Distance of the two tracks at the first chamber and at the calorimeter."""
        legs = [tracks_of(pairs, leg) for leg in (1, 2)]
        keep = np.ones(len(pairs), dtype=np.bool_)
        planes = (self.card.first_plane, self.card.calorimeter)
        for name, least in zip(planes, self.isolation, strict=True):
            plane = plane_of(self.detector, name)
            (x1, y1), (x2, y2) = (extrapolate(leg, plane, self.detector) for leg in legs)
            keep &= np.hypot(x1 - x2, y1 - y2) > least
        return keep

    def vertex(self, pairs: Pairs) -> tuple[FloatArray, FloatArray]:
        """Return positions (n, 3) and distances of the two lines (n,) [m]."""
        first, second = (tracks_of(pairs, leg) for leg in (1, 2))
        found = two_track_vertex(first.point, first.p, second.point, second.p)
        return found.position, found.distance

    def one_vertex(self, pairs: Pairs) -> BoolArray:
        """Tracks close in space and time, and no other such pair in the event."""
        rule = self.numbers["vertex"]
        _, distance = self.vertex(pairs)
        near = np.abs(pairs.columns["time_1"] - pairs.columns["time_2"]) < rule["coincidence"]
        near &= distance < rule["max_distance"]
        _, event = np.unique(pairs.event, return_inverse=True)
        return near & (np.bincount(event, near)[event] == 1) if len(pairs) else near

    def fiducial(self, pairs: Pairs) -> BoolArray:
        """Vertex inside the fiducial volume."""
        low, high = self.numbers["vertex"]["z"]
        z = self.vertex(pairs)[0][:, 2]
        return np.asarray((z > low) & (z < high))

    def tax(self, pairs: Pairs) -> tuple[FloatArray, FloatArray]:
        """Return Z_TAX and CDA_TAX [m]."""
        position, _ = self.vertex(pairs)
        return approach(position, tracks_of(pairs, 1).p + tracks_of(pairs, 2).p, self.beam)

    def in_signal_region(self, z: FloatArray, cda: FloatArray, state: str) -> BoolArray:
        """Return whether points of the plane (Z_TAX, CDA_TAX) lie in the signal region."""
        region = self.numbers["signal_region"][state]
        along, across = (z - region["z"]) / region["half_z"], cda / region["cda"]
        if region["shape"] == "ellipse":
            return np.asarray(along**2 + across**2 < 1)
        if region["shape"] == "box":
            return np.asarray((np.abs(along) < 1) & (across < 1))
        msg = f"search.toml: shape {region['shape']!r} must be 'ellipse' or 'box'"
        raise PhysicsError(msg)

    def in_control_region(self, z: FloatArray, cda: FloatArray, state: str) -> BoolArray:
        """Return whether points lie in the control region, which surrounds the signal region."""
        region = self.numbers["control_region"]
        box = (z > region["z"][0]) & (z < region["z"][1]) & (cda < region["cda"])
        return np.asarray(box & ~self.in_signal_region(z, cda, state))

    def visible(self, pairs: Pairs, state: str) -> BoolArray:
        """Return the pairs that are not masked: blinding is a cut like any other."""
        z, cda = self.tax(pairs)
        hidden = np.zeros(len(pairs), dtype=np.bool_)
        if "SR" in self.numbers["masked"]:
            hidden |= self.in_signal_region(z, cda, state)
        if "CR" in self.numbers["masked"]:
            hidden |= self.in_control_region(z, cda, state)
        return ~hidden

    def before_region(self, state: str) -> tuple[Any, ...]:
        """Return the cuts of one final state as functions of pairs, all but the signal region."""
        kinds = STATES.get(state) or CONTROLS[state]

        def opposite_sign(pairs: Pairs) -> BoolArray:
            return pairs.charge == 0

        def identified(pairs: Pairs) -> BoolArray:
            return self.pair_is(pairs, kinds)

        return (self.one_vertex, opposite_sign, self.good_tracks, self.isolated, identified, self.fiducial)

    def selected(self, pairs: Pairs, state: str) -> tuple[BoolArray, FloatArray]:
        """Return which pairs pass everything, signal region included, and their masses [GeV]."""
        keep = np.ones(len(pairs), dtype=np.bool_)
        for cut in self.before_region(state):
            keep &= cut(pairs)
        z, cda = self.tax(pairs)
        keep &= self.in_signal_region(z, cda, state)
        m1, m2 = (MASSES[kind] for kind in STATES[state])
        return keep, invariant_mass(tracks_of(pairs, 1).p, tracks_of(pairs, 2).p, m1, m2)
