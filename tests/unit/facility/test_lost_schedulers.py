"""A client of Dask that gave its scheduler up: one error of ours, whatever is asked."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from injection import hangs

from gammastar.core.errors import StoreError
from gammastar.facility.crew import DaskCrew
from gammastar.facility.processor import warm


@pytest.mark.parametrize("ask", [DaskCrew._begin, DaskCrew.check, lambda crew: crew.everywhere(warm)])
def test_a_scheduler_that_died_in_the_middle_is_an_error_of_ours(ask):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    there, here = SimpleNamespace(address="tcp://there"), SimpleNamespace(asyncio_loop=loop)
    client = SimpleNamespace(scheduler=there, status="running", loop=here)
    try:
        crew = DaskCrew(client, hangs.SHORT)
        client.scheduler, client.status = None, "closed"  # as Dask leaves it
        with pytest.raises(StoreError, match=r"scheduler tcp://there has closed.*--resume"):
            ask(crew)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
