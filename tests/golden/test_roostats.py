"""CLs of toys against RooStats, in a process of its own; skipped where no interpreter has ROOT.

The interpreter is this one, or the one that GAMMASTAR_ROOT_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gammastar.infer import Convention, binned_channel, exact_cls
from gammastar.infer.toys import statistics, toy_model

ORACLE = Path(__file__).with_name("roostats_oracle.py")
PYTHON = os.environ.get("GAMMASTAR_ROOT_PYTHON") or (
    sys.executable if importlib.util.find_spec("ROOT") else ""
)


def channels():
    shared = {"pot": 0.1823215568, "efficiency": 0.03}
    return [
        binned_channel(
            name,
            signal=signal,
            background=background,
            observed=observed,
            signal_sigma=shared,
            background_sigma={f"b_{name}": sigma},
        )
        for name, signal, background, observed, sigma in (
            ("one", [0.5, 1.5, 0.5], [1.0, 0.6, 0.4], [1, 1, 0], 0.3),
            ("two", [0.3, 0.9, 0.3], [0.5, 0.5, 1.0], [0, 1, 1], 0.5),
        )
    ]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="no interpreter with ROOT (extra `oracle`, GAMMASTAR_ROOT_PYTHON)")
@pytest.mark.parametrize("statistic", ["ratio", "qtilde"])
@pytest.mark.parametrize("auxiliaries", ["randomised", "fixed"])
def test_cls_of_roostats(statistic, auxiliaries):
    done = subprocess.run(
        [PYTHON, str(ORACLE), "3000", statistic, auxiliaries],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    peer = json.loads(done.stdout.splitlines()[-1])
    convention = Convention(statistic, auxiliaries)
    ours = exact_cls(channels(), rng=np.random.default_rng(1), convention=convention, n_toys=20_000)
    assert ours.q == pytest.approx(peer["q"], abs=2e-3)
    assert abs(ours.cls - peer["cls"]) < 3 * np.hypot(ours.error, peer["error"])


def test_the_oracle_describes_the_same_model():
    """The constants of the oracle's file, read as text, are those of the channels here."""
    text = ORACLE.read_text()
    for numbers in ("((0.5, 1.5, 0.5), (0.3, 0.9, 0.3))", "((1, 1, 0), (0, 1, 1))"):
        assert numbers in text
    model = toy_model(channels())
    assert len(model.nuisances) == 4
    assert np.isfinite(statistics(model, model.data(), 1.0, "ratio")).all()
