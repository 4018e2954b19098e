"""Files behind root://: a real XRootD server that is killed and comes back, where it is installed."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace

import awkward as ak
import pytest
import uproot
from injection import workers

from gammastar import read, select
from gammastar.core.errors import InputFileError
from gammastar.facility import open_executor
from gammastar.read import files as servers
from gammastar.store.filesets import Remote, identity, input_sha256
from gammastar.store.manifest import file_sha256
from gammastar.store.pairs import Source

INSTALLED = (
    shutil.which("xrootd")
    and importlib.util.find_spec("XRootD")
    and importlib.util.find_spec("fsspec_xrootd")
)
needs_xrootd = pytest.mark.skipif(not INSTALLED, reason="needs the xrootd server and gammastar[xrootd]")


class Server:
    """An XRootD server of one folder, to be killed and started again."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        lines = [
            f"xrd.port {self.port}",
            f"all.export {folder}",
            f"all.adminpath {folder}/admin",
            "xrd.allow host *",
        ]
        (folder / "server.cfg").write_text("\n".join([*lines, f"all.pidpath {folder}/admin"]) + "\n")
        self.start()

    def url(self, name):
        return f"root://127.0.0.1:{self.port}/{self.folder}/{name}"

    def start(self):
        who = ["-R", "nobody"] if os.geteuid() == 0 else []
        command = ["xrootd", *who, "-c", str(self.folder / "server.cfg"), "-l", str(self.folder / "log")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError(self.port)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xrootd")
    for above in (folder, *folder.parents[:3]):  # the server gives up the rights of a superuser
        if str(above).startswith(str(tmp_path_factory.getbasetemp().parent.parent)):
            above.chmod(0o755)
    shutil.copy(workers.DATA, folder / "data.root")
    with uproot.open({str(workers.DATA): None}) as file, uproot.recreate(folder / "baskets.root") as copy:
        tree = file["events"]
        names = [branch.name for branch in tree.branches if not branch.name.startswith("n")]
        kinds = {
            n: a.type.content for n, a in zip(names, ak.unzip(tree.arrays(names, entry_stop=1)), strict=True)
        }
        copy.mktree("events", kinds)
        for chunk in tree.iterate(names, step_size=1_000):
            copy["events"].extend({name: chunk[name] for name in names})
    folder.chmod(0o777)
    running = Server(folder)
    yield running
    running.kill()


def pairs_of(url, step=2_000):
    return select.collect(read.open_events([url], workers.schema(), step=step))[0]


@needs_xrootd
def test_pairs_are_those_of_the_local_file(server, tmp_path):
    """Chunks of a size in memory too: the client takes no numbers of numpy."""
    url = server.url("data.root")
    assert input_sha256(Remote(url)) == file_sha256(workers.DATA)
    assert identity(Remote(url), "uuid") == identity(workers.DATA, "uuid")
    other = url.replace("root://", "xroot://")
    assert identity(Remote(other), "uuid") == identity(Remote(url), "uuid")
    assert input_sha256(Remote(other)) == file_sha256(workers.DATA)
    expected = workers.content(workers.serial()[0])
    assert workers.content(pairs_of(other)) == expected
    for step in ("1 MB", 5_000):
        assert workers.content(pairs_of(url, step)) == expected
    job = replace(workers.job(tmp_path, step=8_000), sources=(Source(url, file_sha256(workers.DATA)),))
    with open_executor(workers=2) as executor:
        assert workers.content(executor.pairs(job)[0]) == expected


@needs_xrootd
def test_a_server_that_comes_back_is_read_on(server):
    expected, _ = workers.serial()
    chunks = read.open_events([server.url("baskets.root")], workers.schema(), step=2_000)
    parts = [select.pairs(next(chunks), None)[0]]
    server.kill()
    back = threading.Timer(3.0, server.start)
    back.start()
    begin = time.monotonic()
    parts += [select.pairs(chunk, None)[0] for chunk in chunks]
    assert time.monotonic() - begin > 2.5  # it had to wait for the server
    back.join()
    assert workers.content(parts) == workers.content(expected)


@needs_xrootd
def test_a_server_that_is_gone_is_named_in_time(server, monkeypatch):
    monkeypatch.setattr(servers, "XROOTD", 3)
    monkeypatch.setattr(servers, "LONGEST", 4.0)
    url = server.url("data.root")
    with pytest.raises(InputFileError, match="no such file"):
        pairs_of(server.url("other.root"))
    server.kill()
    begin = time.monotonic()
    with pytest.raises(InputFileError, match=r"data\.root: the server does not give it"):
        pairs_of(url)
    assert time.monotonic() - begin < 60


class Cut:
    """A way to a server that breaks off so many connections after so many bytes."""

    def __init__(self, port, after, times):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.after, self.times = port, after, times
        self.made, self.address = 0, f":{self.listener.getsockname()[1]}/"
        threading.Thread(target=self.listen, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def listen(self):
        with contextlib.suppress(OSError):  # closed, or no server behind it
            while True:
                here = self.listener.accept()[0]
                there = socket.create_connection(("127.0.0.1", self.port))
                for ends in ((here, there, False), (there, here, True)):
                    threading.Thread(target=self.passed, args=ends, daemon=True).start()

    def passed(self, source, target, answers):
        seen = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                seen += len(data)
                if answers and self.made < self.times and seen > self.after:
                    self.made += 1
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


@needs_xrootd
def test_connections_that_break_off_change_nothing(server, monkeypatch):
    expected = workers.content(workers.serial()[0])
    for after, times in ((200_000, 1), (50_000, 3), (1_000, 2)):
        with contextlib.closing(Cut(server.port, after, times)) as way:
            url = server.url("data.root").replace(f":{server.port}/", way.address)
            assert workers.content(pairs_of(url)) == expected
            assert way.made == times
    monkeypatch.setattr(servers, "XROOTD", 3)
    monkeypatch.setattr(servers, "LONGEST", 4.0)
    with contextlib.closing(Cut(server.port, 100_000, 10**9)) as way:
        with pytest.raises(InputFileError, match=r"data\.root: the server does not give it"):
            pairs_of(server.url("data.root").replace(f":{server.port}/", way.address))
        time.sleep(0.2)


@needs_xrootd
def test_files_that_cannot_be_served_are_named(server, monkeypatch):
    monkeypatch.setattr(servers, "XROOTD", 3)
    monkeypatch.setattr(servers, "LONGEST", 4.0)
    whole = (server.folder / "data.root").read_bytes()
    for name, content in (("short", whole[: len(whole) // 2]), ("empty", b""), ("text", b"text" * 1000)):
        (server.folder / f"{name}.root").write_bytes(content)
    (server.folder / "folder.root").mkdir()
    for name in ("short", "empty", "text", "folder", "missing"):
        with pytest.raises(InputFileError, match=rf"{name}\.root: (the server|cannot be read)"):
            pairs_of(server.url(f"{name}.root"))
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(InputFileError, match=r"data\.root: the server does not give it"):
        pairs_of(server.url("data.root"))
    server.process.send_signal(signal.SIGCONT)
    assert workers.content(pairs_of(server.url("data.root"))) == workers.content(workers.serial()[0])


class _Flaky:
    """A file system that fails so many times."""

    def __init__(self, failures):
        self.failures, self.asked = failures, 0

    async def _cat_ranges(self, **wanted):
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError("Operation expired")
        return [wanted]


def test_failed_requests_are_repeated_and_the_last_error_is_raised(monkeypatch):
    monkeypatch.setattr(servers, "PAUSES", (0.0, 0.0))
    for failures in range(4):
        system = _Flaky(failures)
        ranges = servers._Again(system)._cat_ranges

        def plain(system=system):
            return asyncio.run(system._cat_ranges(starts=[1]))

        if failures < 3:
            assert asyncio.run(ranges(starts=[0])) == [{"starts": [0]}]
            assert system.asked == failures + 1
            system.asked = 0
            assert servers.again("root://host//data.root", plain) == [{"starts": [1]}]
        else:
            with pytest.raises(OSError, match="expired"):
                asyncio.run(ranges(starts=[0]))
            assert system.asked == 3
            system.asked = 2
            with pytest.raises(OSError, match="expired"):
                servers.again("/data.root", plain)  # a disk is asked once
            assert system.asked == 3
