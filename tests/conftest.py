"""What all tests share."""

import multiprocessing

import forks
import pytest
from hypothesis import settings
from loky.backend.context import set_start_method

PRELOADED = ["distributed", "gammastar.facility", "gammastar.flow"]

settings.register_profile("patient", deadline=None)  # other work on the machine is no failure
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Make the copy of this process of which commands are forks, where tests are run."""
    shares_work = getattr(session.config.option, "numprocesses", None)
    if hasattr(session.config, "workerinput") or not shares_work:
        forks.server.open()
        # pools of this process start from one that has imported the package, those of commands as ever
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        set_start_method("forkserver", force=True)


def pytest_sessionfinish():
    """End it."""
    forks.server.close()
