"""Builders of the systematic effects: sums of squares, shared nuisances, empty and negative bins, masking."""

from __future__ import annotations

import numpy as np
import pyhf
import pytest
from effects import like_sign_channel, paired_shape, poisson_counts

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.workspaces import assemble, sample

NOMINAL = np.array([20.0, 40.0, 10.0])


def test_negative_bins_are_named():
    with pytest.raises(NegativeYieldError, match="bin 1"):
        sample("background", [1.0, -2.0])


def everything(observed="masked"):
    control, counts, combinatorial = like_sign_channel(
        "dimuons", [3, 0, 1], r_factor=1.05, modifiers=log_normal("r_factor", 0.05)
    )
    nominal, shapes = NOMINAL, paired_shape("flow", NOMINAL, 1.02 * NOMINAL, 0.97 * NOMINAL)
    shared = [*log_normal("pot_calibration", 0.05), *log_normal("pot_search", 0.18)]
    extrapolated = log_normal("extrapolation", 0.5)
    signal = [
        sample("signal_measured", 0.04 * nominal, shared, signal=True),
        sample("signal_extrapolated", 0.06 * nominal, shared, extrapolated, signal=True),
    ]
    charm = sample(
        "charm",
        NOMINAL,
        log_normal("charm", 0.2),
        log_normal("efficiency", 0.029),
        poisson_counts("mc_dimuons", NOMINAL / 4),
        paired_shape("resolution", NOMINAL, [21.0, 38.0, 11.0], [19.0, 42.0, 9.2]),
    )
    drell_yan = sample("drell_yan", nominal, shapes)
    return assemble(
        {"dimuons": [*signal, charm, drell_yan, combinatorial], control["name"]: control["samples"]},
        {"dimuons": observed, control["name"]: counts},
    )


@pytest.mark.long
def test_every_effect_in_one_model_that_fits():
    space = pyhf.Workspace(everything())
    model = space.model()
    assert {
        "pot_search",
        "pot_calibration",
        "r_factor",
        "charm",
        "extrapolation",
        "like_sign_dimuons",
    } <= set(model.config.parameters)
    data = space.data(model)
    value = float(pyhf.infer.hypotest(1.0, data, model))
    assert 0 < value < 1
    fitted = pyhf.infer.mle.fixed_poi_fit(0.0, data, model)
    assert np.all(np.isfinite(np.asarray(fitted, float)))


def test_masked_channels_hold_the_background():
    masked = everything()["observations"]
    opened = everything([45, 80, 30])["observations"]
    assert masked[0]["data"] != opened[0]["data"]
    assert opened[0]["data"] == [45.0, 80.0, 30.0]
    assert masked[1]["data"] == [3.0, 0.0, 1.0]


def test_names_of_nuisances_and_channels():
    one = sample("signal", [1.0], log_normal("pot", 0.1), signal=True)
    other = sample("background", [1.0], log_normal("Pot", 0.1))
    with pytest.raises(PhysicsError, match="spelling"):
        assemble({"c": [one, other]}, {})
    with pytest.raises(PhysicsError, match="unknown channels"):
        assemble({"c": [one]}, {"d": [1]})
