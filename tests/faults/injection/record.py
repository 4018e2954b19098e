"""All campaigns in one go: the numbers for the validation, the benchmark and ``docs/reliability.md``.

Full campaigns run portion by portion, each in a process of its own, and every finished portion is kept: a
campaign that is stopped goes on where it was. Portions of other code of the campaign are done again. Rows of
finished campaigns, with their day and the state of the package, stay in ``record.json``.
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
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gammastar import __version__
from gammastar.store.manifest import digest, package_digest
from injection.kills import ROOT
from injection.parts import FULL, QUICK, Result
from injection.whole import JOURNAL

PAGE = ROOT / "docs" / "reliability.md"
KEPT = ROOT / "results" / "faults"
RECORD = Path(__file__).parents[1] / "record.json"
HEADING = "## Figures"
LIMIT = 3600  # seconds for one portion


def _sum(rows: Iterable[Result]) -> list[Result]:
    total: dict[str, Result] = {}
    for row in rows:
        total[row.what] = total[row.what] + row if row.what in total else row
    return list(total.values())


def short(name: str) -> list[Result]:
    """Return the results of a short campaign."""
    with tempfile.TemporaryDirectory() as folder:
        part = QUICK[name]
        return _sum(row for portion in range(part.portions) for row in part.run(Path(folder), portion))


def campaign(name: str, *, run: bool = True, kept: Path = KEPT, record: Path = RECORD) -> list[Result]:
    """Return the results of a full campaign, and record them; portions that are kept are not run again.

    Without `run` the results are those of the portions that are kept.
    """
    chosen = [k for k in range(FULL[name].portions) if run or _target(name, k, kept).is_file()]
    done = [_portion(name, portion, kept) for portion in chosen]
    states = Counter(str(portion["state"]) for portion in done)
    parts = [f"{state} ({n} portions)" if len(states) > 1 else state for state, n in states.items()]
    when = f"{dt.date.today().isoformat()}, state {' and '.join(parts)}"
    rows = (Result(**row) for portion in done for row in portion["results"])
    results = [replace(row, when=when) for row in _sum(rows)]
    found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    found[name] = [row.__dict__ for row in results]
    record.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def recorded(record: Path = RECORD) -> dict[str, list[Result]]:
    """Return the results of the last full campaigns by name."""
    found = json.loads(record.read_text(encoding="utf-8"))
    return {name: [Result(**row) for row in rows] for name, rows in found.items()}


def state() -> str:
    """Return the digest of the package's code."""
    return package_digest()[:8]


def code(name: str) -> str:
    """Return the digest of the code and counts of a campaign, and the package's version."""
    part, here = FULL[name], Path(__file__).parent
    todo, texts = [part.module.__name__.rpartition(".")[2]], {}
    while todo:
        module = todo.pop()
        texts[module] = (here / f"{module}.py").read_text(encoding="utf-8")
        named = re.findall(r"^from injection(?:\.(\w+))? import (.*)$", texts[module], re.MULTILINE)
        todo += [one for own, all_ in named for one in (own or all_).split(", ") if one not in texts]
    counts = [cell.cell_contents for cell in getattr(part.run, "__closure__", None) or ()]
    counts = [count for count in counts if isinstance(count, int | float)]
    return digest(__version__, counts, dict(sorted(texts.items())))


def _target(name: str, portion: int, kept: Path) -> Path:
    return kept / f"{name}-{portion:03d}-{code(name)[:12]}.json"


def _portion(name: str, portion: int, kept: Path) -> dict[str, Any]:
    target = _target(name, portion, kept)
    if not target.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            arguments = [name, str(portion), str(target), folder]
            command = [sys.executable, str(ROOT / "tests" / "faults" / "campaigns.py"), "--portion"]
            try:
                ended = subprocess.run([*command, *arguments], check=False, timeout=LIMIT).returncode
                how = signal.Signals(-ended).name if ended < 0 else f"exit {ended}"
            except subprocess.TimeoutExpired:
                how = f"no end within {LIMIT} s"
            if not target.is_file():
                died = _died(f"portion {portion} of {name}", how, Path(folder), kept)
                return {"state": state(), "results": [died.__dict__]}
    return dict(json.loads(target.read_text(encoding="utf-8")))


def _died(what: str, how: str, folder: Path, kept: Path) -> Result:
    """Return that a portion's process ended, by which signal or code, and keep what it was at."""
    for path in folder.rglob(JOURNAL):
        how += f", at {shutil.copy(path, kept / f'{what} {JOURNAL}')}"
    return Result("processes of campaigns that ended before their time", 1, 1, note=f"{what}: {how}")


def write(record: Path = RECORD, page: Path = PAGE) -> None:
    """Write the recorded figures into the page."""
    lines = [
        f"| {row.what} | {row.tried} | {row.wrong:g} | {'; '.join(filter(None, (row.when, row.note)))} |"
        for rows in recorded(record).values()
        for row in rows
    ]
    table = "\n".join(["| what | tried | wrong | |", "|---|---|---|---|", *lines])
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    head = f"Written by `python3 tests/faults/campaigns.py` on {machine}; a state is the digest of the "
    body = f"{HEADING}\n\n{head}package's code.\n\n{table}\n"
    text = page.read_text(encoding="utf-8") if page.is_file() else "# Reliability\n"
    pattern = re.compile(rf"{HEADING}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: body, text) if pattern.search(text) else f"{text.rstrip()}\n\n{body}"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(page)
