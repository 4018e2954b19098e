"""`gammastar simulate`: both layouts, and its mistakes."""

import awkward as ak
import pytest
import uproot
from click.testing import CliRunner

from gammastar.cli import app


@pytest.mark.usefixtures("small_pilots")
def test_command_writes_both_layouts_with_one_content(tmp_path):
    content = {}
    for layout in ("ttree", "rntuple"):
        out = tmp_path / f"{layout}.root"
        run = CliRunner().invoke(
            app,
            ["simulate", "na60_mock", "-n", "2000", "--kind", "mc", "-o", str(out), "--format", layout],
            catch_exceptions=False,
        )
        assert run.exit_code == 0
        assert "placeholders of the card: background" in run.output
        content[layout] = next(line for line in run.output.splitlines() if "sha256" in line)
        with uproot.open(out) as file:
            assert ak.all(file["events"].arrays().Muon_decayZ == 0.0)
    assert content["ttree"] == content["rntuple"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rntuple.root", "ttree.root"]


@pytest.mark.parametrize("number", ["0", "-3"])
def test_command_refuses_no_events(tmp_path, number):
    run = CliRunner().invoke(app, ["simulate", "na60_mock", "-n", number, "-o", str(tmp_path / "a.root")])
    assert run.exit_code == 2
    assert "not in the range" in run.output


def test_command_cannot_make_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.root"
    run = CliRunner().invoke(app, ["simulate", "na60_mock", "-n", "10", "-o", str(out)])
    assert "cannot be written" in str(run.exception)
