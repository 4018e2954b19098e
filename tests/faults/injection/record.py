"""All campaigns in one go: the numbers for the validation, the benchmark and ``docs/reliability.md``.

Full campaigns run portion by portion, each in a process of its own, and every finished portion is kept: a
campaign that is stopped goes on where it was. Portions of other campaign code are done again.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gammastar import __version__
from gammastar.store.manifest import digest
from injection.kills import ROOT
from injection.parts import FULL, QUICK, Result
from injection.whole import JOURNAL

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
    """Return the digest of the campaigns' own code, without this file, and the package's version."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name != Path(__file__).name)
    return digest(__version__, {path.name: path.read_text() for path in files})


def _portion(name: str, portion: int, kept: Path) -> list[Result]:
    target = kept / f"{name}-{portion:03d}-{code()[:12]}.json"
    if not target.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = [name, str(portion), str(target), folder]
            command = [sys.executable, str(ROOT / "tests" / "faults" / "campaigns.py"), "--portion"]
            ended = subprocess.run([*command, *arguments], check=False, timeout=LIMIT).returncode
            if ended:
                return [_died(f"portion {portion} of {name}", ended, Path(folder), kept)]
    return [Result(**entry) for entry in json.loads(target.read_text())]


def _died(what: str, ended: int, folder: Path, kept: Path) -> Result:
    """Return that a portion's process ended, by which signal or code, and keep what it was at."""
    how = signal.Signals(-ended).name if ended < 0 else f"exit {ended}"
    for path in folder.rglob(JOURNAL):
        how += f", at {shutil.copy(path, kept / f'{what} {JOURNAL}')}"
    return Result("processes of campaigns that ended before their time", 1, 1, note=f"{what}: {how}")


def _rows(text: str) -> dict[str, str]:
    """Return the rows of the page's table by their first column."""
    part = text.partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def write(results: list[Result]) -> None:
    """Replace the figures of the page that these results give; the others stay."""
    text = PAGE.read_text() if PAGE.is_file() else "# Reliability\n"
    today = dt.date.today().isoformat()
    notes = {r.what: "; ".join(filter(None, (today, r.note))) for r in results}
    rows = _rows(text) | {
        r.what: f"| {r.what} | {r.tried} | {r.wrong:g} | {notes[r.what]} |" for r in results
    }
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    head = f"Written by `python3 tests/faults/campaigns.py` on {machine}, last on {today}; rows with a day "
    head += "are of it, the others of 2026-11-24 or before."
    table = "\n".join(["| what | tried | wrong | |", "|---|---|---|---|", *rows.values()])
    body = f"{HEADING}\n\n{head}\n\n{table}\n"
    pattern = re.compile(rf"{HEADING}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: body, text) if pattern.search(text) else f"{text.rstrip()}\n\n{body}"
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(PAGE)
