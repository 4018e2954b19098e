"""What several integration tests share."""

import functools
import shutil
from types import SimpleNamespace

import pytest
from builders import first_entries

from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.mock import load_card, samples, simulate_events
from gammastar.report import style as drawing
from gammastar.store.events import write_tree

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


@pytest.fixture(scope="module", autouse=True)
def small_pilots():
    """Fix the normalisation of MOCK samples with fewer events: no test here asks for its precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "PILOT", 40_000)
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Make figures without drawing them, for runs of whose figures others are looked at."""
    monkeypatch.setattr(drawing, "drawn", lambda *_, **__: b"")


@pytest.fixture(scope="module")
def untested_flow():
    """Leave out the test of a flow against its pairs, for runs of which nobody reads what it finds."""
    from gammastar import flow

    def left_out(*_, **__):
        message = "left out"
        raise PhysicsError(message)  # as with too few pairs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "density_test", left_out)
        yield


@pytest.fixture(scope="session")
def mock_schema():
    """Return the text of a schema of MOCK files: muons with offsets, truth of the virtual photon."""
    return SCHEMA


@pytest.fixture(scope="session")
def mock_file(tmp_path_factory):
    """Return a function that simulates MOCK events of a shipped card once.

    Of card, kind, number and seed it returns the file (`path`) and what is known of it (`meta`).
    """
    folder = tmp_path_factory.mktemp("mock")

    @functools.cache
    def made(card, kind, n, seed):
        sample = simulate_events(load_card(data_path(f"cards/{card}.toml")), n, kind=kind, seed=seed)
        path = folder / f"{card}_{kind}_{n}_{seed}.root"
        write_tree(path, {"events": sample.branches, "meta": sample.meta_branches()})
        return SimpleNamespace(path=path, meta=sample.meta)

    return made


@pytest.fixture(scope="session")
def first_mock(tmp_path_factory):
    """Return a folder with the first entries of the shipped MOCK files, for what is refused or looked at."""
    folder = tmp_path_factory.mktemp("first")
    for name in ("na60_data.root", "na60_mc.root"):
        first_entries(folder / name, name, 2500)
    return folder


@pytest.fixture(scope="session")
def with_charm(mock_file):
    """Return a function that puts MOCK data, response and charm into a folder; it returns what is known."""

    def copied(folder):
        asked = (("data", 6000, 1), ("mc", 12_000, 2), ("charm", 4000, 3))
        found = {kind: mock_file("na60_full", kind, n, seed) for kind, n, seed in asked}
        for kind, one in found.items():
            shutil.copy(one.path, folder / f"{kind}.root")
        return {kind: one.meta for kind, one in found.items()}

    return copied
