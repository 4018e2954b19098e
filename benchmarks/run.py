"""Speed claims, each a ratio measured side by side in one run: ``python3 benchmarks/run.py [TOPIC …]``.

The topic's part of ``benchmarks/results.md`` is written again, with machine and versions; the exit code is 1
when a row falls short.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("analysis", "benchmarks", "tests")]

from _venv import reenter  # noqa: E402

PAGE = ROOT / "benchmarks" / "results.md"
HEADER = "| claim | measured | goal | |\n|---|---|---|---|\n"


def write(topic: str, body: str) -> None:
    """Replace the part of one topic in the page, keeping the others."""
    text = PAGE.read_text() if PAGE.is_file() else "# Benchmarks\n\nWritten by `python3 benchmarks/run.py`.\n"
    part = f"\n## {topic}\n\n{body.rstrip()}\n"
    pattern = re.compile(rf"\n## {topic}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: part, text) if pattern.search(text) else text + part
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(PAGE)


def verdict(row: dict) -> str:
    higher = row.get("higher", True)
    good = row["measured"] >= row["goal"] if higher else row["measured"] <= row["goal"]
    return "ok" if good else "FAIL"


def line(row: dict) -> str:
    sign = "≥" if row.get("higher", True) else "≤"
    measured = f"{row['measured']:.3g}{row.get('unit', '×')}"
    return f"| {row['claim']} | {measured} | {sign} {row['goal']:g} | {verdict(row)} |\n"


def machine() -> str:
    from gammastar.store.manifest import versions

    found = ", ".join(f"{name} {value}" for name, value in versions().items() if name != "platform")
    return f"{platform.machine()}, {os.cpu_count()} cores; {found}"


def main() -> int:
    topics = sorted(path.stem for path in (ROOT / "benchmarks" / "topics").glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=", ".join(topics))
    parser.add_argument("--full", action="store_true", help="also the long comparisons")
    options = parser.parse_args()
    unknown = set(options.topic) - set(topics)
    if unknown:
        parser.error(f"unknown topic {sorted(unknown)}; the topics are {', '.join(topics)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    reenter("all")
    failed = 0
    for topic in options.topic or topics:
        rows = importlib.import_module(f"topics.{topic}").rows
        arguments = {"full": True} if options.full and "full" in inspect.signature(rows).parameters else {}
        lines, more = [], []
        for row in rows(**arguments):
            lines.append(line(row))
            more += [row["more"]] if "more" in row else []
            failed += verdict(row) == "FAIL"
            print(f"{topic}: {lines[-1]}", end="", flush=True)
        if lines:  # a topic whose device or peer is not here keeps its rows
            write(topic, "\n".join([f"{machine()}\n\n{HEADER}{''.join(lines)}", *more]))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
