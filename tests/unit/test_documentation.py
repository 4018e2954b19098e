"""Notebooks run, commands of the how-to for reinterpretation run, the site builds without a warning."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib

import click
import forks
import numpy as np
import pytest
from builders import ROOT

from gammastar import cli
from gammastar.config import Steering
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs
from gammastar.core.resolve import resolve

DOCS = ROOT / "docs"


def test_equations_are_numbered_one_by_one():
    found = [int(n) for n in re.findall(r"^(\d+)\. \*\*", (DOCS / "physics.md").read_text(), re.MULTILINE)]
    assert found == list(range(1, len(found) + 1))
    for page in DOCS.rglob("*.md"):
        displayed = re.findall(r"\$\$(?:.|\n)*?\$\$(.*)", page.read_text())
        assert all(re.fullmatch(r" \(eq-[a-z-]+\)", label) for label in displayed), page.name


FILES = ("json", "py", "root", "safetensors", "html", "step", "max_in_memory")  # of results and of steering
ROOMS = sorted(path.parent.name for path in (ROOT / "src" / "gammastar").glob("*/__init__.py"))


def _exists(name):
    """Return whether a dotted name is a module of the package or in one."""
    parts = name.split(".")
    found = importlib.import_module("gammastar")
    for k in range(1, len(parts)):
        try:
            found = importlib.import_module(".".join(parts[: k + 1]))
        except ImportError:
            if not hasattr(found, parts[k]):
                return False
            found = getattr(found, parts[k])
    return True


def test_names_on_the_pages_are_names_of_the_package():
    pattern = re.compile(rf"`(?:gammastar\.)?((?:{'|'.join(ROOMS)})(?:\.\w+)+)(?:\([^`]*\))?`")
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    named = {(name, page.name) for page in pages for name in pattern.findall(page.read_text())}
    assert len(named) > 100
    missing = [f"{page}: {name}" for name, page in sorted(named) if not _exists(f"gammastar.{name}")]
    assert not [entry for entry in missing if entry.rpartition(".")[2] not in FILES]


@pytest.mark.parametrize("page", ["channel", "detector", "flow", "limits", "measured"])
def test_sections_of_the_pages_are_those_of_a_steering_file(page):
    base = tomllib.loads((DOCS.parent / "analysis" / "na60_dimuon" / "small.toml").read_text())
    text = (DOCS / "howto" / f"{page}.md").read_text()
    blocks = [
        code for code in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if not code.startswith("# file")
    ]
    assert blocks
    for code in blocks:
        Steering.model_validate(base | tomllib.loads(code))  # refuses keys that it does not know


def test_sources_of_the_page_on_limits_are_found_and_do_what_it_says(tmp_path):
    text = (DOCS / "howto" / "limits.md").read_text()
    (code,) = re.findall(r"```python\n# mysources\.py.*?\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mysources.py").write_text(code)
    found = {
        name: resolve(name, tmp_path)
        for name in re.findall(r'"(mysources\.py:\w+)"', text.split("own = ")[1])
    }
    assert [source.name for source in found.values()] == ["magnetic field", "hard cascade"]
    pairs = MatchedPairs(
        *np.array([[[1.0, 2.0, 50.0]]] * 2), np.ones(1), np.arange(1), np.empty((0, 3)), np.empty(0)
    )
    np.testing.assert_allclose(found["mysources.py:field"].pairs(pairs).reco, [[1.0, 2.01, 50.25]])
    factors = found["mysources.py:cascade"].particles(0.3, 0.5, np.array([40.0, 60.0]))
    np.testing.assert_array_equal(factors, [1.0, 1.1])


def test_the_spread_of_theory_that_the_readme_quotes_is_that_of_the_table():
    quoted = re.search(
        r"spread by factors of ([\d.]+) at\s+([\d.]+) GeV and (\d+) at ([\d.]+) GeV",
        (DOCS.parent / "README.md").read_text(),
    )
    lines = data_path("measurements/ap_yield_400gev.csv").read_text().splitlines()
    table = {
        float(row["mass_GeV"]): float(row["upper"]) / float(row["lower"])
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
    }
    first, mass, second, other = map(float, quoted.groups())
    assert round(table[mass], 1) == first
    assert round(table[other], -1) == second


@pytest.fixture(scope="module")
def reference():
    """Return the module that writes the pages of the reference."""
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_on_its_page(reference):
    page = (DOCS / "reference" / "commands.md").read_text()
    assert page == reference.commands(), "stale: python3 docs/reference/pages.py"
    for name, command in cli.app.commands.items():
        section = page.split(f"\n## gammastar {name}\n")[1].split("\n## ")[0]
        assert command.help.split("\n")[0] in section
        shown = [flag for o in command.params if isinstance(o, click.Option) for flag in o.opts]
        assert all(flag in section for flag in shown), name


def _documented_commands():
    """Yield page, words and whether the line stands in a block of its own, of every command in the docs."""
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "analysis").rglob("*.md")]
    for page in pages:
        text = page.read_text()
        fenced = "\n".join(re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL))
        lines = fenced.splitlines() + re.findall(r"^    (gammastar .*)$", text, re.MULTILINE)
        for line in lines:
            if line.startswith("gammastar ") and page.name != "commands.md":
                yield page, shlex.split(line.partition(" #")[0].rstrip("\\& ")), True
        for code in re.findall(r"`(gammastar [a-z][^`\n]*)`", text):
            yield page, code.split(), False


def test_every_documented_command_exists_with_its_options():
    seen = set()
    for page, words, whole in _documented_commands():
        where = f"{page.name}: {' '.join(words)}"
        assert words[1] in cli.app.commands, where
        command = cli.app.commands[words[1]]
        known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} | {"--help"}
        given = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
        assert given <= known, where
        if whole:
            command.make_context(words[1], words[2:])  # refuses missing arguments and wrong values
        seen.add(words[1])
    assert seen >= set(cli.app.commands) - {"env"}


# names of quantities with a dimension: their line in a docstring says the unit
QUANTITIES = {
    "mass",
    "masses",
    "energy",
    "pt",
    "beam_energy",
    "ctau",
    "momentum",
    "thickness",
    "angle",
    "width",
}
UNIT = re.compile(r"\b(?:GeV|MeV|metres|radians|lengths?|units?)\b|\[(?:m|rad|mrad)\b")

ENTRY = re.compile(r"^(\w+(?:, \w+)*) :((?: .*)?(?:\n    .*|\n(?=\n    ))*)", re.MULTILINE)


def _lacks_unit(entry):
    """Return whether an entry of "Parameters" is a number with a dimension and does not say its unit."""
    numbers = re.match(r" (?!str|Hist|Callable|bool)", entry[2])
    return bool(numbers and QUANTITIES & set(entry[1].split(", ")) and not UNIT.search(entry[2]))


@pytest.mark.flow
def test_every_public_name_is_in_the_reference_with_a_docstring_and_units(reference):
    for line in (ROOT / "tests" / "data" / "api.txt").read_text().splitlines():
        room = re.match(r"[\w.]+", line)[0].rpartition(".")[0]
        assert room in reference.ROOMS or room == "cli", line
    bare, without = [], []
    for room in reference.ROOMS:
        page = reference.api(room)
        module = importlib.import_module(f"gammastar.{room}".rstrip("."))
        for name in reference.public(room):
            thing = getattr(module, name)
            assert re.search(rf":: gammastar\.{room}\.?{name}$", page, re.MULTILINE), name
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue
            text = inspect.getdoc(thing) or ""
            bare += [] if len(text) > 10 else [f"{room}.{name}"]
            without += [f"{room}.{name}: {entry[0]}" for entry in ENTRY.finditer(text) if _lacks_unit(entry)]
    assert not bare, "no docstring"
    assert not without, "no unit:\n" + "\n".join(without)


def _named(thing):
    """Return the parameters and attributes that a docstring has an entry for."""
    found = set()
    sections = r"^(?:Parameters|Attributes)\n-+\n((?:.*\n?)*?)(?=^\S[^\n]*\n-{3,}\n|\Z)"
    for part in re.findall(sections, inspect.getdoc(thing) or "", re.MULTILINE):
        heads = [line for line in part.splitlines() if line and not line[0].isspace()]
        found |= {name.strip().lstrip("*") for line in heads for name in line.split(" : ")[0].split(",")}
    return found


def _parameters(thing):
    try:
        return set(inspect.signature(thing).parameters) - {"self", "cls"}
    except (TypeError, ValueError):  # of compiled code
        return set()


def _documented(room, name, thing):
    """Yield public functions and methods with what their docstrings say of parameters."""
    if inspect.isroutine(thing):
        yield f"{room}.{name}", thing
    if inspect.isclass(thing) and thing.__module__.startswith("gammastar"):
        for key, value in vars(thing).items():
            method = getattr(value, "__func__", value)
            if inspect.isfunction(method) and not key.startswith("_"):
                yield f"{room}.{name}.{key}", method


@pytest.mark.flow
def test_public_names_have_docstrings_whose_parameters_exist(reference):
    wrong, seen = [], 0
    for room in reference.ROOMS:
        module = importlib.import_module(f"gammastar.{room}".rstrip("."))
        for name in reference.public(room):
            for where, thing in _documented(room, name, getattr(module, name)):
                seen += bool(_named(thing))
                if not inspect.getdoc(thing):
                    wrong.append(f"{where}: no docstring")
                options = inspect.getfullargspec(thing).varkw is not None
                if (strange := _named(thing) - _parameters(thing)) and not options:
                    wrong.append(f"{where}: tells of {', '.join(sorted(strange))}")
    assert seen > 100
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["measure", "reinterpret"])
def test_notebooks_are_kept_with_their_outputs(name):
    notebook = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert "display_data" in kinds


@pytest.mark.slow
@pytest.mark.flow
@pytest.mark.parametrize("name", ["measure", "reinterpret"])
def test_notebooks_run(name, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    script = (
        f"import sys; sys.path.insert(0, {str(DOCS / 'notebooks')!r}); import pathlib, execute\n"
        f"execute.execute(execute.FOLDER / '{name}.ipynb', pathlib.Path({str(tmp_path)!r}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.flow
def test_reinterpretation_as_written(tmp_path):
    for page in ("detector", "model"):
        text = (DOCS / "howto" / f"{page}.md").read_text()
        for name, code in re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", text, re.DOTALL):
            (tmp_path / name).write_text(code)
    text = (DOCS / "howto" / "reinterpret.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    expected = ["run", "reinterpret", "reinterpret", "export", "export"]
    assert [command[1] for command in commands] == expected
    for command in commands:
        forks.gammastar(*command[1:], cwd=tmp_path, check=True)


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(DOCS), str(tmp_path / "site")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for page in (
        "index",
        "limits_of_the_method",
        "notebooks/reinterpret",
        "benchmarks",
        "pseudo_experiments",
        *("idea", "tutorial", "gallery", "glossary", "reference/commands", "reference/api/read"),
    ):
        assert (tmp_path / "site" / f"{page}.html").stat().st_size > 3000
