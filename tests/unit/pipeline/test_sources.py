"""Errors of the simulation: one list of sources for the unfolding and the joint likelihood."""

from types import SimpleNamespace

import numpy as np
from hist.axis import Regular

from gammastar.config import Systematics
from gammastar.core.records import Response
from gammastar.pipeline.stages import joint, unfold
from gammastar.unfold import Variation, systematics

AXES = (Regular(2, 0, 1, name="mass"),)


def test_a_new_source_is_in_the_unfolding_and_in_the_joint_likelihood(monkeypatch):
    plain = Response(
        0.4 * np.eye(2), np.full(2, 0.4), np.zeros(2), AXES, AXES, np.ones(2), np.zeros((0, 2, 2))
    )
    built_in = systematics.response_variations

    def with_another(matched, response, **asked):
        return [*built_in(matched, response, **asked), Variation("magnet current", None, response)]

    monkeypatch.setattr(systematics, "response_variations", with_another)
    asked = Systematics(efficiency=0.05)
    steering = {"systematics": asked, "spectrum": None, "select": None}
    steering = SimpleNamespace(**steering, unfold=SimpleNamespace(method="iterative"))
    ctx = SimpleNamespace(steering=steering, seed=1, own_sources=tuple)
    truth = SimpleNamespace(parts=())
    unfolded = {one.name for one in unfold.varied_responses(ctx, truth, plain)}
    fitted = set(joint._varied(ctx, SimpleNamespace(truth=truth), plain))
    assert unfolded == {"efficiency", "magnet current"}
    assert fitted == {name.replace(" ", "_") for name in unfolded}
