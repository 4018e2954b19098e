"""Write the reference of the commands: ``python3 docs/reference/pages.py``.

A build of the site also writes the pages of the API with it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import click

from gammastar import cli

HERE = Path(__file__).parent
API = "api"  # folder of the pages that a build of the site writes
ROOMS = (
    *("", "read", "select", "subtract", "unfold", "spectrum", "flow", "predict", "accept"),
    *("infer", "background", "report", "semivisible", "mock", "testing", "config", "facility"),
    *("core.records", "core.pairs", "physics.qed", "physics.detector", "physics.geometry", "physics.vectors"),
)
"""Public packages in the order of an analysis, then the records and what detectors and models are made of.

The empty name is ``gammastar`` itself.
"""


def commands() -> str:
    """Return the page of all commands, from their own help texts."""
    lines = [
        "# Commands",
        "",
        "Every command, its arguments and its options. `gammastar COMMAND --help` prints the same.",
        "This page is written by `python3 docs/reference/pages.py`.",
    ]
    for name in sorted(cli.app.commands):
        lines += ["", f"## gammastar {name}", "", *_command(name, cli.app.commands[name])]
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=name)
    pieces = " ".join(command.collect_usage_pieces(context))
    about = inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [one for one in command.params if isinstance(one, click.Option)]
    lines = [*about.splitlines(), "", "```text", f"gammastar {name} {pieces}", "```"]
    if not options:
        return lines
    rows = [_escaped(*record) for one in options if (record := one.get_help_record(context)) is not None]
    return [*lines, "", "| option | what it does |", "|---|---|", *(f"| `{a}` | {b} |" for a, b in rows)]


def _escaped(names: str, about: str) -> tuple[str, str]:
    """Return the two cells of an option; bars and brackets would end a cell or begin a link."""
    return names.replace("|", r"\|"), re.sub(r"([|\[\]<>*_])", r"\\\1", " ".join(about.split()))


def public(room: str) -> list[str]:
    """Return the public names of a package, in its own order."""
    return list(getattr(importlib.import_module(f"gammastar.{room}".rstrip(".")), "__all__", []))


def api(room: str) -> str:
    """Return the page of a package: every public name with its docstring, which Sphinx fills in."""
    module = f"gammastar.{room}".rstrip(".")
    loaded = importlib.import_module(module)
    lines = [f"# {module}", "", *inspect.getdoc(loaded).splitlines(), "", "```{eval-rst}"]
    for name in public(room):
        found = getattr(loaded, name)
        if inspect.isclass(found):
            lines += [f".. autoclass:: {module}.{name}", "   :members:", ""]
        elif inspect.isroutine(found):
            lines += [f".. autofunction:: {module}.{name}", ""]
        else:
            lines += [f".. py:data:: {module}.{name}", ""]
    return "\n".join([*lines, "```", ""])


def write_api(folder: Path) -> None:
    """Write one page per public package and the list of them; leave alone what has not changed."""
    folder.mkdir(exist_ok=True)
    names = {room: f"{room or 'gammastar'}.md" for room in ROOMS}
    pages = {names[room]: api(room) for room in ROOMS}
    listed = "\n".join(name.removesuffix(".md") for name in names.values())
    about = "Every public function and class, package by package, in the order of an analysis."
    pages["index.md"] = f"# API\n\n{about}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    for name, text in pages.items():
        if not (folder / name).is_file() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


if __name__ == "__main__":
    (HERE / "commands.md").write_text(commands())
