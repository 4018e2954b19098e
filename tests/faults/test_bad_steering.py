"""Mistakes of users end with exit code 2 and name what is wrong; nothing is half-written."""

import os

import pytest
from builders import ROOT
from forks import gammastar

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"


@pytest.fixture
def steering(tmp_path):
    """A function that writes the measured half of the small steering file with replacements."""

    def write(*replacements, until="[unfold]"):
        text = SMALL.read_text().split(until)[0]
        text = text.replace("schema.toml", f"{SMALL.parent}/schema.toml")
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "steering.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("replacement", "match"),
    [
        (("r_factor = 1.162", "r_facto = 1.162"), "subtract.r_facto"),
        (("seed = 1", "seed = -1"), "analysis.seed"),
        (("na60_data.root", "na60_dat.root"), "na60_dat.root"),
        (("[analysis]", "[analysis"), "not TOML"),
        (("na60_dimuon/schema.toml", "na60_dimuon/scheme.toml"), "scheme.toml"),
    ],
)
def test_wrong_steering(steering, tmp_path, command, replacement, match):
    path = steering(replacement)
    options = ["--output", tmp_path / "out"] if command == "run" else []
    run = gammastar(command, path, *options)
    assert run.returncode == 2
    assert match in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("option", ["--only", "--nonsense"])
def test_wrong_option(steering, tmp_path, option):
    run = gammastar("run", steering(), "--output", tmp_path / "out", option, "flow")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_zero_pairs(steering, tmp_path):
    run = gammastar(
        "run",
        steering(("[subtract]", "[select.pair]\nmass = [50.0, 60.0]\n\n[subtract]")),
        "--output",
        tmp_path / "out",
    )
    assert run.returncode == 2
    assert "na60_data.root" in run.stderr
    assert "no lepton pair" in run.stderr
    assert not (tmp_path / "out" / "stages" / "select.npz").exists()


def test_damaged_input(steering, tmp_path):
    damaged = tmp_path / "damaged.root"
    damaged.write_bytes((ROOT / "data" / "mock" / "na60_data.root").read_bytes()[:100_000])
    run = gammastar("run", steering(("mock/na60_data.root", str(damaged))), "--output", tmp_path / "out")
    assert run.returncode == 2
    assert "damaged.root" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_no_permission(steering, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    run = gammastar("run", steering(), "--output", folder)
    assert run.returncode == 1
    assert "permission" in run.stderr


def test_output_is_a_file(steering, tmp_path):
    (tmp_path / "out").write_text("here already")
    run = gammastar("run", steering(), "--output", tmp_path / "out")
    assert run.returncode == 1
    assert "--output" in run.stderr
    assert (tmp_path / "out").read_text() == "here already"


def test_other_beam_energy(steering, tmp_path):
    path = steering(("beam_energy = 400.0", "beam_energy = 450.0"), until="[infer]")
    before, _, after = path.read_text().partition("[flow]")
    after = after.partition("[predict]")[2]
    path.write_text(f'{before}[predict]\nsampler = "histogram"{after}')
    run = gammastar("run", path, "--output", tmp_path / "out")
    assert run.returncode == 2
    assert "450" in run.stderr
    assert "400" in run.stderr
