"""Momenta from p, q/p, slopes and angles are those of px, py, pz, by another way of calculating them."""

import numpy as np
import pytest
import uproot
import vector
from builders import jagged_schema

from gammastar import read
from gammastar.core.errors import SteeringError

N = 50


@pytest.fixture(scope="module")
def forward():
    rng = np.random.default_rng(4)
    return rng.normal(0, 1, (N, 2)), rng.normal(0, 1, (N, 2)), rng.uniform(3, 80, (N, 2))


@pytest.mark.parametrize(
    "keys",
    [
        ("p", "theta", "phi"),
        ("pt", "theta", "phi"),
        ("p", "eta", "phi"),
        ("q_over_p", "tx", "ty"),
        ("p", "tx", "ty"),
        ("q_over_p", "theta", "phi"),
    ],
)
def test_every_closed_formula_gives_the_momentum(tmp_path, forward, keys):
    px, py, pz = forward
    p = vector.array({"px": px, "py": py, "pz": pz})
    sign = np.tile([1.0, -1.0], (N, 1))
    stored = {"p": 1e3 * p.mag, "q_over_p": sign / p.mag / 1e3, "pt": 1e3 * p.pt, "eta": p.eta}
    stored |= {"theta": np.arctan2(np.hypot(px, py), pz), "phi": p.phi, "tx": px / pz, "ty": py / pz}
    rows = {f"{key}{leg + 1}": stored[key][:, leg] for key in keys for leg in (0, 1)}
    rows |= {"q1": np.ones(N), "q2": -np.ones(N)}
    with uproot.recreate(tmp_path / "t.root") as file:
        file["events"] = rows
    names = {key: [f"{key}1", f"{key}2"] for key in keys}
    schema = read.load_schema(jagged_schema(layout="pair", unit=1e-3, charge=["q1", "q2"], kinematics=names))
    (events,) = read.open_events(tmp_path / "t.root", schema)
    for name, wanted in zip(("px", "py", "pz"), forward, strict=True):  # 1e-12: a few roundings of angles
        np.testing.assert_allclose(events.lepton[name].to_numpy(), wanted, rtol=1e-11, atol=1e-11)
    assert not [str(one) for one in read.examine(tmp_path / "t.root", schema) if one.level == "error"]


@pytest.mark.parametrize("keys", ["p q_over_p tx ty", "p phi", "px py pz p", "pt tx ty"])
def test_other_keys_are_refused(keys):
    with pytest.raises(SteeringError, match=r"schema.kinematics has the keys .*slopes tx, ty"):
        read.load_schema(jagged_schema(kinematics={key: key for key in keys.split()}))
