"""`[select] keep_pairs = false`: the same histograms and spectrum straight from the events."""

import numpy as np
import pytest
from builders import ROOT

from gammastar import config
from gammastar.core.errors import SteeringError
from gammastar.facility import open_executor
from gammastar.pipeline.run import run
from gammastar.store.pairs import read_chunk

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"
CUTS = "lepton = { pt = [0.1, 10.0] }\npair = { pt = [0.0, 3.0] }\n"


def result(folder, keep, more="", executor=None):
    """Run reading, selection and subtraction; return the folder and the arrays of two stages."""
    text = SMALL.read_text().partition("[unfold]")[0]
    text = text.replace("schema.toml", str(SMALL.parent / "schema.toml")).replace(
        "schema = ", "step = 7_000\nschema = "
    )
    text = text.replace("[select]\n", f"[select]\nkeep_pairs = {keep}\n{more}") + 'weights = "signed"\n'
    path = folder / "steering.toml"
    path.write_text(text)
    found = run(path, output=folder / "run", executor=executor)
    return found, *(dict(np.load(found / "stages" / f"{stage}.npz")) for stage in ("select", "subtract"))


@pytest.mark.parametrize("more", ["", CUTS], ids=["flat", "cuts"])
def test_histograms_cutflow_and_spectrum_are_those_of_the_pairs(tmp_path, more):
    held = result(tmp_path, "true", more)
    assert (held[0] / "pairs").is_dir()
    lean = result(tmp_path, "false", more)  # into the same folder: nothing of the other run is left in it
    assert not (lean[0] / "pairs").exists()
    for key in ("cutflow_name", "cutflow_n", "cutflow_os", "cutflow_pp", "cutflow_mm"):
        np.testing.assert_array_equal(lean[1][key], held[1][key], err_msg=key)
    np.testing.assert_allclose(lean[1]["cutflow_weight"], held[1]["cutflow_weight"], rtol=1e-9)
    for key in ("values", "cov", "like_sign", "shifts"):
        np.testing.assert_allclose(lean[2][key], held[2][key], rtol=1e-9, atol=1e-9, err_msg=key)
    assert len(held[1]["mass"])
    assert not len(lean[1]["mass"])


@pytest.mark.parametrize("more", ["", CUTS], ids=["flat", "cuts"])
def test_workers_fill_the_same_histograms(tmp_path, more):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = result(tmp_path / "here", "false", more)
    with open_executor() as executor:
        there = result(tmp_path / "there", "false", more, executor=executor)
    for name in ("hists", "cutflow_n", "cutflow_weight", "cutflow_os"):
        np.testing.assert_array_equal(there[1][name], here[1][name], err_msg=name)  # to the last bit
    chunks = sorted((there[0] / "chunks" / "pairs").glob("*.parquet"))
    assert len(chunks) > 1
    sums = [read_chunk(chunk).arrays["sums"] for chunk in chunks]  # what a worker sends: cells, no pairs
    np.testing.assert_allclose(sum(sums), here[1]["hists"].ravel(), rtol=1e-12)


def test_sections_that_need_single_pairs_say_so():
    content = config.read_toml(SMALL)
    content["select"]["keep_pairs"] = False
    content["subtract"]["method"] = "regions"
    with pytest.raises(
        SteeringError, match=r"keep_pairs = false: \[flow\], \[predict\] from the spectrum need"
    ):
        config.parse(content)
    for section, key, value in (("subtract", "bootstrap", 20), ("unfold", "method", "omnifold")):
        fewer = {name: dict(content[name]) for name in ("analysis", "read", "select", "subtract", "unfold")}
        config.parse(fewer)
        fewer[section][key] = value
        with pytest.raises(SteeringError, match=f"keep_pairs = false: .*{key}"):
            config.parse(fewer)
