"""Files on servers: how long one is waited for, and how often it is asked again."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from uproot.source.fsspec import FSSpecSource

if TYPE_CHECKING:
    import aiohttp


T = TypeVar("T")

BUSY = (429, 500, 502, 503, 504)
PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before each further request
CONNECT = 20  # seconds to wait for a connection
SILENT = 60  # seconds without a byte after which a request is given up
XROOTD = 30  # seconds for a request to an XRootD server; the client connects again by itself within them
LONGEST = 60.0  # seconds after which a request that failed is not repeated
# what no repetition heals: invalid or forbidden requests, missing files, no files, hosts without an address
FINAL = re.compile(r"\[(3000|3001|3002|3006|3010|3011|3013|3015|3016)\]|Invalid address")
# The client waits 120 s after a connection that failed before it tries another, and 1800 s before a server
# that failed five times is asked again. What the user's environment sets (XRD_…) stays.
WINDOWS = {"ConnectionWindow": 3, "StreamErrorWindow": 1}


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


def _xrootd(path: str) -> bool:
    return path.startswith(("root://", "xroot://"))


def address(path: str) -> str:
    """Return a URL as fsspec knows it: ``xroot`` is another name of ``root``."""
    return path.removeprefix("x") if path.startswith("xroot://") else path


def remote_options(path: str) -> dict[str, Any]:
    """Return the options with which fsspec opens a path; none for local files."""
    if _xrootd(path):
        _shorten()
        return {"timeout": XROOTD}
    return {"get_client": _client} if path.startswith(("http://", "https://")) else {}


@functools.cache
def _shorten() -> None:
    """Have the XRootD client of this process connect again soon, where it is installed."""
    try:
        client = importlib.import_module("XRootD.client")
    except ImportError:
        return  # fsspec says what to install
    for name, seconds in WINDOWS.items():
        if f"XRD_{name.upper()}" not in os.environ:
            client.EnvPutInt(name, seconds)


def source_options(path: str) -> dict[str, Any]:
    """Return the options with which uproot opens a path; none for local files."""
    return remote_options(path) | ({"handler": XRootDSource} if _xrootd(path) else {})


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the client of HTTP raises that is no OSError, once it is loaded."""
    loaded = sys.modules.get("aiohttp")
    return () if loaded is None else (loaded.ClientError,)


def answered(error: BaseException | None) -> int | None:
    """Return the status of HTTP behind an error: fsspec calls every refusal a missing file."""
    while error is not None:
        if isinstance(error, client_errors()) and hasattr(error, "status"):
            return int(error.status)
        error = error.__cause__ or error.__context__
    return None


def again(path: str, request: Callable[[], T]) -> T:
    """Return what a request to a server returns, asked again after an OSError; of files on disk once."""
    begin = time.monotonic()
    for pause in PAUSES if _xrootd(path) else ():
        try:
            return request()
        except OSError as error:
            if FINAL.search(str(error)) or time.monotonic() - begin > LONGEST:
                raise
        time.sleep(pause)
    return request()


class XRootDSource(FSSpecSource):  # type: ignore[misc]  # uproot has no types
    """Bytes of a file behind ``root://``: places as plain integers, failed requests again.

    Notes
    -----
    A client that lost its server connects again within one request; what comes back as an error here is a
    server that was away for longer, or that answered with one.
    """

    def __init__(self, file_path: str, **options: Any) -> None:
        super().__init__(address(file_path), **options)

    def chunk(self, start: int, stop: int) -> Any:
        """Return one range of bytes."""
        plain = super().chunk
        return again(self._file_path_orig, lambda: plain(int(start), int(stop)))

    def chunks(self, ranges: list[tuple[int, int]], notifications: Any) -> Any:
        """Return several ranges of bytes, which fill in the background."""
        found = [(int(start), int(stop)) for start, stop in ranges]
        return super().chunks(found, notifications)

    def _open(self) -> None:
        super()._open()
        self._fs: Any = _Again(self._fs)


class _Again:
    """A file system whose lists of ranges are asked for again after an error."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    async def _cat_ranges(self, **wanted: Any) -> Any:
        begin = time.monotonic()
        for pause in PAUSES:
            try:
                return await self._system._cat_ranges(**wanted)
            except OSError as error:
                if FINAL.search(str(error)) or time.monotonic() - begin > LONGEST:
                    raise
            await asyncio.sleep(pause)
        return await self._system._cat_ranges(**wanted)
