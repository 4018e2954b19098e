"""Code blocks of the documentation, as tests follow them."""

from __future__ import annotations

import re
import shlex

import forks
from builders import ROOT

HOWTO = ROOT / "docs" / "howto"


def blocks(page, language):
    """Return the code blocks of a page of the how-tos in its order."""
    found = re.findall(rf"```{language}\n(.*?)```", (HOWTO / f"{page}.md").read_text(), re.DOTALL)
    assert found
    return found


def commands(page):
    """Return the commands of a page in its order, as lists of words."""
    return [shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines() if line]


def call(words, folder):
    """Run a command of the command line in a folder; return what it prints."""
    assert words[0] == "gammastar"
    return forks.gammastar(*words[1:], cwd=folder, check=True).stdout


def fill(page, folder):
    """Write the lines that a page says into the files that it names; return their number."""
    filled = 0
    for block in blocks(page, "toml"):
        path = folder / re.match(r"# in (\S+)\n", block)[1]
        text = path.read_text()
        for line in block.splitlines()[1:]:
            key, value = line.split(" #")[0].split(" = ")
            text, found = re.subn(rf"(?m)^{key} = [^ \n]+", f"{key} = {value}", text, count=1)
            assert found == 1, f"{page}: {line}"
            filled += 1
        path.write_text(text)
    return filled


def files_of(*pages):
    """Return the files that pages show in full, by their names."""
    shown = {}
    for page in pages:
        text = (HOWTO / f"{page}.md").read_text()
        shown |= dict(re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", text, re.DOTALL))
    return shown


SMALL = {  # of the steering that `init` writes; figures of the report are tested elsewhere
    "[flow]": "[flow]\nepochs = 1\nepoch_size = 4_000\nn_draws = 20",
    "n_masses = 40": "n_masses = 6\nn_sample = 2_000",
    "r_factor_sigma": 'weights = "signed"\nr_factor_sigma',
    "cl = 0.90": "cl = 0.90\nn_couplings = 41\nmax_patches = 4\nsubmission = false",
    "[report]": "",
}


def shrink(steering):
    """Ask for less statistics in a steering file that `init` wrote."""
    for old, new in SMALL.items():
        assert old in steering.read_text()
        steering.write_text(steering.read_text().replace(old, new))
