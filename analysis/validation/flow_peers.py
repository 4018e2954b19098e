"""The flow beside the densities that the paper names, and the ensemble beside a Laplace posterior."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from validation._density_baselines import KernelSampler, MixtureSampler
from validation._laplace import laplace
from validation._quality import quality
from validation.flow_mock import BEAM, RANGE, appendix_b, pairs

from gammastar.core.records import ENERGY, KINEMATICS, MASS, PT, Spectrum, filled, variable
from gammastar.core.sampling import stream
from gammastar.flow import FlowOptions, fit, fit_ensemble, kl_scan
from gammastar.flow.options import Table
from gammastar.spectrum import HistSampler

SEED = 24
WINDOWS = np.arange(0.24, 1.06, 0.06)
OPTIONS = FlowOptions(mass_range=RANGE)
MASSES = (0.3, 0.7, 1.02)
CTAU = np.array([0.1, 1.0, 100.0])


def samplers(train: np.ndarray) -> dict:
    """Return the flow, a histogram, kernels and a Gaussian mixture, all of the same pairs."""
    rng = stream(SEED, "samplers")
    return {
        "flow": fit(*train.T, beam_energy=BEAM, options=OPTIONS, rng=rng),
        "histogram": HistSampler(_histogram(train), beam_energy=BEAM),
        "kernels": KernelSampler(train, beam_energy=BEAM),
        "Gaussian mixture": MixtureSampler(train, beam_energy=BEAM, rng=rng),
    }


def _histogram(train: np.ndarray) -> Spectrum:
    """Fill 30 MeV, and quantiles of pt and energy as fine as leave some tens of pairs in a full cell."""
    edges = [np.arange(0.21, 1.201, 0.03)]
    for column in (1, 2):
        inner = np.quantile(train[:, column], np.linspace(0.0, 1.0, 21))[1:-1]
        low, high = (1e-4, 8.0) if column == 1 else (0.2, BEAM)
        edges.append(np.concatenate([[low], inner, [high]]))
    content, _ = np.histogramdd(train, bins=edges)
    axes = tuple(variable(name, list(e)) for name, e in zip((MASS, PT, ENERGY), edges, strict=True))
    if tuple(axis.name for axis in axes) != tuple(KINEMATICS):
        msg = "the axes are not in the order of the kinematics"
        raise ValueError(msg)
    hist = filled(axes, content, content)
    cov = np.broadcast_to(0.0, (content.size, content.size))
    return Spectrum(hist, cov, "counts", None, np.ones(content.shape, dtype=np.bool_))


def table(n: int = 100_000) -> dict[str, dict[str, float]]:
    """Return mean divergence over the windows, classifier, marginals and unphysical share of each."""
    train = pairs(int(1.05 * n), stream(SEED, "train"))[0][:n]
    test = pairs(int(1.05 * n), stream(SEED, "test"))[0][:n]
    result = {}
    for name, sampler in samplers(train).items():
        scan = kl_scan(
            sampler,
            test,
            masses=WINDOWS,
            rng=stream(SEED, "scan"),
            half_width=0.03,
            n_draws=20,
            max_points=1500,
        )
        low, high = sampler.mass_range
        inside = test[(test[:, 0] > low) & (test[:, 0] < high)][:40_000]
        found = quality(sampler, inside, beam_energy=BEAM, rng=stream(SEED, "quality"))
        excess = (scan.model_mean - scan.data_mean)[scan.tested]
        result[name] = {
            "KL above the data [nat]": float(excess.mean()),
            "error of KL": float(excess.std(ddof=1) / np.sqrt(len(excess))),  # between windows
            "windows inside": scan.fraction_inside,
            "classifier AUC": found.auc,
            "distance of AUC": abs(found.auc - 0.5),
            "error of AUC": found.auc_error,
            "Kolmogorov pt": found.marginals["pt"][0],
            "Kolmogorov E": found.marginals["energy"][0],
            "unphysical": found.unphysical,
        }
    return result


def rows() -> Iterator[dict]:
    """Yield the flow against the baselines, and the Laplace posterior against the ensemble."""
    found = table()
    flow = found.pop("flow")
    source = "pairs that trained nothing, 1e5 for training"
    three = 3.0 * flow["error of AUC"]
    yield _row("classifier AUC of the flow", flow["classifier AUC"], 0.5, three, f"{source}; three errors")
    for name, other in found.items():
        text = f"AUC of {name}, {other['classifier AUC']:.4f}: by how much the flow is farther from ½, in σ"
        yield _row(text, _behind(flow, other, "distance of AUC", "error of AUC"), 0.0, 3.0, "no farther")
        gain = other["KL above the data [nat]"] - flow["KL above the data [nat]"]
        text = f"mean KL, {name} {gain:+.4f} above the flow: by how much the flow is behind, in σ"
        yield _row(
            text, _behind(flow, other, "KL above the data [nat]", "error of KL"), 0.0, 3.0, "not behind"
        )
    yield from _laplace()


def _behind(flow: dict, other: dict, value: str, error: str) -> float:
    """Return by how many standard errors the flow's value is above the other's; 0 if it is not."""
    return max(0.0, (flow[value] - other[value]) / np.hypot(flow[error], other[error]))


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    keys = ("quantity", "ours", "expected", "tolerance", "source")
    return dict(zip(keys, (quantity, float(ours), expected, tolerance, source), strict=True))


def _laplace(n: int = 50_000, members: int = 8) -> Iterator[dict]:
    values = pairs(int(1.05 * n), stream(SEED, "laplace"))[0][:n]
    data = Table(*values.T.copy(), np.ones(n), np.arange(n))
    nominal = fit(*values.T, beam_energy=BEAM, options=OPTIONS, rng=stream(SEED, "nominal"))
    ensemble = fit_ensemble(data, beam_energy=BEAM, options=OPTIONS, members=members, seed=SEED)
    posterior = laplace(nominal, data, rng=stream(SEED, "posterior"), members=4 * members)
    ratios = []
    for mass in MASSES:
        normal = stream(SEED, "normal", f"{mass}").standard_normal((60_000, 2))
        spread = [
            np.std(
                [
                    appendix_b(mass, *m.transform(np.full(len(normal), mass), normal), CTAU)[0]
                    for m in one.members
                ],
                axis=0,
                ddof=1,
            )
            for one in (posterior, ensemble)
        ]
        ratios.append(spread[0] / spread[1])
    median = float(np.median(ratios))
    source = f"{members} replicas; {len(MASSES)} masses, {len(CTAU)} lifetimes"
    quantity = "spread of the acceptance, Laplace posterior over replicas"
    yield _row(quantity, median, 1.0, 0.0, source) | {"measured": True}
