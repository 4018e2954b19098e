"""Rooms do not import each other, heavy libraries load only where they are used."""

import subprocess
import sys
from pathlib import Path

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
