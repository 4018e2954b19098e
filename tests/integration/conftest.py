"""What several integration tests share."""

import pytest

SCHEMA = """
tree = "events"
layout = "jagged"
lepton = "mu"
charge = "Muon_charge"
event = "event"
weight = "weight"
prescale = "prescale"
kinematics = { px = "Muon_px", py = "Muon_py", pz = "Muon_pz" }
lepton_columns = { dx = "Muon_dx", dy = "Muon_dy" }
truth = { mass = "gen_mll", pt = "gen_qT", energy = "gen_E", process = "gen_process" }
"""


@pytest.fixture(scope="session")
def mock_schema():
    """Return the text of a schema of MOCK files: muons with offsets, truth of the virtual photon."""
    return SCHEMA
