"""Keys of [subtract] and [unfold] that contradict each other."""

import pytest

from gammastar import config
from gammastar.core.errors import SteeringError


@pytest.mark.parametrize(
    ("section", "keys", "named"),
    [
        ("subtract", {"method": "B1", "r_factor": 1.1}, "r_factor"),
        ("subtract", {"method": "B4", "r_factor": 1.1}, "r_factor"),
        ("subtract", {"r_factor": "mixed", "r_factor_sigma": 0.1}, "r_factor_sigma"),
        ("subtract", {"r_factor": "simulation", "r_mult": 1.1}, "r_mult"),
        ("subtract", {"r_coarse": {"mass": [0.2, 1.0]}}, "r_coarse"),
        ("subtract", {"mixed_pairs": 5000}, "mixed_pairs"),
        ("subtract", {"method": "B4", "weights": "signed"}, "weights"),
        ("subtract", {"method": "B4", "bootstrap": 100}, "bootstrap"),
        ("subtract", {"corrections": [{"name": "x", "files": ["a"], "sigma": 1}]}, "pairs and fraction"),
        ("subtract", {"corrections": [{"name": "x", "kind": "eta to mu mu", "pairs": 3}]}, "n_dalitz"),
        ("unfold", {"method": "tikhonov", "n_iterations": 4}, "n_iterations"),
        ("unfold", {"tau": 0.1}, "tau"),
        ("unfold", {"preset": "line shape", "method": "tikhonov"}, "method"),
        ("unfold", {"method": "omnifold", "n_replicas": 0}, "n_replicas"),
        ("unfold", {"preset": "smeared mass, as the paper", "mass": [0.2, 1.0]}, "mass"),
        ("unfold", {"method": "least squares", "scan": [1]}, "scan"),
        ("unfold", {"stop": 0.1}, "stop"),
        ("unfold", {"debias": True, "n_replicas": 1}, "debias"),
        ("unfold", {"debias": True, "method": "tikhonov"}, "debias"),
        ("unfold", {"systematics": {"polarization": 0.1}}, "polarization"),
    ],
)
def test_contradictory_keys_are_refused(section, keys, named):
    content = {
        "analysis": {"name": "x"},
        "read": {"schema": "s.toml"},
        "select": {"mass": [0.2, 1.1]},
        "subtract": {},
        section: keys,
    }
    with pytest.raises(SteeringError, match=named):
        config.parse(content)
