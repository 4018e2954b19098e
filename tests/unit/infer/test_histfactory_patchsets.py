"""Patch sets on disk, through pyhf's own commands."""

import json

import forks
import numpy as np
import pyhf
import pytest

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.infer import patchset, workspace
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.patchsets import patch_names
from gammastar.infer.histfactory.workspaces import sample

MASS, COUPLING = np.array([0.1, 0.3, 0.3]), np.array([1e-6, 1e-6, 2.5e-7])
SIGNAL = np.array([2.3, 6.0, 0.0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    background = workspace("mumu", 30.0, 0.1, [30], pot_calibration_sigma=0.05, pot_search_sigma=0.18)
    patches = patchset(background, MASS, COUPLING, 10 * SIGNAL, signal_mc_sigma=[0.02, 0.0, 0.0])
    for name, content in (("workspace", background), ("patchset", patches)):
        (folder / f"{name}.json").write_text(json.dumps(content, allow_nan=False))
    return folder


def _pyhf(folder, *arguments):
    # a proxy that does not answer: nothing may be looked up on the network
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "HTTP", "HTTPS")}
    code = "from pyhf.cli import cli; cli()"
    return forks.server.run("-c", code, *arguments, cwd=folder, env=nowhere, check=True).stdout


def test_names():
    assert patch_names(MASS, COUPLING) == [
        "m0p100_log10eps_m6p00",
        "m0p300_log10eps_m6p00",
        "m0p300_log10eps_m6p60",
    ]
    close = patch_names(np.array([0.1, 0.1]), np.array([1e-6, 1.001e-6]))
    assert len(set(close)) == 2
    assert patch_names(np.array([0.5]), np.array([10.0]), "charge") == ["m0p500_log10charge_1p00"]
    with pytest.raises(PhysicsError, match="each point once"):
        patch_names(np.array([0.1, 0.1]), np.array([1e-6, 1e-6]))


def test_two_nuisances_of_one_name_are_refused():
    """The patch would put a second normsys of that name on the signal, or hide the first one."""
    background = workspace("mumu", 30.0, 0.1, [30], pot_search_sigma=0.18)
    for name in ("pot_search", "POT search"):
        with pytest.raises(PhysicsError, match=r"called 'pot_search'|differ in spelling"):
            patchset(background, MASS, COUPLING, SIGNAL, signal_mc_sigma={name: 0.1})
    with pytest.raises(PhysicsError, match=r"sample 'b'.*called 'pot'"):
        sample("b", [1.0], log_normal("pot", 0.2), log_normal("pot", 0.1))


def test_inspect_and_verify(files):
    assert "mumu" in _pyhf(files, "inspect", "workspace.json")
    assert "All good" in _pyhf(files, "patchset", "verify", "workspace.json", "patchset.json")


def test_cls_of_an_extracted_patch(files):
    name = "m0p300_log10eps_m6p00"
    _pyhf(files, "patchset", "extract", "patchset.json", "--name", name, "--output-file", "patch.json")
    result = json.loads(_pyhf(files, "cls", "workspace.json", "-p", "patch.json"))
    spec = json.loads((files / "workspace.json").read_text())
    patches = pyhf.PatchSet(json.loads((files / "patchset.json").read_text()))
    ours = pyhf.Workspace(patches.apply(spec, name))
    model = ours.model(modifier_settings={"normsys": {"interpcode": "code4"}})
    direct = float(pyhf.infer.hypotest(1.0, ours.data(model), model, test_stat="qtilde"))
    assert result["CLs_obs"] == pytest.approx(direct, rel=1e-4)
    assert result["CLs_obs"] < 0.1


def test_patches_are_the_grid():
    background = workspace("ee", [0.1, 0.2])
    grid = pyhf.PatchSet(patchset(background, MASS, COUPLING, np.outer(SIGNAL, [0.75, 0.25])))
    applied = grid.apply(background, "m0p300_log10eps_m6p00")
    assert applied["channels"][0]["samples"][0]["data"] == pytest.approx([4.5, 1.5])
    assert grid.labels == ["mass_GeV", "eps"]
    assert list(grid.patches[2].values) == [0.3, 2.5e-7]
    with pytest.raises(pyhf.exceptions.PatchSetVerificationError):
        grid.verify(workspace("ee", [0.1, 0.3]))


def test_signal_statistics_nuisance():
    background = workspace("ee", 0.1)
    grid = pyhf.PatchSet(patchset(background, MASS, COUPLING, SIGNAL, signal_mc_sigma=0.05))
    model = pyhf.Workspace(grid.apply(background, grid.patches[0].name)).model()
    assert "signal_mc" in model.config.par_order


@pytest.mark.parametrize(
    ("mass", "coupling", "signal", "error"),
    [
        ([0.1, 0.2], [1e-6], [1.0, 1.0], PhysicsError),
        ([], [], [], PhysicsError),
        ([0.1], [-1e-6], [1.0], PhysicsError),
        ([np.nan], [1e-6], [1.0], PhysicsError),
        ([0.1], [1e-6], [-1.0], NegativeYieldError),
        ([0.1], [1e-6], [np.nan], PhysicsError),
        ([0.1], [1e-6], [1.0, 2.0], PhysicsError),
    ],
)
def test_refused(mass, coupling, signal, error):
    with pytest.raises(error):
        patchset(workspace("ee", 0.1), mass, coupling, signal)
