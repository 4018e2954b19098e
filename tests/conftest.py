"""What all tests share."""

import forks
import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # other work on the machine is no failure
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Make the copy of this process of which commands are forks, where tests are run."""
    shares_work = getattr(session.config.option, "numprocesses", None)
    if hasattr(session.config, "workerinput") or not shares_work:
        forks.server.open()


def pytest_sessionfinish():
    """End it."""
    forks.server.close()
