"""A datacard of ours in the hands of rabbit, a fitter of CMS that reads cards of Combine: the same fit.

GAMMASTAR_RABBIT_PYTHON names an interpreter with rabbit-fit, tensorflow-cpu, uproot, tqdm, tf_keras, plotly.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyhf
import pytest

from gammastar.infer.histfactory.cards import to_card
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.store.events import write_histograms

PYTHON = os.environ.get("GAMMASTAR_RABBIT_PYTHON", "")
FITTED = """
import json, sys
import numpy as np
from rabbit import io_tools
found = io_tools.get_fitresult(sys.argv[1])["parms"].get()
rows = zip(found.axes[0], found.values().tolist(), np.sqrt(found.variances()).tolist())
print(json.dumps({name: (value, error) for name, value, error in rows}))
"""


def by_rabbit(folder):
    """Return value and error of every parameter of card.txt in a folder."""
    quiet = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    tools = Path(PYTHON).parent

    def run(*command):
        kept = {"capture_output": True, "text": True, "env": quiet, "cwd": folder, "timeout": 300}
        return subprocess.run(command, check=True, **kept).stdout

    run(tools / "text2hdf5", "card.txt")
    options = ["-t", "0", "--noBinByBinStat", "--unblind", "--allowNegativePOI"]
    run(tools / "rabbit_fit", "card.hdf5", "-o", "out", *options)
    return json.loads(run(PYTHON, "-c", FITTED, "out/fitresults.hdf5").splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="no interpreter with rabbit (GAMMASTAR_RABBIT_PYTHON)")
@pytest.mark.parametrize("observed", [[45, 47, 18], [41, 20, 18]])
def test_rabbit_fits_what_pyhf_fits(tmp_path, observed):
    both = log_normal("pot", 0.15)  # no counting channel: rabbit 0.2.5 takes its data as yields
    channels = {
        "mass": [
            sample("dark_photon", [3.0, 9.0, 2.0], both, log_normal("efficiency", 0.05), signal=True),
            sample("continuum", [40.0, 25.0, 14.0], log_normal("ratio", 0.1), both),
            sample("charm", [5.0, 4.0, 3.0], log_normal("charm", 0.3)),
        ],
        "dump": [
            sample("dark_photon", [1.5, 0.5], both, signal=True),
            sample("muons", [2.0, 3.0], log_normal("halo", 0.4)),
        ],
    }
    spec = assemble(channels, {"mass": observed, "dump": [4, 3]})
    card = to_card(spec, root="card.root")
    (tmp_path / "card.txt").write_text(card.text)
    write_histograms(tmp_path / "card.root", card.histograms)
    peer = by_rabbit(tmp_path)
    workspace = pyhf.Workspace(spec)
    model = workspace.model(modifier_settings={"normsys": {"interpcode": "code1"}})
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer())
    free = {"par_bounds": [(-20.0, 20.0)] * model.config.npars}
    found, _ = pyhf.infer.mle.fit(
        workspace.data(model), model, return_uncertainties=True, return_fitted_val=True, **free
    )
    ours = dict(zip(model.config.par_names, np.asarray(found), strict=True))
    ours["dark_photon"] = ours.pop("mu")
    assert set(peer) == set(ours)
    for name, (value, error) in ours.items():
        assert peer[name][0] == pytest.approx(value, abs=5e-3 * error), name  # as near as Minuit comes
        assert peer[name][1] == pytest.approx(error, rel=5e-3), name
