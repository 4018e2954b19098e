"""What all tests share."""

import gc
import multiprocessing
import sys

import forks
import pytest
from hypothesis import settings
from loky.backend.context import set_start_method

PRELOADED = ["distributed", "gammastar.facility", "gammastar.flow"]

settings.register_profile("patient", deadline=None)  # other work on the machine is no failure
settings.load_profile("patient")


def resolve_once():
    """Look up a reference in pyhf's schemas once; by itself it searches all of them in each validation."""
    from jsonschema.validators import _RefResolver
    from pyhf.schema import variables

    home, found, look_up = variables.schemas.as_uri(), {}, _RefResolver.resolve_from_url

    def resolve_from_url(self, url):
        if not url.startswith(home):
            return look_up(self, url)
        if url not in found:
            found[url] = look_up(self, url)
        return found[url]

    _RefResolver.resolve_from_url = resolve_from_url


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Make the copy of this process of which commands are forks, where tests are run."""
    shares_work = getattr(session.config.option, "numprocesses", None)
    if hasattr(session.config, "workerinput") or not shares_work:
        if hasattr(session.config, "workerinput"):  # all of the package is needed sooner or later
            forks.imported()
        if "pyhf" in sys.modules:
            resolve_once()
        gc.freeze()  # what was imported and collected is no garbage: nobody looks at it again
        gc.set_threshold(10_000, 20, 20)
        forks.server.open()
        # pools of this process start from one that has imported the package, those of commands as ever
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        set_start_method("forkserver", force=True)


def pytest_sessionfinish():
    """End it."""
    forks.server.close()
