"""Speed claims, each a ratio measured side by side in one run: ``python3 benchmarks/run.py [TOPIC …]``.

Writes ``benchmarks/results.md`` with machine and versions; the exit code is 1 when a row falls short.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "analysis"), str(ROOT / "benchmarks")]

from _venv import reenter  # noqa: E402

HEADER = "| topic | claim | measured | goal | |\n|---|---|---|---|---|\n"


def main() -> int:
    topics = sorted(path.stem for path in (ROOT / "benchmarks" / "topics").glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=", ".join(topics))
    options = parser.parse_args()
    unknown = set(options.topic) - set(topics)
    if unknown:
        parser.error(f"unknown topic {sorted(unknown)}; the topics are {', '.join(topics)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    reenter("all")
    from gammastar.store.manifest import versions

    lines, failed = [], 0
    for topic in options.topic or topics:
        for row in importlib.import_module(f"topics.{topic}").rows():
            good = (
                row["measured"] >= row["goal"] if row.get("higher", True) else row["measured"] <= row["goal"]
            )
            sign = "≥" if row.get("higher", True) else "≤"
            failed += not good
            lines.append(
                f"| {topic} | {row['claim']} | {row['measured']:.3g}{row.get('unit', '×')} "
                f"| {sign} {row['goal']:g} | {'ok' if good else 'FAIL'} |\n"
            )
            print(lines[-1], end="", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores; " + ", ".join(
        f"{name} {value}" for name, value in versions().items() if name != "platform"
    )
    page = ROOT / "benchmarks" / "results.md"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(
        f"# Benchmarks\n\nWritten by `python3 benchmarks/run.py`. {machine}\n\n{HEADER}{''.join(lines)}"
    )
    temporary.replace(page)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
