"""End-to-end pseudo-experiments: ``python3 analysis/na60_dimuon/campaigns.py [-n N] [VARIANT …]``.

Each campaign makes its own MOCK data and its own simulation, of another prior than the data, and goes from
pairs to the dark-photon rate and to both edges of the expected reach of the SHiP-like detector, with the
signal of the measured domain alone. The truth is known, so pulls and coverage follow. Finished campaigns are
kept in ``results/na60_dimuon/campaigns/`` and are not made again.

The expected events are linear in the cells of the spectrum, N(m, ε) = Σ_i c_i a_i(m, ε): a_i is computed
once, and the covariance of the cells gives the error of N and of the edges.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

VARIANTS = ("nominal", "no background", "R = 1", "resolution +10 %", "same prior", "one iteration")
MASS = [round(0.2125 + 0.05 * i, 4) for i in range(19)]
PT = [0.0, 0.3, 0.6, 1.0, 6.0]
ENERGY = [0.2, 6.0, 9.0, 12.0, 16.0, 22.0, 32.0, 48.0, 80.0, 400.0]
N_PAIRS, N_RESPONSE, N_TRUTH = 30_000, 250_000, 3_000_000
COUPLINGS = (1e-9, 1e-4, 101)
LIMIT = 2.3026  # events: exact 90 % CL limit without background


@dataclass(frozen=True)
class Variant:
    """What one set of campaigns changes."""

    prior: str = "varied"
    background: bool = True
    r_factor: float | None = None
    sigma_p: float = 1.0
    n_iterations: int = 6


SETTINGS = {
    "nominal": Variant(),
    "no background": Variant(background=False),
    "R = 1": Variant(r_factor=1.0),
    "resolution +10 %": Variant(sigma_p=1.1),
    "same prior": Variant(prior="nominal"),
    "one iteration": Variant(n_iterations=1),
}


def campaign(card, variant: Variant, seed: int) -> dict:
    """Return unfolded cells per proton on target and their covariance of one campaign."""
    import numpy as np

    from gammastar import select, simulate, spectrum, subtract, unfold
    from gammastar.core.axes import variable
    from gammastar.core.records import Exposure
    from gammastar.core.rng import stream

    axes = tuple(variable(n, e) for n, e in (("mass", MASS), ("pt", PT), ("energy", ENERGY)))
    if not variant.background:
        card = card.model_copy(update={"background": card.background.model_copy(update={"fraction": 0.0})})
    data = simulate.simulate_events(card, N_PAIRS, kind="data", seed=seed)
    smeared = card.detector.model_copy(update={"sigma_p": variant.sigma_p * card.detector.sigma_p})
    other = card.model_copy(update={"detector": smeared})
    response = simulate.simulate_events(
        other, N_RESPONSE, kind="mc", prior=variant.prior, seed=seed + 100_000
    )
    pairs, _ = select.pairs(events_of(data))
    r_factor = variant.r_factor or (data.meta["r_factor"] if variant.background else 1.0)
    sigma = data.meta["r_factor_sigma"] if variant.background and variant.r_factor is None else 0.0
    measured = subtract.same_sign(select.fill(pairs, axes), r_factor=r_factor, r_factor_sigma=sigma)
    found = unfold.response(matched(response), axes, axes, n_replicas=40, rng=stream(seed, "response"))
    result = unfold.iterative(measured, found, n_iterations=variant.n_iterations)
    exposure = Exposure(
        card.beam.energy, card.target.a, card.target.z, card.target.thickness, data.meta["N_POT"]
    )
    result = spectrum.per_pot(result, exposure)
    return {"values": result.values.ravel(), "cov": result.cov.astype(np.float32)}


def events_of(sample):
    """Return mock events in the form that the reader gives."""
    import awkward as ak
    import numpy as np

    from gammastar.core.constants import M_MU

    muon = sample.branches["Muon"]
    lepton = ak.zip(
        {
            **{name: ak.values_astype(muon[name], np.float64) for name in ("px", "py", "pz")},
            "mass": ak.full_like(ak.values_astype(muon["px"], np.float64), M_MU),
            "charge": muon["charge"],
        }
    )
    weight = np.asarray(sample.branches["weight"]) * np.asarray(sample.branches["prescale"])
    return ak.zip(
        {"lepton": lepton, "event": np.asarray(sample.branches["event"]), "weight": weight}, depth_limit=1
    )


def matched(sample):
    """Return generated photons with their reconstructed pairs."""
    import numpy as np

    from gammastar import select
    from gammastar.core.pairs import MatchedPairs

    events = events_of(sample)
    n = len(events)
    rows = events_of(sample)
    rows["event"] = np.arange(n)
    pairs, _ = select.pairs(rows)
    reco = np.full((n, 3), np.nan)
    reco[pairs.event] = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    true = np.stack(
        [np.asarray(sample.branches[k], dtype=np.float64) for k in ("gen_mll", "gen_qT", "gen_E")], 1
    )
    none = np.empty((0, 3))
    return MatchedPairs(
        true, reco, np.asarray(events["weight"]), np.asarray(events["event"]), none, np.empty(0)
    )


def truth(card):
    """Return the true cells per proton on target and their efficiency from one large sample."""
    import numpy as np

    from gammastar import simulate, unfold
    from gammastar.core.axes import variable
    from gammastar.core.rng import stream

    axes = tuple(variable(n, e) for n, e in (("mass", MASS), ("pt", PT), ("energy", ENERGY)))
    pairs = simulate.generate_pairs(card, N_TRUTH, stream(3, "truth"))
    points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    cells, _ = np.histogramdd(points, bins=[MASS, PT, ENERGY], weights=pairs.weight)
    sample = simulate.simulate_events(card, 4 * N_RESPONSE, kind="mc", seed=7)
    efficiency = unfold.response(matched(sample), axes, axes, n_replicas=0).efficiency
    return cells, efficiency.reshape(cells.shape) >= 0.02


def cell_yields(card, domain):
    """Return expected events per photon of a cell, shape (n_mass, n_pt, n_energy, n_couplings)."""
    import numpy as np
    import vector

    from gammastar import accept, predict
    from gammastar.core.constants import M_MU
    from gammastar.core.data import data_path
    from gammastar.core.records import Exposure, Sample
    from gammastar.core.rng import stream
    from gammastar.physics.detector import load_detector
    from gammastar.physics.kroll_wada import kappa
    from gammastar.physics.widths import RTable

    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    exposure = Exposure(card.beam.energy, card.target.a, card.target.z, card.target.thickness, 1.0)
    couplings = np.geomspace(*COUPLINGS)
    result = np.zeros((*domain.shape, len(couplings)))
    n = 4000
    for i, j, k in zip(*np.nonzero(domain), strict=True):
        mass, width = 0.5 * (MASS[i] + MASS[i + 1]), MASS[i + 1] - MASS[i]
        rng = stream(5, i, j, k)
        pt = rng.uniform(PT[j], PT[j + 1], n)
        energy = rng.uniform(ENERGY[k], ENERGY[k + 1], n)
        good = energy**2 > mass**2 + pt**2
        pt, energy = pt[good], energy[good]
        if not len(pt):
            continue
        phi = rng.uniform(-np.pi, np.pi, len(pt))
        p4 = vector.array(
            {
                "px": pt * np.cos(phi),
                "py": pt * np.sin(phi),
                "pz": np.sqrt(energy**2 - mass**2 - pt**2),
                "E": energy,
            }
        )
        weight = np.full(len(pt), mass / (2 * float(kappa(mass, M_MU))) / width / len(pt))
        sample = Sample(p4, weight, np.zeros((len(pt), 3)), np.ones(len(pt), dtype=bool))
        law = accept.Measured(exposure, "per_interaction")
        result[i, j, k] = accept.yields(
            sample, mass, couplings, model, detector, measured=law, rng=rng
        ).signal
    return result


def edges_of(cells, response, cov=None):
    """Return log10 of both edges per mass, and their errors: shape (n_mass, 2) each."""
    import numpy as np

    log_g = np.log10(np.geomspace(*COUPLINGS))
    events = np.einsum("ijk,ijkl->il", cells, response)
    found, errors = np.full((len(events), 2), np.nan), np.full((len(events), 2), np.nan)
    blocks = np.prod(cells.shape[1:])
    for i, row in enumerate(events):
        above = np.flatnonzero(row >= LIMIT)
        if not len(above):
            continue
        for side, a in enumerate((above[0], above[-1])):
            b = a - 1 if side == 0 else a + 1
            if not 0 <= b < len(row) or row[b] <= 0:
                continue
            slope = (np.log10(row[a]) - np.log10(row[b])) / (log_g[a] - log_g[b])
            found[i, side] = log_g[a] + (np.log10(LIMIT) - np.log10(row[a])) / slope
            if cov is not None:
                part = cov[i * blocks : (i + 1) * blocks, i * blocks : (i + 1) * blocks]
                c = response[i, ..., a].ravel()
                errors[i, side] = np.sqrt(c @ part @ c) / row[a] / np.log(10) / abs(slope)
    return found, errors


def run(names: list[str], n: int, output: Path) -> list[dict]:
    """Make the missing campaigns; return one row of statistics per variant."""
    import numpy as np

    from gammastar import simulate
    from gammastar.core.data import data_path
    from gammastar.store.manifest import atomic

    card = simulate.load_card(data_path("cards/na60_mock.toml"))
    cells, domain = truth(card)
    response = cell_yields(card, domain)
    response[~domain] = 0.0
    true_edges, _ = edges_of(cells, response)
    rows = []
    for name in names:
        folder = output / "".join(c if c.isalnum() else "_" for c in name)
        folder.mkdir(parents=True, exist_ok=True)
        results = []
        for i in range(n):
            path = folder / f"{i:04d}.npz"
            if not path.is_file():
                with atomic(path) as temporary, temporary.open("wb") as stream:
                    np.savez(stream, **campaign(card, SETTINGS[name], 1000 + i))
            with np.load(path) as kept:
                results.append((kept["values"].reshape(cells.shape), kept["cov"].astype(np.float64)))
            print(f"\r{name}: {i + 1}/{n}", end="", file=sys.stderr, flush=True)
        rows.append(summary(name, results, cells, domain, response, true_edges))
        print(file=sys.stderr)
    return rows


def summary(name, results, cells, domain, response, true_edges) -> dict:
    """Return mean and width of the pulls of the rate, coverage of both edges, shift of the lower one."""
    import numpy as np

    true_rate = np.where(domain, cells, 0.0).sum(axis=(1, 2))
    pulls, inside, shift = [], [], []
    mask = domain.ravel()
    blocks = np.prod(cells.shape[1:])
    for values, cov in results:
        cut = cov * np.outer(mask, mask)
        n = len(true_rate)
        sigma = np.sqrt(
            [cut[i * blocks : (i + 1) * blocks, i * blocks : (i + 1) * blocks].sum() for i in range(n)]
        )
        pulls.append((np.where(domain, values, 0.0).sum(axis=(1, 2)) - true_rate) / sigma)
        found, error = edges_of(np.where(domain, values, 0.0), response, cut)
        inside.append(np.abs(found - true_edges) < error)
        shift.append(found - true_edges)
    pulls, inside, shift = np.array(pulls), np.array(inside), np.array(shift)
    known = np.isfinite(shift)
    correlation = np.corrcoef(pulls.T)
    return {
        "variant": name,
        "n": len(results),
        "pull mean": float(pulls.mean()),
        "pull width": float(pulls.std(axis=0, ddof=1).mean()),
        "largest |correlation|": float(np.abs(correlation - np.eye(len(correlation))).max()),
        "coverage lower": float(inside[..., 0][known[..., 0]].mean()),
        "coverage upper": float(inside[..., 1][known[..., 1]].mean()),
        "shift log10 lower": float(np.nanmean(shift[..., 0])),
        "shift log10 upper": float(np.nanmean(shift[..., 1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("-n", type=int, default=100, help="campaigns per variant")
    options = parser.parse_args()
    unknown = set(options.variant) - set(VARIANTS)
    if unknown:
        parser.error(f"unknown variant {sorted(unknown)}")
    reenter("all")
    from gammastar.store.records import write_table

    output = ROOT / "results" / "na60_dimuon" / "campaigns"
    rows = run(options.variant or list(VARIANTS), options.n, output)
    for row in rows:
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    write_table(output / "campaigns.csv", {key: [row[key] for row in rows] for key in rows[0]})


if __name__ == "__main__":
    main()
