"""Rooms do not import each other, heavy libraries load only where they are used."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "zuko", "pyhf", "matplotlib", "mplhep", "coffea", "uproot", "awkward", "vector", "sklearn")


def _loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_import_is_light():
    assert not _loaded("import gammastar") & {*HEAVY, "numpy", "scipy"}


def test_check_of_a_whole_analysis_loads_no_fit_and_no_figure():
    steering = ROOT / "analysis" / "na60_dimuon" / "steering.toml"
    code = f"from gammastar import cli; cli.app(['check', {str(steering)!r}], standalone_mode=False)"
    assert not _loaded(code) & {"torch", "zuko", "pyhf", "matplotlib", "mplhep", "sklearn"}


def test_layers():
    lint = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("room", ["infer", "mock", "physics", "report", "semivisible"])
def test_a_room_is_small_enough_to_find_ones_way(room):
    """At most 14 files on one level, 26 names in the face, none of which hides a file."""
    folder = ROOT / "src" / "gammastar" / room
    files = {path.stem for path in folder.glob("*.py")}
    assert 3 <= len(files) <= 14
    face = getattr(importlib.import_module(f"gammastar.{room}"), "__all__", [])
    assert len(face) <= 26
    assert not files & set(face)


def test_folders_that_the_contracts_name_exist():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {
        name.strip(" ()")
        for contract in contracts
        for entry in contract.get("layers", contract.get("source_modules"))
        for name in entry.split("|")
    }
    places = [ROOT / "src" / Path(*name.split(".")) for name in named]
    assert len(places) >= 18
    assert not [place for place in places if not (place.is_dir() or place.with_suffix(".py").is_file())]
