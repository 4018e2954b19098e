"""One job in a process of its own: ``_job.py run|reinterpret ARGUMENT …`` prints its CPU as JSON.

``total`` is that of the process and all that it started [s], ``first`` that until there was a page with a
figure, ``memory`` the largest resident memory of any of them [MB].
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

STARTED = time.monotonic()


def _spent() -> float:
    """Return the CPU of this process and of all others that it started, those at work included [s]."""
    import psutil

    used = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        try:
            used += sum(child.cpu_times()[:2])
        except psutil.Error:  # it ended just now, and counts among the finished ones
            continue
    return float(used)


def main(kind: str, *arguments: str) -> dict[str, float]:
    first: list[float] = []

    def tell(stage: str, fraction: float | None, text: str) -> None:  # noqa: ARG001 - as a run calls it
        if not first and (Path(arguments[-1]) / "report.html").is_file():
            first.append(_spent())

    from gammastar.core.files import skip_numba_entrypoints, tune_malloc

    tune_malloc()  # all three as the command line does
    gc.set_threshold(10_000, 10, 100)
    skip_numba_entrypoints()
    if kind == "run":
        from gammastar.pipeline.run import run

        run(Path(arguments[0]), output=Path(arguments[1]), tell=tell)
    else:
        from gammastar.results.start import reinterpret

        record, detector, output = map(Path, arguments)
        reinterpret(record, detector=detector, output=output, tell=tell)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(os.times()[:4])
    return {
        "total": total,
        "first": (first or [total])[0],
        "memory": max(peaks) / 1024,
        "wall": time.monotonic() - STARTED,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
