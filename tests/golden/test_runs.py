"""The numbers of the small jobs are those that are stored; what moves them is announced in the changelog.

One of them, watched, tells through how many files a signal yield runs.
"""

import importlib.util
import inspect
import json
import sys
from pathlib import Path

import pytest

import gammastar
from gammastar.pipeline.run import STAGES

FLOOR = 1e-12  # sums that are rounding alone differ with the number of threads
RTOL = 1e-6  # processors add in another order, and fits end somewhere else in their tolerance

_spec = importlib.util.spec_from_file_location("golden_runs", Path(__file__).with_name("runs.py"))
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)


SOURCE = Path(gammastar.__file__).parent
PLUMBING = ("config", "pipeline", "store")


@pytest.fixture(scope="module", params=runs.PINNED)
def job(request, tmp_path_factory):
    """Run a job; return its name, its folder and the files whose functions ran from the spectrum on."""
    code = set()

    def hook(frame, event, _):
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # neither a module nor a class
            code.add(frame.f_code)

    def watched(stage):
        def run(*args):
            sys.setprofile(hook)
            try:
                stage(*args)
            finally:
                sys.setprofile(None)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in ("predict", "accept", "infer"):
            patch.setitem(STAGES, name, watched(STAGES[name]))
        folder = runs.made(request.param, tmp_path_factory.mktemp(request.param))
    paths = {Path(one.co_filename) for one in code}
    return request.param, folder, {p.relative_to(SOURCE) for p in paths if p.is_relative_to(SOURCE)}


@pytest.mark.parametrize("job", ["stored"], indirect=True)
def test_a_signal_yield_runs_through_forty_files_at_most(job):
    """Steering, stages and what is written come on top; this job has a measured spectrum and one signal."""
    _, _, files = job
    physics = sorted(str(file) for file in files if len(file.parts) > 1 and file.parts[0] not in PLUMBING)
    assert 20 < len(physics) <= 40, "\n".join(physics)


def test_numbers_are_the_stored_ones(job):
    name, folder, _ = job
    stored = json.loads(runs.NUMBERS.read_text())[name]
    found = runs.sums(folder)
    assert set(found) == set(stored)
    moved = [
        f"{item}: {values} for {stored[item]}"
        for item, values in found.items()
        if values != pytest.approx(stored[item], rel=RTOL, abs=max(RTOL * stored[item][2], FLOOR))
    ]
    assert not moved, (
        "python3 tests/golden/runs.py --pin, and the changelog, if these should move:\n" + "\n".join(moved)
    )
