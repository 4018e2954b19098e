"""Wheel and sdist: complete, equal, and able to run the main job far from the repository."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from builders import ROOT

pytest.importorskip("hatchling")


def run(*command, cwd, python=sys.executable, **environment):
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, *map(str, command)],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist of the repository, and the wheel that the unpacked sdist gives."""
    folder = tmp_path_factory.mktemp("built")
    run("-m", "hatchling", "build", "-d", folder / "tree", cwd=ROOT)
    (sdist,) = (folder / "tree").glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        name = tar.getnames()[0].partition("/")[0]
    run("-m", "tarfile", "-e", sdist, folder, cwd=folder)
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder / "sdist", cwd=folder / name)
    (wheel,) = (folder / "tree").glob("*.whl")
    (again,) = (folder / "sdist").glob("*.whl")
    return wheel, sdist, again


def with_pip(folder):
    """Return a Python that has pip: an environment made by uv has none."""
    if importlib.util.find_spec("pip"):
        return sys.executable
    run("-m", "venv", folder / "venv", cwd=folder)
    return folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


@pytest.mark.slow
def test_the_sdist_gives_the_wheel_of_the_repository(built):
    wheel, sdist, again = built
    assert members(wheel) == members(again)
    with tarfile.open(sdist) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "CITATION.cff", "constraints.txt", "tests/run.py"} <= inside
    assert not [name for name in inside if name.startswith((".venv", "results", "dist"))]


@pytest.mark.slow
def test_the_wheel_holds_code_types_data_and_analyses_and_nothing_else(built):
    inside = members(built[0])
    for name in (
        "py.typed",
        "cli/__init__.py",
        "data/mock/na60_data.root",
        "data/analysis/na60_dimuon/small.toml",
    ):
        assert f"gammastar/{name}" in inside
    top = {name.partition("/")[0] for name in inside}
    assert top == {"gammastar", "gammastar-0.1.0.dist-info"}
    code = {
        f"gammastar/{path.relative_to(ROOT / 'src/gammastar')}" for path in ROOT.glob("src/gammastar/**/*.py")
    }
    assert code <= set(inside)


@pytest.mark.slow
@pytest.mark.flow
def test_the_main_job_runs_outside_the_repository(built, tmp_path):
    target = tmp_path / "installed"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target)
    run(*pip, built[2], cwd=tmp_path, python=with_pip(tmp_path))
    here = {"cwd": tmp_path, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    where = run("-c", "import gammastar; print(gammastar.__file__)", **here)
    assert Path(where.strip()).is_relative_to(target)
    said = run("-m", "gammastar", "run", "na60_dimuon/small", "--output", "out", **here)
    assert "results in out" in said
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert "CHANGED" not in run("-m", "gammastar", "verify", "out", **here)
