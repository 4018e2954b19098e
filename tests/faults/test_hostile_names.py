"""Names that try to be markup, formulae, code or commands stay names, wherever they are shown."""

import json
import os
import re
import shutil
import subprocess
import tomllib

import awkward as ak
import forks
import numpy as np
import pytest
import uproot
from builders import ROOT
from injection import names
from injection.hostile import NAMES

from gammastar import read
from gammastar.core.errors import UserError
from gammastar.physics.detector import load_detector
from gammastar.physics.millicharge import load_millicharge_detector

SLOW = {names.in_figures: 10, names.in_submissions: 11}  # every so many names


@pytest.mark.long
@pytest.mark.parametrize("writer", names.WRITERS, ids=lambda writer: writer.__name__)
def test_names_stay_names(tmp_path, writer):
    if writer is names.in_submissions:
        pytest.importorskip("hepdata_validator")
    wrong = [names.through(name, writer, tmp_path) for name in NAMES[:: SLOW.get(writer, 1)]]
    assert [what for found in wrong for what in found] == []


ACT = "document.documentElement.setAttribute('ran','yes')"
ACTING = (
    f"<script>{ACT}</script>",
    f"</script><script>{ACT}</script>",
    f"</title></style></textarea><script>{ACT}</script>",
    f'<img src=x onerror="{ACT}">',
    f"]]><svg/onload={ACT}>",
    f'"><body onpageshow={ACT} x="',
    f"' autofocus onfocus={ACT} tabindex=1 x='",
    f'<iframe srcdoc="<script>parent.{ACT}</script>"></iframe>',
    f"<details open ontoggle={ACT}>",
    f"\u2028{ACT}\u2029",
    f"\\u003cscript\\u003e{ACT}\\u003c/script\\u003e",
    f"${{{ACT}}}",
    f"javascript:{ACT}",
)
BROWSER = next(
    (name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
)


FRAMES = """<!DOCTYPE html><html><body><script>
for (const page of %s) {
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.onload = () => {
    const found = frame.contentDocument.documentElement;
    const told = document.body.appendChild(document.createElement("p"));
    const say = () => `${page}: ${found.textContent.length > 0} ${found.getAttribute("ran")}`;
    setTimeout(() => told.textContent = say(), 1000);
  };
  frame.src = page + "#0.5,1e-6";
}
</script></body></html>"""


def shown(folder, pages):
    """Return for each page in a folder whether a script of a name ran when a browser showed it."""
    (folder / "frames.html").write_text(FRAMES % json.dumps(pages), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=3000")
    own = ("--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}")
    command = [BROWSER, *options, *own, "--dump-dom", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return dict(re.findall(r"<p>(\S+): true (\w+)</p>", done.stdout))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at hand")
def test_no_script_of_a_name_runs_in_a_browser(tmp_path):
    """All pages in frames of one; a page of nothing but the first of the names shows that its script runs."""
    control = f"<!DOCTYPE html><html><body>{ACTING[0]}</body></html>"
    (tmp_path / "control.html").write_text(control, encoding="utf-8")
    wanted = {"control.html": "yes"}
    for writer, page in ((names.in_pages, "report.html"), (names.in_explorers, "explorer.html")):
        for number, name in enumerate((" ".join(ACTING), ACTING[1])):  # the first one begins with ACTING[0]
            names.through(name, writer, tmp_path)
            assert ACT[:20] in (tmp_path / page).read_text(encoding="utf-8")
            (tmp_path / page).rename(tmp_path / f"{number}{page}")
            wanted[f"{number}{page}"] = "null"
    assert shown(tmp_path, list(wanted)) == wanted


@pytest.mark.long
@pytest.mark.parametrize("name", ["$\\frac{1}{$", "x" * 3000, "\x1b[31m", "a$b\n$\\bad{$"])
def test_figures_draw_what_is_no_formula(tmp_path, name):
    assert names.through(name, names.in_figures, tmp_path) == []


@pytest.mark.filterwarnings("ignore:jsonschema.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["\ud800lone", "中文 😀", "x" * 3000, "\x1b: - &a !!x\n---\n"])
def test_submissions_are_valid_whatever_the_names(tmp_path, name):
    pytest.importorskip("hepdata_validator")
    assert names.through(name, names.in_submissions, tmp_path) == []


def test_file_names_that_are_no_text(tmp_path):
    """A name of bytes that are no UTF-8 comes with lone surrogates; reports and tables take it."""
    name = os.fsdecode(b"caf\xe9.root")
    for writer in (names.in_pages, names.in_tables, names.in_figures, names.in_files, names.on_terminal):
        assert names.through(name, writer, tmp_path) == []


@pytest.mark.parametrize("name", ["\x1b[31m", "two\nlines", "x" * 3000, "\u202eabc", 7, ["a"]])
@pytest.mark.parametrize(
    ("shipped", "load"), [("na62_dump", load_detector), ("mcp_bars", load_millicharge_detector)]
)
def test_detectors_have_names_that_can_be_shown(tmp_path, name, shipped, load):
    text = (ROOT / "data" / "detectors" / f"{shipped}.toml").read_text()
    path = tmp_path / "mine.toml"
    said = json.dumps(name).replace("\\", "\\\\")
    path.write_text(re.sub(r'^name = ".*"$', f"name = {said}", text, count=1, flags=re.MULTILINE))
    with pytest.raises(UserError, match=r"mine\.toml.*name"):
        load(path)


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in NAMES if "\ud800" not in n and "/" not in n and ";" not in n])
def test_proposed_schemas_name_trees_as_they_are(tmp_path, name):
    """Quotes, line breaks and escapes in the name of a tree make no TOML of their own."""
    name = f"ev{name[:60]}"
    counts, rng = np.full(50, 2), np.random.default_rng(1)
    leptons = {f"Muon_{key}": ak.unflatten(rng.normal(9.0, 1.0, 100), counts) for key in ("px", "py", "pz")}
    leptons["Muon_charge"] = ak.unflatten(rng.choice(np.array([-1, 1], np.int32), 100), counts)
    with uproot.recreate(tmp_path / "x.root") as file:
        file.mktree(name, {key: values.type.content for key, values in leptons.items()}).extend(leptons)
    found = read.describe(tmp_path / "x.root", lepton="mu")
    (tmp_path / "s.toml").write_text(f"{found.proposal}\n", encoding="utf-8")
    assert tomllib.loads((tmp_path / "s.toml").read_text(encoding="utf-8"))["tree"] == name
    assert len(list(read.open_events(tmp_path / "x.root", read.load_schema(tmp_path / "s.toml")))) == 1


def test_logs_and_warnings_of_the_command_line_do_not_steer():
    code = (
        "import logging, sys, warnings\n"
        "from gammastar.cli import main\n"
        "sys.argv = ['gammastar', 'env']\n"
        "main()\n"
        "logging.getLogger('gammastar').warning('%s', 'a\\x1b[31m\\u202eb')\n"
        "warnings.warn('c\\x1b[32md')\n"
    )
    done = forks.server.run("-c", code, check=True)
    assert "a\\u001b[31m\\u202eb" in done.stderr
    assert "c\\u001b[32md" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
