"""A published likelihood of ATLAS with sixty nuisances: our statistic and pyhf's of the same data.

HEPData 10.17182/hepdata.89408.v3/r2, the search for bottom squarks (arXiv:1908.03122);
`infer_published` takes more of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyhf
from validation.infer_peers import ARCHIVE, TESTDATA
from validation.infer_toys import row

from gammastar.infer import Convention, read_likelihood
from gammastar.infer.binned.model import BinnedModel, binned_model
from gammastar.infer.binned.toys import BinnedToys, binned_cls, statistic_of
from gammastar.infer.scanning import expected_events

REGION, PATCH = "RegionA", "sbottom_1300_205_60"
TOYS, PEER_TOYS = 200, 40
CONVENTION = Convention("qtilde", "randomised")
MEASURED = {"measured": True}
PEER = "pyhf 0.7.6, SLSQP, on the same data"


def archive() -> Path | None:
    """Return the archive behind the environment variable of test data, None where there is none."""
    folder = os.environ.get(TESTDATA)
    places = [] if folder is None else [Path(folder) / ARCHIVE, Path(folder) / "likelihoods" / ARCHIVE]
    return next((place for place in places if place.is_file()), None)


def atlas_rows(quick: bool) -> Iterator[dict]:
    label, found = f"{REGION}, {PATCH}", archive()
    if quick or found is None:
        why = "quick" if quick else f"{TESTDATA} holds no {ARCHIVE}"
        yield row(f"q̃ of the data, {label}", np.nan, np.nan, 1e-4, PEER) | {"skipped": why}
        return
    spec = read_likelihood(found, region=REGION).patched(PATCH)
    yield from _same_data(spec, label)
    started = time.process_time()
    ours, _ = binned_cls(spec, rng=np.random.default_rng(5), convention=CONVENTION, n_toys=TOYS)
    own = (time.process_time() - started) / TOYS
    asymptotic, spent = _asymptotic(spec)
    events = expected_events(spec)
    text = f"CLs, {label}: asymptotic one over that of {TOYS} toys ({events:.3g} events)"
    yield (
        row(text, asymptotic / ours.cls, 1.0, np.nan, f"q̃μ; CLs {ours.cls:.3g} ± {ours.error:.2g}") | MEASURED
    )
    yield row(f"q̃ per second over pyhf's, {label}", spent / own, 1.0, np.nan, PEER) | MEASURED


def _asymptotic(spec: dict[str, Any]) -> tuple[float, float]:
    """Return pyhf's asymptotic CLs, and the time of one of its q̃ [s]."""
    space = pyhf.Workspace(spec)
    model = space.model()
    data = space.data(model)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(maxiter=100_000))
    started = time.process_time()
    _theirs(model, data)
    spent = time.process_time() - started
    return float(pyhf.infer.hypotest(1.0, data, model, test_stat="qtilde")), spent


def _theirs(model: Any, data: Any) -> float:
    config = model.config
    given = config.suggested_init(), config.suggested_bounds(), config.suggested_fixed()
    return float(pyhf.infer.test_statistics.qmu_tilde(1.0, data, model, *given))


def _same_data(spec: dict[str, Any], label: str) -> Iterator[dict]:
    """Compare the statistic on the data and on toys that pyhf drew."""
    space = pyhf.Workspace(spec)
    peer, own = space.model(), binned_model(spec)
    data = space.data(peer)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(maxiter=100_000))
    seen = statistic_of(own, BinnedToys(own.counts[None, :], own.aux), 1.0, CONVENTION)[0]
    yield row(f"q̃ of the data, {label}", seen, _theirs(peer, data), 1e-4, "pyhf 0.7.6, SLSQP")
    for strength in (1.0, 0.0):
        at = pyhf.infer.mle.fixed_poi_fit(strength, data, peer)
        np.random.seed(7)  # noqa: NPY002 - pyhf draws from the global generator
        toys = np.asarray(peer.make_pdf(pyhf.tensorlib.astensor(at)).sample((PEER_TOYS,)))
        ours = statistic_of(own, as_ours(spec, own, peer, toys), 1.0, CONVENTION)
        theirs = np.array([_theirs(peer, toy) for toy in toys])
        name = f"q̃ of {PEER_TOYS} toys of pyhf with {strength:g} × the signal, {label}"
        source = f"{PEER}; largest difference {np.abs(ours - theirs).max():.2g}"
        yield row(f"{name}: mean", ours.mean(), theirs.mean(), 0.05, source)
        beyond = float((ours >= seen).mean()), float((theirs >= seen).mean())
        yield row(f"{name}: share beyond that of the data", *beyond, 2.0 / PEER_TOYS, source)


def as_ours(spec: dict[str, Any], own: BinnedModel, peer: Any, toys: np.ndarray) -> BinnedToys:
    """Return pyhf's data in the order of our bins and parameters."""
    config, names, aux = peer.config, list(own.names), np.repeat(own.aux, len(toys), axis=0)
    at = config.nmaindata
    for name in config.auxdata_order:
        for j in range(config.param_set(name).n_parameters):
            aux[:, names.index(name if name in names else f"{name}[{j}]")] = toys[:, at]
            at += 1
    places = [toys[:, config.channel_slices[channel["name"]]] for channel in spec["channels"]]
    return BinnedToys(np.concatenate(places, axis=1), aux)
