"""One job in a process of its own: ``_job.py run|reinterpret ARGUMENT …`` prints its CPU as JSON.

``total`` is that of the process and all that it started [s], ``memory`` the largest resident memory of any of
them [MB].
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


def main(kind: str, *arguments: str) -> dict[str, float]:
    from gammastar.core.files import skip_numba_entrypoints, tune_malloc

    tune_malloc()  # all three as the command line does
    gc.set_threshold(10_000, 10, 100)
    skip_numba_entrypoints()
    if kind == "run":
        from gammastar.pipeline.run import run

        run(Path(arguments[0]), output=Path(arguments[1]))
    else:
        from gammastar.results.start import reinterpret

        record, detector, output = map(Path, arguments)
        reinterpret(record, detector=detector, output=output, tell=lambda *_: None)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(os.times()[:4])
    return {
        "total": total,
        "memory": max(peaks) / 1024,
        "wall": time.monotonic() - STARTED,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
