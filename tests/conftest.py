"""What all tests share."""

import functools
import gc
import logging
import sys

import forks
import pytest
from hypothesis import settings

from gammastar.core.files import tune_malloc

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


def parse_types_once():
    """Keep what awkward makes of a type's text; by itself it loads its grammar anew for each."""
    from awkward import types

    if not hasattr(types.from_datashape, "cache_info"):
        types.from_datashape = functools.lru_cache(types.from_datashape)


def pytest_configure(config):
    """Begin the processes that share the tests, if there are any, where everything is imported."""
    gc.disable()  # until tests run: nothing that is imported or collected is garbage
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        forks.share_imports()


def pytest_collection_modifyitems(items):
    """Whole runs are long, wherever they stand."""
    for item in items:
        if item.path.parent.name in {"integration", "golden"}:
            item.add_marker("long")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """Make the copy of this process of which commands are forks, where tests are run."""
    shares_work = getattr(session.config.option, "numprocesses", None)
    if hasattr(session.config, "workerinput") or not shares_work:
        if hasattr(session.config, "workerinput"):  # all of the package is needed sooner or later
            forks.imported()
        if "pyhf" in sys.modules:
            resolve_once()
        if "awkward" in sys.modules:
            parse_types_once()
        gc.enable()
        gc.freeze()  # what was imported and collected is no garbage: nobody looks at it again
        gc.set_threshold(50_000, 20, 50)
        tune_malloc()
        logging.root.setLevel(logging.INFO)  # once: `log_level` sets it for each phase of each test
        forks.pools.open()
        forks.server.open()


def pytest_sessionfinish():
    """End it."""
    forks.server.close()
    forks.pools.close()
    gc.collect(1)
    gc.freeze()  # pytest looks for garbage once more: in what the last tests left, not in all that is there


def pytest_unconfigure():
    """End what the processes that shared the tests are forks of."""
    forks.template.close()
