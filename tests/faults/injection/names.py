"""Hostile names through every writer: pages, tables, figures, submissions, workspaces, the terminal."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import yaml
from click.testing import CliRunner

from gammastar import infer, report
from gammastar.cli import say, shown
from gammastar.core.files import Finding, cell, plain
from gammastar.report.hepdata import Submission, check_submission, write_submission
from gammastar.report.style import new_figure
from gammastar.store.manifest import read_json, write_json, write_table, write_text

VOID = {"meta", "img", "br", "input", "link"}
LIVE = {"script", "svg", "iframe", "object", "embed", "form"}
STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
PNG = b"\x89PNG"
MASS, COUPLING = np.linspace(0.2, 0.8, 12), np.geomspace(1e-8, 1e-5, 40)
Holds = Iterator[str]


class Seen(HTMLParser):
    """What a browser finds in a page: tags, what acts, texts, scripts; whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.acting: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.crossed = False
        self.feed(text)
        self.close()

    @property
    def whole(self) -> bool:
        return not self.open and not self.crossed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        places = {"href", "src", "action", "style"}
        self.acting += [k for k, v in attrs if k.startswith("on") or (k in places and "script" in str(v))]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.crossed |= not self.open or self.open.pop() != tag

    def handle_data(self, data: str) -> None:
        inside = self.open and self.open[-1] == "script"
        (self.scripts if inside else self.texts).append(data)


def in_pages(name: str, folder: Path) -> Holds:
    """Write a report whose every text is the name."""
    section = report.Section(name, [name], [(name, PNG)], [report.Table({name: [name, 1.0]}, name)])
    source = report.Provenance({name: name}, {name: name}, {name: name}, [name], {name: 1})
    text = report.page(name, [section], mock=True, provenance=source)
    write_text(folder / "report.html", text)
    seen = Seen((folder / "report.html").read_text(encoding="utf-8"))
    if not seen.whole or seen.tags & LIVE or seen.acting:
        yield f"page: {seen.open} {sorted(seen.tags & LIVE)} {seen.acting}"
    told = " ".join("".join(seen.texts).split())
    if " ".join(plain(name).split()) not in told or STEERING.search(told):
        yield "page: the name is not shown as it is"


def in_explorers(name: str, folder: Path) -> Holds:
    """Write a plane whose detector, title and labels are the name."""
    plane = report.Plane2D(MASS, COUPLING, np.ones((12, 40)), np.ones((12, 40)), [2.3])
    text = report.explorer(name, {name: plane}, cl=[0.9], mock=False, labels=(f"{name} ", name))
    (folder / "explorer.html").write_text(text, encoding="utf-8")
    seen = Seen(text)
    if not seen.whole or len(seen.scripts) != 2 or "<" in seen.scripts[0] or seen.acting:
        yield f"explorer: {len(seen.scripts)} scripts, {seen.open} {seen.acting}"
    elif list(json.loads(seen.scripts[0])["detectors"]) != [name]:
        yield "explorer: another name"


def in_tables(name: str, folder: Path) -> Holds:
    """Write a CSV table of which column and cell are the name; read it with the csv module."""
    path = folder / "table.csv"
    write_table(path, {name: [name, -1.5], "b": ["-1e-3", "x"]})
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    if rows != [[cell(name), "b"], [cell(name), "-1e-3"], ["-1.5", "x"]]:
        yield f"table: {rows}"[:200]
    if rows[0][0][:1] in {*"=+-@\t\r"} or STEERING.search(rows[0][0]):
        yield "table: a cell that is a formula, or steers"


def in_files(name: str, folder: Path) -> Holds:
    """Write JSON and a workspace of the name; read them back."""
    write_json(folder / "x.json", {name: name})
    if read_json(folder / "x.json") != {name: name}:
        yield "JSON: another name"
    if name:
        space = infer.workspace(name, 0.5, 0.3, [1], pot_search_sigma=0.2)
        write_json(folder / "workspace.json", space)
        if read_json(folder / "workspace.json") != space or json.dumps(name)[1:-1] not in json.dumps(space):
            yield "workspace: another name"


def in_figures(name: str, folder: Path) -> Holds:
    """Draw a figure whose title, axes and legend are the name."""
    figure, axes = new_figure()
    axes[0, 0].plot([1, 2], [1, 2], label=name)
    axes[0, 0].set(title=name, xlabel=name, ylabel=f"two\n{name}")
    axes[0, 0].legend()
    png, pdf = report.save_figure(figure, folder / "figure")
    if png.read_bytes()[:4] != PNG or pdf.read_bytes()[:4] != b"%PDF":
        yield "figure: not drawn"


def in_submissions(name: str, folder: Path) -> Holds:
    """Write a submission for HEPData whose texts are the name; its validator must take it."""
    signal = 2e28 * np.exp(-MASS[:, None] / 0.12) * COUPLING**4
    signal = signal * np.exp(-(COUPLING**2) * MASS[:, None] ** 2 / 1e-13)
    found = infer.reach(MASS, COUPLING, signal, infer.upper_limit(0.5, 0.3, "masked"))
    says = Submission(name, name, name, {"CL": 0.9, name: name}, "P N --> X", name, (name,))
    target = folder / "hepdata"
    write_submission(target, found, says, others={name: found})
    check_submission(target)
    head, *tables = yaml.safe_load_all((target / "submission.yaml").read_text(encoding="utf-8"))
    if head["comment"] != f"{plain(name)}\n\n{plain(name)}" or len(tables) != 2:
        yield "submission: another name"


def on_terminal(name: str, _: Path) -> Holds:
    """Print the name, a finding and the progress of it."""
    streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        with CliRunner().isolation() as (out, *_rest):
            say(name)
            say(Finding("error", name, name))
            told = out.getvalue().decode(errors="replace")
        with shown() as tell:
            tell("select", 0.5, name)
    if STEERING.search(told) or plain(name).split() != told.partition("error: ")[0].split():
        yield "terminal: another name, or one that steers"
    if STEERING.search(streams[1].getvalue().replace("\x1b[", "").replace("\r", "")):
        yield "progress: steers"


WRITERS: tuple[Callable[[str, Path], Holds], ...] = (
    in_pages,
    in_explorers,
    in_tables,
    in_files,
    in_figures,
    in_submissions,
    on_terminal,
)


def through(name: str, writer: Callable[[str, Path], Holds], folder: Path) -> list[str]:
    """Return what goes wrong with a name in a writer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts without a character, layouts without room
        try:
            return [f"{what} ({name[:40]!r})" for what in writer(name, folder)]
        except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
            return [f"{writer.__name__}: {type(error).__name__} ({name[:40]!r})"]
