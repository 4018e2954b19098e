"""What nobody foresaw is one line, a file with the traceback and exit code 70."""

import os
import subprocess
import sys

import forks
import pytest
from injection import kills, steerings, unforeseen, whole

from gammastar.core.files import CRASH
from gammastar.store.folder import claim

BROKEN = """
import importlib, sys
module = importlib.import_module("gammastar.{module}")
def broken(*_, **__):
    raise {error}
module.{name} = broken
from gammastar.cli import main
main()
"""


def broken(module, name, error, *words, cwd):
    code = BROKEN.format(module=module, name=name, error=error)
    return forks.server.run("-c", code, *words, cwd=cwd)


@pytest.mark.parametrize(
    "error", ["AttributeError('no \\x1b[31m')", "MemoryError('6 GiB')", "OSError('cut')"]
)
def test_what_nobody_foresaw_is_one_line_and_a_file(tmp_path, error):
    done = broken("results.show", "show_results", error, "show", "folder", cwd=tmp_path)
    assert done.returncode == 70, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert error.partition("(")[0] in done.stderr
    assert "\x1b" not in done.stderr
    assert str(tmp_path / CRASH) in done.stderr
    kept = (tmp_path / CRASH).read_text(encoding="utf-8")
    assert "Traceback" in kept
    assert "show folder" in kept


@pytest.mark.long
def test_every_command_has_the_one_handler(tmp_path):
    found = unforeseen.commands(tmp_path)
    assert found.wrong == []
    assert found.n > 250


def test_the_traceback_lies_beside_the_results_where_the_next_run_goes_on(tmp_path):
    path = kills.steering(tmp_path / "steering.toml")
    done = broken("pipeline.run", "_check", "KeyError('a')", "run", path, "--output", "out", cwd=tmp_path)
    assert done.returncode == 70, done.stderr
    assert [item.name for item in (tmp_path / "out").iterdir()] == [CRASH]
    assert claim(tmp_path / "out") == {}


@pytest.mark.long
def test_files_are_utf8_in_every_locale(tmp_path):
    """Names and texts beyond ASCII, read and said where the locale knows none of them."""
    path = kills.steering(tmp_path / "Größe.toml")
    text = path.read_text(encoding="utf-8").replace("na60_mc.root", "größe.root")
    path.write_text(text.replace("MOCK", "γ* → µµ"), encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    words = [sys.executable, "-m", "gammastar", "check", path]
    done = subprocess.run(words, capture_output=True, env=environment, check=False, timeout=120)
    said = done.stderr.decode("utf-8")
    assert done.returncode == 2, said
    assert "größe.root" in said
    assert "Größe.toml: 1 to repair" in said


@pytest.mark.flow
@pytest.mark.slow
def test_a_whole_run_is_alike_in_every_locale(tmp_path):
    content = whole.without_fits(whole.without_flow(whole.tiny(tmp_path)))
    content["analysis"]["title"] = "γ* → µµ"
    path = tmp_path / "Größe.toml"
    path.write_text(steerings.text(content), encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    words = [sys.executable, "-m", "gammastar", "run", path, "--output", tmp_path / "größe"]
    done = subprocess.run(words, capture_output=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "größe" in done.stdout.decode("utf-8")
    assert "γ* → µµ" in (tmp_path / "größe" / "report.html").read_text(encoding="utf-8")
