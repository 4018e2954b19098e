"""Files behind http and https: a server that is busy is asked again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

__all__ = ["remote_options"]

BUSY = (429, 500, 502, 503, 504)
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before each further request
CONNECT = 20  # seconds to wait for a connection
SILENT = 60  # seconds without a byte after which a request is given up


async def _patient(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """Send a request again while the server says that it is busy; the last answer is returned as it is."""
    for pause in PAUSES:
        response: aiohttp.ClientResponse = await handler(request)
        if response.status not in BUSY:
            return response
        response.release()
        await asyncio.sleep(pause)
    last: aiohttp.ClientResponse = await handler(request)
    return last


async def _client(**options: Any) -> aiohttp.ClientSession:
    import aiohttp

    options.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENT))
    return aiohttp.ClientSession(middlewares=(_patient,), **options)


def remote_options(path: str) -> dict[str, Any]:
    """Return the options with which uproot and fsspec open a path; none for local files.

    Examples
    --------
    >>> remote_options("data.root"), list(remote_options("https://example.org/data.root"))
    ({}, ['get_client'])
    """
    return {"get_client": _client} if path.startswith(("http://", "https://")) else {}
