"""A published likelihood of ATLAS with sixty nuisances: toys in step against those of pyhf, and asymptotics.

HEPData 10.17182/hepdata.89408.v3/r2, the search for bottom squarks (arXiv:1908.03122): the one such
likelihood that is at hand; `gammastar scan` takes the others that HEPData holds in the same way.
"""

from __future__ import annotations

import contextlib
import io
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
from gammastar.infer.binned.toys import binned_cls
from gammastar.infer.scanning import CODES, sensitive_events

REGION, PATCH = "RegionA", "sbottom_1300_205_60"
TOYS, PEER_TOYS = 200, 40
PEER = f"toys of pyhf 0.7.6 (q̃μ, SLSQP), {PEER_TOYS}"


def archive() -> Path | None:
    """Return the archive behind the environment variable of test data, None where there is none."""
    folder = os.environ.get(TESTDATA)
    places = [] if folder is None else [Path(folder) / ARCHIVE, Path(folder) / "likelihoods" / ARCHIVE]
    return next((place for place in places if place.is_file()), None)


def atlas_rows(quick: bool) -> Iterator[dict]:
    label, found = f"{REGION}, {PATCH}", archive()
    if quick or found is None:
        why = "quick" if quick else f"{TESTDATA} holds no {ARCHIVE}"
        for what in ("CLs+b by toys", "CLb by toys"):
            yield row(f"{what}, {label}, deviation [σ]", np.nan, 0.0, 3.0, PEER) | {"skipped": why}
        return
    spec = read_likelihood(found, region=REGION).patched(PATCH)
    started = time.process_time()
    ours, _ = binned_cls(
        spec, rng=np.random.default_rng(5), convention=Convention("qtilde", "randomised"), n_toys=TOYS
    )
    own = (time.process_time() - started) / TOYS
    started = time.process_time()
    clsb, clb, asymptotic = _peer(spec)
    spent = (time.process_time() - started) / PEER_TOYS
    for what, value, other in (("CLs+b", ours.clsb, clsb), ("CLb", ours.clb, clb)):
        error = np.sqrt(value * (1.0 - value) * (1.0 / TOYS + 1.0 / PEER_TOYS))
        yield row(f"{what} by toys, {label}, deviation [σ]", (value - other) / error, 0.0, 3.0, PEER)
    events = min(sensitive_events(spec))
    text = f"CLs, {label}: asymptotic one over that of {TOYS} toys ({events:.3g} events)"
    yield row(text, asymptotic / ours.cls, 1.0, np.nan, "q̃μ") | {"measured": True}
    yield row(f"toys per second over pyhf's, {label}", spent / own, 10.0, np.nan, PEER) | {"measured": True}


def _peer(spec: dict[str, Any]) -> tuple[float, float, float]:
    """Return CLs+b and CLb of pyhf's toys, and its asymptotic CLs."""
    space = pyhf.Workspace(spec)
    model = space.model(modifier_settings=CODES)
    data = space.data(model)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    np.random.seed(7)  # noqa: NPY002 - pyhf draws from the global generator
    calculator = pyhf.infer.calculators.ToyCalculator(
        data, model, test_stat="qtilde", ntoys=PEER_TOYS, track_progress=False
    )
    with contextlib.redirect_stderr(io.StringIO()):
        q, with_signal, without = calculator.teststatistic(1.0), *calculator.distributions(1.0)
    asymptotic = float(pyhf.infer.hypotest(1.0, data, model, test_stat="qtilde"))
    return float(with_signal.pvalue(q)), float(without.pvalue(q)), asymptotic
