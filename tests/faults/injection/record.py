"""All campaigns in one go: the numbers for the validation, the benchmark and ``docs/reliability.md``.

Full campaigns run portion by portion, each in a process of its own, and every finished portion is kept: a
campaign that is stopped goes on where it was. Portions of other campaign code are done again.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gammastar import __version__
from gammastar.store.manifest import digest
from injection.kills import ROOT
from injection.parts import FULL, QUICK, Result

PAGE = ROOT / "docs" / "reliability.md"
KEPT = ROOT / "results" / "faults"
HEADING = "## Figures"
LIMIT = 3600  # seconds for one portion


def campaigns(*, quick: bool, names: tuple[str, ...] = (), kept: Path = KEPT) -> Iterator[Result]:
    """Yield the results of all campaigns or the named ones, the short ones or the full counts."""
    for name, part in (QUICK if quick else FULL).items():
        if names and name not in names:
            continue
        total: dict[str, Result] = {}
        for portion in range(part.portions):
            for result in _short(name) if quick else _portion(name, portion, kept):
                total[result.what] = total[result.what] + result if result.what in total else result
        yield from total.values()


def _short(name: str) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return list(QUICK[name].run(Path(folder), 0))


def code() -> str:
    """Return the digest of the campaigns' own code and the package's version."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest(__version__, {path.name: path.read_text() for path in files})


def _portion(name: str, portion: int, kept: Path) -> list[Result]:
    target = kept / f"{name}-{portion:03d}-{code()[:12]}.json"
    if not target.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = [name, str(portion), str(target), folder]
            command = [sys.executable, str(ROOT / "tests" / "faults" / "campaigns.py"), "--portion"]
            subprocess.run([*command, *arguments], check=True, timeout=LIMIT)
    return [Result(**entry) for entry in json.loads(target.read_text())]


def dates(kept: Path = KEPT) -> str:
    """Return when the kept portions were made."""
    times = [path.stat().st_mtime for path in kept.glob(f"*-{code()[:12]}.json")]
    if not times:
        return "today"
    first, last = (dt.date.fromtimestamp(time).isoformat() for time in (min(times), max(times)))
    return first if first == last else f"{first} to {last}"


def write(results: list[Result]) -> None:
    """Replace the figures of the page."""
    lines = ["| what | tried | wrong | |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.tried} | {r.wrong:g} | {r.note} |" for r in results]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    head = f"Written by `python3 tests/faults/campaigns.py` on {machine}, {dates()}."
    body = f"{HEADING}\n\n{head}\n\n" + "\n".join(lines) + "\n"
    text = PAGE.read_text() if PAGE.is_file() else "# Reliability\n"
    pattern = re.compile(rf"{HEADING}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: body, text) if pattern.search(text) else f"{text.rstrip()}\n\n{body}"
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(PAGE)
