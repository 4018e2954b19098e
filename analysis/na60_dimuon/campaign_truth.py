"""What a campaign should find: true cells, their measured domain, and events per photon of every cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vector
from campaign_parts import AXES, ENERGY, MASS, N_PAIRS, N_RESPONSE, PT, with_prior

from gammastar import accept, infer, mock, predict, select, unfold
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import watched
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Exposure, FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable, kappa

__all__ = ["COUPLINGS", "LIMIT", "Truth", "curves", "edges", "matched", "reconstructed", "truth"]

COUPLINGS = np.geomspace(1e-9, 1e-4, 101)
LIMIT = float(infer.upper_limit(0.0, 0.0, "masked", cl=0.90).expected[2])
EFFICIENCY, PAIRS = 0.02, 10.0  # a cell is measured: efficiency, and pairs expected in the data, at least
NAMES = ("cells", "domain", "events", "moved")
N_TRUTH, N_BLOCKS, N_PHOTONS = 3_000_000, 4, 4000


@dataclass(frozen=True, eq=False)
class Truth:
    """Cells of the true spectrum.

    Attributes
    ----------
    cells : NDArray, shape (n_mass, n_pt, n_energy)
        Photons per proton on target.
    domain : NDArray of bool, same shape
        Where dileptons are measured.
    events : NDArray, shape (n_mass, n_pt, n_energy, n_couplings)
        Expected dark photons seen per virtual photon of a cell, at ε of `COUPLINGS`.
    moved : NDArray, shape (k, 2, n_mass, n_pt, n_energy)
        Cells with one parameter of the prior one standard deviation down and up, over the true ones.
    """

    cells: FloatArray
    domain: Any
    events: FloatArray
    moved: FloatArray


def truth(card: Any, cache: Path, detector: str = "ship_ecn3") -> Truth:
    """Return the truth of a card, with the events in a shipped detector, from `cache` if it is there."""
    if cache.is_file():
        with np.load(cache) as kept:
            if set(NAMES) <= set(kept.files):
                return Truth(*(kept[name] for name in NAMES))
    modes = _modes(card)
    cells = sum(modes.values())
    sample = mock.simulate_events(card, 4 * N_RESPONSE, kind="mc", seed=7)
    efficiency = unfold.response(matched(sample), AXES, AXES, n_replicas=0).efficiency.reshape(cells.shape)
    per_pot = mock.simulate_events(card, N_PAIRS, kind="data", seed=7).meta["N_POT"]
    domain = (efficiency >= EFFICIENCY) & (efficiency * cells * per_pot >= PAIRS)
    ratios = [np.divide(m, cells, out=np.ones_like(cells), where=cells > 0) for m in _moved(card, modes)]
    moved = np.array(ratios).reshape(-1, 2, *cells.shape)
    found = Truth(cells, domain, _events(card, cells, detector), moved)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(cache, **{name: getattr(found, name) for name in NAMES})
    return found


def _modes(card: Any) -> dict[int, FloatArray]:
    """Return cells of generated photons per proton on target of every process."""
    found: dict[int, FloatArray] = {}
    for block in range(N_BLOCKS):
        pairs = mock.generate_pairs(card, N_TRUTH, stream(3, "truth", block))
        points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
        for code in np.unique(pairs.process):
            use = pairs.process == code
            cells = np.histogramdd(points[use], bins=[MASS, PT, ENERGY], weights=pairs.weight[use])[0]
            found[int(code)] = found.get(int(code), 0.0) + cells / N_BLOCKS
    return found


def _moved(card: Any, modes: dict[int, FloatArray]) -> Iterator[FloatArray]:
    """Yield cells with every parameter of the prior one standard deviation down and up.

    The random numbers are those of the true cells, so that a ratio to them has no statistical error of its
    own: the pairs of a slope or a width move, those of a yield weigh more.
    """
    sigma = card.priors["varied"]
    for name in ("p0", "y_width"):
        for power in (-1, 1):
            values = {"p0": 1.0, "y_width": 1.0, "yields": {}, name: getattr(sigma, name) ** power}
            yield sum(_modes(with_prior(card, **values)).values())
    for key, value in sorted(sigma.yields.items()):
        code = card.modes[key].process
        for power in (-1, 1):
            yield sum(modes.values()) + (value**power - 1.0) * modes[code]


def reconstructed(sample: Any) -> tuple[Any, FloatArray]:
    """Return the pairs of simulated events and the weight of every event, without a file between."""
    import awkward as ak

    muon = sample.branches["Muon"]
    lepton = ak.zip(
        {
            **{name: ak.values_astype(muon[name], np.float64) for name in ("px", "py", "pz")},
            "mass": ak.full_like(ak.values_astype(muon["px"], np.float64), M_MU),
            "charge": muon["charge"],
        }
    )
    weight = np.asarray(sample.branches["weight"]) * np.asarray(sample.branches["prescale"])
    rows = ak.zip({"lepton": lepton, "event": np.arange(len(weight)), "weight": weight}, depth_limit=1)
    return select.pairs(rows)[0], weight


def matched(sample: Any) -> MatchedPairs:
    """Return generated photons with their reconstructed pairs."""
    pairs, weight = reconstructed(sample)
    n = len(weight)
    reco = np.full((n, 3), np.nan)
    reco[pairs.event] = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    names = ("gen_mll", "gen_qT", "gen_E")
    true = np.stack([np.asarray(sample.branches[k], dtype=np.float64) for k in names], axis=1)
    return MatchedPairs(true, reco, weight, np.arange(n), np.empty((0, 3)), np.empty(0))


def _events(card: Any, cells: FloatArray, name: str) -> FloatArray:
    """Return dark photons seen per virtual photon of every cell and coupling; photons are even in a cell."""
    detector = load_detector(data_path(f"detectors/{name}.toml"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    target = card.target
    law = accept.Measured(
        Exposure(card.beam.energy, target.a, target.z, target.thickness, 1.0), "per_interaction"
    )
    result = np.zeros((*cells.shape, len(COUPLINGS)))
    for i, j, k in zip(*np.nonzero(cells), strict=True):
        mass, width = 0.5 * (MASS[i] + MASS[i + 1]), MASS[i + 1] - MASS[i]
        rng = stream(5, i, j, k)
        pt = rng.uniform(PT[j], PT[j + 1], N_PHOTONS)
        energy = rng.uniform(ENERGY[k], ENERGY[k + 1], N_PHOTONS)
        good = energy**2 > mass**2 + pt**2
        pt, energy, n = pt[good], energy[good], int(good.sum())
        if n == 0:
            continue
        phi = rng.uniform(-np.pi, np.pi, n)
        pz = np.sqrt(energy**2 - mass**2 - pt**2)
        p4 = vector.array({"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pz, "E": energy})
        weight = np.full(n, mass / (2 * float(kappa(mass, M_MU))) / width / n)
        sample = Sample(p4, weight, np.zeros((n, 3)), np.ones(n, dtype=bool))
        sight = Sight.of(mass, COUPLINGS, model, detector, ("ee", "mumu"), law)
        result[i, j, k] = sight.expected(watched(sight, sample, rng)[0]).signal
    return result


def edges(events: FloatArray) -> FloatArray:
    """Return log10 of both edges per mass, nan without one; events of shape (n_mass, n_couplings)."""
    log_g = np.log10(COUPLINGS)
    found = np.full((len(events), 2), np.nan)
    for i, row in enumerate(events):
        above = np.flatnonzero(row >= LIMIT)
        for side, a in enumerate((above[0], above[-1]) if len(above) else ()):
            b = a - 1 if side == 0 else a + 1
            if 0 <= b < len(row) and row[b] > 0:
                slope = (np.log10(row[a]) - np.log10(row[b])) / (log_g[a] - log_g[b])
                found[i, side] = log_g[a] + (np.log10(LIMIT) - np.log10(row[a])) / slope
    return found


def curves(events: FloatArray, down: FloatArray, up: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return expected events one standard deviation down, at least none, and up."""
    return np.maximum(events - down, 0.0), events + up
