"""Nothing lost, nothing doubled, nothing silent: damaged files, killed runs and workers, malformed inputs.

Full counts are those of the last campaigns (``tests/faults/campaigns.py``), hours of work together, with
their day and the state of the package; campaigns that nobody ran yet are run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "faults"))

from injection import record

SOURCE = "count, 0 is the promise"


def rows(*, quick: bool) -> Iterator[dict]:
    found = {} if quick else record.recorded()
    for name in record.QUICK if quick else record.FULL:
        for result in record.short(name) if quick else found.get(name) or record.campaign(name):
            note = f"; {result.note}" if not result.counted else ""
            yield {
                "quantity": f"{result.what} ({result.tried} tried{note})",
                "ours": result.wrong,
                "expected": 0.0,
                "tolerance": result.allowed,
                "source": "; ".join(filter(None, (SOURCE, result.when))),
                "measured": not result.counted,
            }
    if not quick:
        record.write()
