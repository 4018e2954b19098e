"""User code is read once: what is edited, left, ended or imported later changes nothing in silence."""

import json
import os
import shutil
import textwrap

import cloudpickle
import forks
import numpy as np
import pytest
import uproot
from builders import ROOT
from injection import workers

from gammastar import facility
from gammastar.core.constants import M_MU
from gammastar.core.errors import SteeringError
from gammastar.core.resolve import freeze, installed, resolve
from gammastar.pipeline import run as pipeline

CUTS = """
from limits import LIMIT

def heavy(pairs):
    return pairs.mass > LIMIT
"""
STEERING = """
[analysis]
name = "a"
[read]
files = ["part*.root"]
schema = "{schema}"
step = 17
[select]
mass = [0.2, 0.5, 0.9, 1.4]
pt = [0.0, 1.0, 4.0]
energy = [4.0, 50.0, 200.0]
pair_functions = ["cuts.py:heavy"]
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return workers.poisoned(tmp_path_factory.mktemp("parts"), 3, ())


@pytest.fixture
def base(tmp_path, parts):
    (tmp_path / "cuts.py").write_text(CUTS)
    (tmp_path / "limits.py").write_text("LIMIT = 0.30\n")
    schema = ROOT / "analysis" / "na60_dimuon" / "schema.toml"
    for part in parts:
        shutil.copy(part, tmp_path)
    (tmp_path / "steering.toml").write_text(STEERING.format(schema=schema))
    return tmp_path


def same_stamp(path, text):
    """Write another text of the same length at the same time: what bytecode caches take for the same."""
    status = path.stat()
    assert len(text) == status.st_size
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def n_pairs(folder):
    with np.load(folder / "stages" / "select.npz") as kept:
        return len(kept["mass"])


def expected(base, limit):
    """Count pairs of opposite and like sign with numpy alone."""
    count = 0
    for row in uproot.concatenate(f"{base}/part*.root:events", ["Muon_px", "Muon_py", "Muon_pz"]):
        p = np.array([row["Muon_px"], row["Muon_py"], row["Muon_pz"]], dtype=float)
        energy = np.sqrt((p**2).sum(axis=0) + M_MU**2)
        for i in range(p.shape[1]):
            for j in range(i + 1, p.shape[1]):
                m2 = (energy[i] + energy[j]) ** 2 - ((p[:, i] + p[:, j]) ** 2).sum()
                count += m2 > limit**2
    return count


@pytest.mark.parametrize("name", ["limits.py", "cuts.py"])
@pytest.mark.parametrize("gone", [False, True])
def test_code_edited_during_a_run_changes_neither_this_run_nor_the_next(base, name, gone):
    """Edited or removed while chunks are read, then restored, and resumed: always the pairs of its text."""
    path, text = base / name, (base / name).read_text()
    other = "LIMIT = 0.60\n" if name == "limits.py" else CUTS.replace("> LIMIT", "> 0.60*")

    def edit(stage, *_):
        if stage == "read" and gone:
            path.unlink(missing_ok=True)
        elif stage == "read":
            path.write_text(other)

    with facility.open_executor() as executor:
        run(base, executor=executor, tell=edit)
        assert path.exists() != gone
        right = expected(base, 0.30)
        assert n_pairs(base / "out") == right
        path.write_text(text)
        run(base, executor=executor, resume=True)
        assert n_pairs(base / "out") == right


def run(base, **options):
    return pipeline.run(base / "steering.toml", output=base / "out", only="select", **options)


def test_an_import_of_another_text_with_the_same_stamp_is_another_cut(base):
    with facility.open_executor() as executor:
        run(base, executor=executor)
        assert n_pairs(base / "out") == expected(base, 0.30)
        same_stamp(base / "limits.py", "LIMIT = 0.60\n")
        run(base, executor=executor, resume=True)
        assert n_pairs(base / "out") == expected(base, 0.60)
    assert not list(base.rglob("__pycache__"))


def test_siblings_packages_and_late_imports_come_from_the_frozen_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "analysis"
    (folder / "lib" / "deep").mkdir(parents=True)
    (folder / "select.py").write_text("WRONG = True\n")  # a name of the standard library stays the library's
    (folder / "lib" / "__init__.py").write_text("from .deep.value import VALUE\n")
    (folder / "lib" / "deep" / "value.py").write_text("import helper\nVALUE = helper.ONE + 1\n")
    (folder / "helper.py").write_text("ONE = 1\n")
    (folder / "late.py").write_text("THREE = 3\n")
    (folder / "table.txt").write_text("7")
    (folder / "mine.py").write_text(
        textwrap.dedent("""
        from __future__ import annotations
        from dataclasses import dataclass
        from pathlib import Path
        import select
        import lib.deep.value as value
        import lib
        from helper import ONE

        @dataclass
        class Model:
            scale: float

            def made(self):
                from late import THREE
                return self.scale, ONE, lib.VALUE, value.VALUE, THREE, hasattr(select, "WRONG")

        def table():
            return int((Path(__file__).parent / "table.txt").read_text())

        def model():
            return Model(2.0)
        """)
    )
    code = freeze(["mine.py:model"], folder)
    assert set(code.shas(["mine.py:model"])) == {
        *("mine.py", "helper.py", "late.py", "lib/__init__.py", "lib/deep/value.py")
    }
    for path in folder.rglob("*.py"):
        path.unlink()
    assert code.resolve("mine.py:model")().made() == (2.0, 1, 2, 2, 3, False)
    assert code.resolve("mine.py:table")() == 7
    # the same elsewhere: another process that never saw the files, with what an executor sends
    blob = cloudpickle.dumps((installed(), cloudpickle.dumps(code.resolve("mine.py:model")())))
    (tmp_path / "blob").write_bytes(blob)
    program = (
        "import pickle, pathlib\nfrom gammastar.core.resolve import install\n"
        "code, model = pickle.loads(pathlib.Path('blob').read_bytes())\ninstall(code)\n"
        "print(pickle.loads(model).made())"
    )
    done = forks.server.run("-c", program)
    assert done.stdout.strip() == "(2.0, 1, 2, 2, 3, False)", done.stderr


def test_models_reach_workers_by_content(tmp_path):
    (tmp_path / "shift.py").write_text("SHIFT = 10\n")
    (tmp_path / "mine.py").write_text("def shifted(x):\n    from shift import SHIFT\n    return x + SHIFT\n")
    function = resolve("mine.py:shifted", tmp_path)
    (tmp_path / "shift.py").write_text("SHIFT = 99\n")
    (tmp_path / "mine.py").unlink()
    with facility.open_executor(workers=1) as executor:
        assert executor.map(function, range(3)) == [10, 11, 12]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; sys.exit(0)", r"cuts.py:heavy, line 3: calls sys.exit\(0\)"),
        ("return 1 / 0", "cuts.py:heavy, line 3: ZeroDivisionError: division by zero"),
        ("return pairs.nothing", "cuts.py:heavy, line 3: AttributeError"),
        ("return (lambda: {}['a'])()", r"cuts.py:heavy.<locals>.<lambda>, line 3: KeyError: 'a'"),
    ],
)
@pytest.mark.parametrize("with_farm", [False, True])
def test_what_a_function_raises_names_its_place(base, body, said, with_farm):
    (base / "cuts.py").write_text(f"\ndef heavy(pairs):\n    {body}\n")
    if with_farm:
        with facility.open_executor() as executor, pytest.raises(SteeringError, match=said):
            run(base, executor=executor)
    else:
        with pytest.raises(SteeringError, match=said):
            run(base)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def heavy(pairs:\n    pass\n", "cuts.py, line 1: SyntaxError"),
        ("x = 1\nraise SystemExit\n", r"cuts.py, line 2: calls sys.exit\(None\)"),
        ("import nothing_of_that_name\n", "cuts.py, line 1: ModuleNotFoundError"),
        ("heavy_ = 1\n", "has no 'heavy'; it has heavy_"),
        ("x = '\0'\n", "cuts.py, line 1: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_executed_is_named(base, text, said):
    (base / "cuts.py").write_text(text)
    with pytest.raises(SteeringError, match=said):
        run(base)


def test_an_exit_is_no_success_and_a_change_of_folder_moves_nothing(base):
    (base / "cuts.py").write_text(
        "import os, sys\ndef heavy(pairs):\n    os.chdir('/')\n    return pairs.mass > 0.3\n"
    )
    command = ["run", "steering.toml", "--output", "here", "--only", "select"]
    done = forks.gammastar(*command, cwd=base)
    assert done.returncode == 0, done.stderr
    assert json.loads((base / "here" / "manifest.json").read_text())["stages"]["select"]
    (base / "cuts.py").write_text("import sys\ndef heavy(pairs):\n    sys.exit(0)\n")
    done = forks.gammastar(*command, cwd=base)
    assert done.returncode == 2
    assert "cuts.py:heavy, line 3: calls sys.exit(0)" in done.stderr
    assert "Traceback" not in done.stderr
