"""Ours against published or exact values: ``python3 analysis/validate.py [TOPIC …] [--quick]``.

Every row is computed when this runs. The topic's part of ``docs/validation.md`` is written again; the exit
code is 1 when a row fails.
"""

from __future__ import annotations

import argparse
import importlib
import math
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "analysis"), str(ROOT / "tests")]

from _venv import reenter  # noqa: E402

TOPICS = (
    *("simulate", "read", "subtract", "unfold", "foreign", "flow", "flow_background", "predict"),
    *(
        "accept",
        "infer",
        "infer_coverage",
        "na62",
        "semivisible",
        "beam_dumps",
        "facility",
        "trust",
        "published",
    ),
    *("exchange", "edges"),
)
PAGE = ROOT / "docs" / "validation.md"
HEADER = "| quantity | ours | expected | tolerance | source | |\n|---|---|---|---|---|---|\n"


def number(value: float) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.6g}"


def verdict(row: dict) -> str:
    """Return ok, FAIL or skipped for a row with ours, expected and an absolute tolerance.

    A row that is "measured" shows what is, beside what an ideal would be; it is no gate.
    """
    if row.get("skipped"):
        return "skipped"
    if row.get("measured"):
        return "measured"
    return "ok" if abs(row["ours"] - row["expected"]) <= row["tolerance"] else "FAIL"


def line(row: dict) -> str:
    if row.get("skipped"):
        return f"| {row['quantity']} | – | {number(row['expected'])} | – | {row['skipped']} | skipped |\n"
    tolerance = "–" if row.get("measured") else f"± {number(row['tolerance'])}"
    return (
        f"| {row['quantity']} | {number(row['ours'])} | {number(row['expected'])} "
        f"| {tolerance} | {row['source']} | {verdict(row)} |\n"
    )


def write(topic: str, body: str) -> None:
    """Replace the part of one topic in the page, keeping the others."""
    text = (
        PAGE.read_text() if PAGE.is_file() else "# Validation\n\nWritten by `python3 analysis/validate.py`.\n"
    )
    part = f"\n## {topic}\n\n{body}"
    pattern = re.compile(rf"\n## {topic}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: part.rstrip("\n") + "\n", text) if pattern.search(text) else text + part
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(PAGE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--quick", action="store_true", help="leave out the long rows")
    options = parser.parse_args()
    unknown = set(options.topic) - set(TOPICS)
    if unknown:
        parser.error(f"unknown topic {sorted(unknown)}; the topics are {', '.join(TOPICS)}")
    reenter("all")
    failed = 0
    for topic in options.topic or TOPICS:
        if not (ROOT / "analysis" / "validation" / f"{topic}.py").is_file():
            continue  # a topic appears with its first row
        start = time.perf_counter()
        rows = list(importlib.import_module(f"validation.{topic}").rows(quick=options.quick))
        body = HEADER + "".join(line(row) for row in rows)
        print(f"\n{topic} ({time.perf_counter() - start:.0f} s)\n{body}", end="")
        write(topic, body)
        failed += sum(verdict(row) == "FAIL" for row in rows)
    print(f"\n{failed} row(s) fail" if failed else "\nall rows ok")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
