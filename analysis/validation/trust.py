"""Ours against published: past beam dumps recomputed, and a run reinterpreted from its own record."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ANALYSIS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ANALYSIS / "na60_dimuon"))

import campaign_report  # noqa: E402
import campaigns  # noqa: E402
from validation import reach_edges, trust_pythia  # noqa: E402
from validation.trust_record import record_rows  # noqa: E402

N_CAMPAIGNS = 100
MAIN_JOB = ANALYSIS.parent / "results" / "na60_dimuon"
SIGNAL = {"measured": "signal of the measured domain", "all": "all signal"}
N_PYTHIA = 150_000  # inelastic events of the truth


def rows(*, quick: bool) -> Iterator[dict]:
    yield from rate_of_the_main_job()
    yield from flow_of_the_main_job()
    yield from record_rows()
    if (MAIN_JOB / "reach.csv").is_file():
        yield from reach_edges.main_job(MAIN_JOB)
    if not quick:
        yield from trust_pythia.rows()
        yield from pseudo_experiments()
        yield from edges_beside_the_beam()


def width_error(pulls: np.ndarray) -> float:
    """Return the standard deviation of the mean width of pulls (campaigns, masses): delete-one jackknife."""
    n = len(pulls)
    left = [np.delete(pulls, i, axis=0).std(axis=0, ddof=1).mean() for i in range(n)]
    return float(np.sqrt((n - 1) * np.var(left)))


def pseudo_experiments() -> Iterator[dict]:
    """From mock ntuples to the rate and both edges; each campaign's simulation has a prior of its own."""
    campaigns.produce(["nominal"], N_CAMPAIGNS, campaigns.FOLDER)
    known, results = campaign_report.prepared(list(campaigns.VARIANTS), 100_000, campaigns.FOLDER)
    found = campaign_report.summary("nominal", results["nominal"], known)
    label = f"{found['n']} campaigns"
    offsets, errors = campaign_report.rates(results["nominal"], known)
    own = width_error(offsets / errors)
    yield {
        "quantity": f"{label}: width of the pulls of the rate, mean over masses",
        "ours": found["pull width"],
        "expected": 1.0,
        "tolerance": 0.03 + 2.0 * own,
        "source": f"known truth; 3 % and twice its own error of {own:.3f}",
    }
    yield {
        "quantity": f"{label}: mean pull of the rate",
        "ours": found["pull mean"],
        "expected": campaign_report.follows(offsets, errors).mean(),
        "tolerance": 3.0 * found["pull mean error"],
    } | {"source": "no bias, errors that follow the rate: −cov(rate, σ)/⟨σ⟩²; three standard errors"}
    for name in ("nominal", "more simulation"):
        if len(results[name]) >= N_CAMPAIGNS:
            offsets, _ = campaign_report.rates(results[name], known)
            each = (offsets / offsets.std(axis=0, ddof=1)).mean(axis=1)
            yield {
                "quantity": f"{len(each)} campaigns, {name}: bias of the rate over its scatter",
                "ours": each.mean(),
                "expected": 0.0,
                "tolerance": 3.0 * each.std(ddof=1) / np.sqrt(len(each)),
            } | {"source": "mean over masses; known truth, three standard errors"}
    for part in ("measured", "all"):
        for side in campaign_report.SIDES:
            key = f"coverage {side}, {part}"
            yield {
                "quantity": f"{label}: coverage of ±1σ, {side} edge, {SIGNAL[part]}",
                "ours": found[key],
                "expected": 0.683,
                "tolerance": 3.0 * found[f"{key}, error"],
                "source": "known truth, three standard errors over campaigns",
            }
    seen, estimated = campaign_report.correlation(results["nominal"], known)
    apart = ~np.eye(len(seen), dtype=bool)
    yield {
        "quantity": f"{label}: correlation of the pulls between masses, found less estimated, rms",
        "ours": float(np.sqrt(np.mean((seen - estimated)[apart] ** 2))),
        "expected": 1 / np.sqrt(found["n"]),
        "tolerance": 0.5 / np.sqrt(found["n"]),
        "source": "1/√n",
    }


def edges_beside_the_beam() -> Iterator[dict]:
    """See the same campaigns with a detector beside the beam, where most of the signal was measured."""
    known, results = campaign_report.prepared(["nominal"], 100_000, campaigns.FOLDER, "shadows_like")
    found = campaign_report.summary("nominal", results["nominal"], known)
    for part in ("measured", "all"):
        for side in campaign_report.SIDES:
            key = f"coverage {side}, {part}"
            yield {
                "quantity": f"{found['n']} campaigns, off-axis detector: coverage of ±1σ, {side} edge, "
                f"{SIGNAL[part]}",
                "ours": found[key],
                "expected": 0.683,
                "tolerance": 3.0 * found[f"{key}, error"],
                "source": "known truth, three standard errors over campaigns",
            }


def rate_of_the_main_job() -> Iterator[dict]:
    """Compare the rate of a finished run at the masses of its scan with its MOCK card in closed form."""
    rows = (
        ("main job: largest distance of the rate from truth, full phase space, in σ", 4.0, "all masses"),
        ("main job: rms (rate − truth)/σ, 0.74 to 1.06 GeV", 1.2, "exact masses on and beside ω and φ"),
    )
    path = ANALYSIS.parent / "results" / "na60_dimuon" / "stages" / "predict.npz"
    if not path.is_file():
        for quantity, tolerance, source in rows:
            yield {"quantity": quantity, "ours": np.nan, "expected": 0.0, "tolerance": tolerance} | {
                "source": source,
                "skipped": "python3 analysis/run.py first",
            }
        return
    from gammastar import mock
    from gammastar.core.constants import M_MU
    from gammastar.core.files import data_path
    from gammastar.core.signal import Rate
    from gammastar.mock.cocktail import mass_spectrum
    from gammastar.physics.qed import dark_photon_rate
    from gammastar.pipeline.cache import load_arrays

    found = Rate.from_arrays(load_arrays(path))
    mass, rate, error = found.mass, found.value, found.error()
    section = _simulated(path.parents[1])
    card = mock.load_card(data_path(f"cards/{section['card']}.toml"), leave_out=section.get("leave_out", ()))
    truth = dark_photon_rate(mass_spectrum(card, mass), mass, M_MU)
    lines = (mass > 0.74) & (mass < 1.06)
    values = (
        float(np.abs((rate - truth) / error).max()),
        float(np.sqrt(np.mean(((rate - truth) / error)[lines] ** 2))),
    )
    for (quantity, tolerance, source), value in zip(rows, values, strict=True):
        yield {"quantity": quantity, "ours": value, "expected": 0.0, "tolerance": tolerance, "source": source}
    spread = float(np.sqrt(np.mean(np.log10(rate / truth)[lines] ** 2)))
    yield row("main job: rms log₁₀(rate/truth), 0.74 to 1.06 GeV", spread, 0.0, 0.0, "the same masses") | {
        "measured": True
    }


def flow_of_the_main_job() -> Iterator[dict]:
    """Compare the flow that a finished run trained with the truth of its mock, inside the measured domain."""
    label = "main job: flow against the truth, measured domain"
    source = "background, resolution, acceptance on; three of band and error"
    texts = {"energy": "E", "pt": "q_T"}
    folder = ANALYSIS.parent / "results" / "na60_dimuon"
    if not (folder / "domain.safetensors").is_file():
        for text in texts.values():
            quantity = f"{label}: mean ln {text} less the flow's"
            yield {"quantity": quantity, "ours": np.nan, "expected": 0.0, "tolerance": 0.0} | {
                "source": source,
                "skipped": "python3 analysis/run.py first",
            }
        return
    found = _density_of_the_main_job(folder)
    level = f"significance {found.options.significance:g}, power {found.options.power:g}"
    for name, text in texts.items():
        shift, error = found.shift[name]
        tolerance = 3.0 * float(np.hypot(error, found.band[name]))
        yield row(f"{label}: mean ln {text} less the flow's", shift, 0.0, tolerance, source)
        yield row(f"{label}: smallest shift of all {text} found", found.smallest[name], 0.0, 0.0, level) | {
            "measured": True
        }
    text = "the truth; without the error of efficiency and subtraction"
    yield row(f"{label}: p-value in the band of the replicas", found.band_p_value, 0.505, 0.0, text) | {
        "measured": True
    }


def _simulated(folder: Path) -> dict[str, Any]:
    """Return the section [simulate] of a finished run."""
    from gammastar.store.manifest import read_json

    return read_json(folder / "steering.json")["simulate"]


def row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    keys = ("quantity", "ours", "expected", "tolerance", "source")
    return dict(zip(keys, (quantity, float(ours), expected, tolerance, source), strict=True))


def _density_of_the_main_job(folder: Path) -> Any:
    from dataclasses import replace

    from gammastar import flow, mock
    from gammastar.core.files import data_path
    from gammastar.core.sampling import stream
    from gammastar.pipeline.record import read_domain

    trained, members = flow.load(folder / "flow"), flow.load_variations(folder)
    section = _simulated(folder)
    card = mock.load_card(data_path(f"cards/{section['card']}.toml"), leave_out=section.get("leave_out", ()))
    pythia = section["engine"] == "pythia"
    mesons = mock.pythia_engine(card, N_PYTHIA, seed=77).mesons if pythia else None
    options = {} if mesons is None else {"mesons": mesons}
    pairs = mock.generate_pairs(card, 1_000_000, stream(9, "truth"), **options)
    return flow.density_test(
        trained,
        np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1),
        inside=read_domain(folder / "domain.safetensors").in_domain,
        replicas=replace(members, local=None).weights,
        rng=stream(9, "density"),
    )
