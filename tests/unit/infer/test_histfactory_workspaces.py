"""HistFactory files: valid, inspectable, refused before a fit where they would break it."""

import numpy as np
import pyhf
import pytest

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.infer import combine, workspace
from gammastar.infer.histfactory.workspaces import pot_names


def test_background_only():
    spec = workspace("mumu", 0.5, 0.3, pot_calibration_sigma=0.1, pot_search_sigma=0.18)
    model = pyhf.Workspace(spec).model()
    assert model.config.poi_name == "mu"
    assert set(model.config.modifiers) >= {
        ("background_norm_mumu", "normsys"),
        ("pot_calibration", "normsys"),
        ("pot_search", "normsys"),
    }
    assert spec["observations"][0]["data"] == [0.5]
    expected = model.expected_actualdata(model.config.suggested_init())
    assert expected == pytest.approx([0.5])


def test_log_normal_normalisation():
    model = pyhf.Workspace(workspace("ee", 1.0, np.log(4.0))).model()
    parameters = np.array(model.config.suggested_init())
    at = model.config.par_map["background_norm_ee"]["slice"]
    for theta in (-2.0, -1.0, 1.0, 2.0):
        parameters[at] = theta
        assert model.expected_actualdata(parameters) == pytest.approx([4.0**theta])


def test_no_background_is_said():
    spec = workspace("mumu", [0.0, 0.0], 0.3, [0, 0])
    sample = spec["channels"][0]["samples"][1]
    assert sample["name"] == "background_zero_assumed"
    assert sum(sample["data"]) == pytest.approx(1e-6)
    model = pyhf.Workspace(spec).model()
    assert np.isfinite(model.logpdf(model.config.suggested_init(), [0.0, 0.0, *model.config.auxdata])[0])


def test_channels_share_protons_on_target():
    specs = [pyhf.Workspace(workspace(name, 0.1, 0.5, [0], pot_search_sigma=0.18)) for name in ("ee", "mumu")]
    for spec, channel in zip(specs, ("ee", "mumu"), strict=True):
        assert spec.channels == [channel]
    model = pyhf.Workspace.combine(*specs, join="left outer").model()
    names = set(model.config.par_order)
    assert names == {"mu", "pot_search", "background_norm_ee", "background_norm_mumu"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-0.5,), NegativeYieldError),
        (([1.0, -0.1],), NegativeYieldError),
        ((np.nan,), PhysicsError),
        (([],), PhysicsError),
        (([[1.0]],), PhysicsError),
        ((1.0, -0.1), PhysicsError),
        ((1.0, np.nan), PhysicsError),
        ((1.0, 0.1, [1, 2]), PhysicsError),
        ((1.0, 0.1, [0.5]), PhysicsError),
        ((1.0, 0.1, [-1]), PhysicsError),
        ((1.0, 0.1, "open"), PhysicsError),
    ],
)
def test_refused(arguments, error):
    with pytest.raises(error):
        workspace("mumu", *arguments)


def test_no_bound_of_the_strength_is_refused():
    with pytest.raises(PhysicsError, match="poi_maximum"):
        workspace("mumu", 1.0, poi_maximum=0.0)


def test_searches_of_two_detectors_share_the_calibration_and_nothing_else():
    """Two dumps have taken protons of their own: combined, only those of the calibration are one nuisance."""
    spaces = []
    for detector in ("NA62 dump", "SHiP"):
        calibration, own = pot_names(detector)
        assert calibration == "pot_calibration"
        one = workspace(detector[:4], 0.5, pot_calibration_sigma=0.1, pot_search_sigma={own: 0.2})
        one["channels"][0]["samples"][0]["data"] = [1.0]
        spaces.append(one)
    names = pyhf.Workspace(combine(spaces)).model().config.par_order
    assert sorted(n for n in names if n.startswith("pot")) == [
        "pot_calibration",
        "pot_search_NA62_dump",
        "pot_search_SHiP",
    ]
