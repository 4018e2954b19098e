"""The long fault campaigns: ``python3 tests/faults/campaigns.py [NAME …]``; their figures go into the docs.

Every portion is kept in ``results/faults/``, so that a stopped campaign goes on where it was; ``--fresh``
starts those named again. The exit code is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT / "analysis")]

from _venv import reenter  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help="Only these campaigns.")
    parser.add_argument("--fresh", action="store_true", help="Forget the finished portions.")
    parser.add_argument("--kept", action="store_true", help="Run nothing; record what is kept.")
    parser.add_argument("--portion", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if not options.portion:
        reenter("all")
    from injection import parts, record

    if options.portion:
        faulthandler.enable()
        name, portion, target, folder = options.portion
        parts.main(name, int(portion), Path(target), Path(folder), record.state())
        return 0
    unknown = set(options.name) - set(parts.FULL)
    if unknown:
        parser.error(f"unknown campaign {sorted(unknown)}; there are {', '.join(parts.FULL)}")
    broken = False
    for name in options.name or parts.FULL:
        for path in record.KEPT.glob(f"{name}-*.json") if options.fresh else ():
            path.unlink()
        for result in record.campaign(name, run=not options.kept):
            broken |= result.counted and result.wrong > result.allowed
            sys.stdout.write(f"{result.what}: {result.wrong:g} of {result.tried} {result.note}\n")
            sys.stdout.flush()
        record.write()
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
