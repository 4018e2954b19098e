"""The measured half on workers: the same numbers for every executor, number of workers and chunk size."""

import contextlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uproot
from builders import ROOT
from injection import workers

from gammastar import facility, read, select
from gammastar.core.errors import InputFileError, PhysicsError, StoreError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.sampling import stream
from gammastar.facility.executors import plan
from gammastar.read.files import kept_open
from gammastar.select import Cuts
from gammastar.store.filesets import read_fileset
from gammastar.store.manifest import file_sha256
from gammastar.store.pairs import Source, read_chunk, split

MC = ROOT / "data" / "mock" / "na60_mc.root"


@pytest.fixture
def here():
    with facility.open_executor() as executor, kept_open():  # as in a run
        yield executor


@pytest.fixture(scope="module")
def serial():
    """Return pairs and cutflow of all events, read without workers."""
    return workers.serial()


@pytest.mark.parametrize("step", [3_000, 7_000, "300 kB", "100 MB"])
def test_pairs_do_not_depend_on_the_chunks(here, serial, tmp_path, step):
    expected, flow = serial
    found, cutflow = here.pairs(workers.job(tmp_path, step=step))
    assert workers.content(found) == workers.content(expected)
    assert [row["n"] for row in cutflow.rows()] == [row["n"] for row in flow.rows()]
    assert np.allclose(
        [row["weight"] for row in cutflow.rows()], [row["weight"] for row in flow.rows()], 1e-12
    )
    same_step, _ = workers.serial(step=step)
    assert workers.content(same_step) == workers.content(expected)


def test_boundaries_are_those_of_a_run_without_workers():
    for step in ("300 kB", 5_000):
        _, edges, _uuid = split(str(workers.DATA), workers.schema(), step)
        lengths = [len(chunk) for chunk in read.open_events(workers.DATA, workers.schema(), step=step)]
        assert np.diff(edges).tolist() == lengths


def test_simulation_with_truth(here, tmp_path):
    schema = workers.schema()
    expected = read.matched([MC], schema, _all, step="1 MB")
    job = replace(
        workers.job(tmp_path, step=20_000), kind="truth", sources=(Source(str(MC), file_sha256(MC)),)
    )
    found = MatchedPairs.concatenate(list(here.truth(job)))
    for name in set(MatchedPairs.__dataclass_fields__) - {"columns"}:
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name
    # chunks carry mass, pt and energy; a run that needs further columns reads without workers
    for name, column in found.columns.items():
        assert np.array_equal(column, expected.columns[name], equal_nan=True), name


def _all(events):
    return select.pairs(events)[0]


def test_events_without_numbers_are_numbered_through_the_files(here, tmp_path):
    schema = replace(workers.schema(), event=())
    files = workers.poisoned(tmp_path, 3, ())
    expected, _ = select.collect(read.open_events(files, schema, step=25))
    sources = tuple(Source(str(path)) for path in files)
    found, _ = here.pairs(replace(workers.job(tmp_path / "c", step=25), schema=schema, sources=sources))
    assert workers.content(found) == workers.content(expected)


def test_order_of_the_chunks_does_not_matter(here, tmp_path, monkeypatch):
    once, _ = here.pairs(workers.job(tmp_path / "a", step=4_000))
    plain = here._answers
    monkeypatch.setattr(here, "_answers", lambda *given: reversed(list(plain(*given))))
    again, _ = here.pairs(workers.job(tmp_path / "b", step=4_000))
    assert workers.content(once) == workers.content(again)


def test_a_chunk_that_comes_back_twice_is_an_error(here, tmp_path, monkeypatch):
    plain = here._answers
    monkeypatch.setattr(here, "_answers", lambda *given: [*(found := list(plain(*given))), found[0]])
    with pytest.raises(StoreError, match="twice"):
        here.pairs(workers.job(tmp_path, step=10_000))


def test_local_processes_and_tasks(tmp_path):
    def _toy(i):
        return stream(5, "toy", i).poisson(3.0, 4).tolist()

    def _fails_at_three(i):
        if i == 3:
            msg = f"point {i} is outside"
            raise PhysicsError(msg)
        return i

    table = np.arange(200_000.0)  # beyond a megabyte workers read what they need from a file
    files = set()

    def _large(i):
        return float(table[i])

    expected, flow = workers.serial(step=4_000)
    with facility.open_executor(workers=2) as executor:
        found, cutflow = executor.pairs(workers.job(tmp_path, step=4_000))
        assert workers.content(found) == workers.content(expected)
        assert cutflow.rows() == flow.rows()
        assert executor.map(_toy, range(7)) == [_toy(i) for i in range(7)]
        before = executor.crew.shared
        executor.crew.shared = lambda content: files.add(before(content)) or before(content)
        assert executor.map(_large, range(7)) == list(range(7))
        (shared,) = files
        assert isinstance(shared, Path)
        assert not shared.exists()  # gone with the last task
        with pytest.raises(PhysicsError, match="point 3"):
            executor.map(_fails_at_three, range(5))


def test_other_cut_other_input_other_code_are_never_taken_for_the_same(here, tmp_path, monkeypatch):
    job = workers.job(tmp_path / "chunks", step=5_000)
    here.pairs(job)
    first = {path.name for path in job.folder.glob("*.parquet")}
    here.pairs(replace(job, key="another cut", cuts=_narrow))
    second = {path.name for path in job.folder.glob("*.parquet")} - first
    assert len(second) == len(first)
    found, _ = here.pairs(replace(job, key="another cut", cuts=_narrow))
    assert max(part.mass.max() for part in found) < 0.9
    chunk = plan(here, job)[0]
    keys = {
        job.chunk_key(chunk),
        replace(job, sources=(Source(job.sources[0].path, "0" * 64),)).chunk_key(chunk),
    }
    monkeypatch.setattr("gammastar.store.pairs.package_digest", lambda: "other code")
    assert len(keys | {job.chunk_key(chunk)}) == 3


def _narrow():
    return Cuts(pair={"mass": (0.0, 0.9)})


def test_damaged_chunks_are_made_again(here, tmp_path):
    job = workers.job(tmp_path, step=5_000)
    expected = workers.content(here.pairs(job)[0])
    paths = sorted(job.folder.glob("*.parquet"))
    for path, damage in zip(paths, (b"", path_bytes(paths[1])[:-100], flipped(paths[2])), strict=False):
        path.write_bytes(damage)
        with pytest.raises(StoreError):
            read_chunk(path)
    found, _ = here.pairs(job)
    assert workers.content(found) == expected


def test_chunks_damaged_after_the_work_are_not_taken(here, tmp_path):
    job = workers.job(tmp_path, step=5_000)
    found, _ = here.pairs(job)
    last = job.path(plan(here, job)[-1])
    last.write_bytes(flipped(last))
    with pytest.raises(StoreError, match=last.name):
        list(found)
    found, _ = here.pairs(job)
    last.unlink()
    with pytest.raises(StoreError, match="must share this folder"):
        list(found)


def path_bytes(path):
    return path.read_bytes()


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    return bytes(data)


def test_unreadable_chunks_are_skipped_only_when_asked(tmp_path):
    files = workers.poisoned(tmp_path, 13, (3, 11))
    files[7].write_bytes(b"no ROOT file")
    sources = tuple(Source(str(path)) for path in files)
    job = replace(workers.job(tmp_path / "chunks", step=1000), sources=sources)
    with facility.open_executor(retries=1) as executor, pytest.raises(InputFileError, match="part0"):
        executor.pairs(job)
    with facility.open_executor(retries=1, skip_bad=True) as executor:
        pairs, flow = executor.pairs(job)
        assert [Path(entry["file"]).stem for entry in executor.skipped] == ["part007", "part003", "part011"]
        assert flow["events"].n == 10 * 40
        assert executor.lost_fraction() == pytest.approx(3 / 13, abs=0.03)
        assert executor.events == ["round 1 left 2 chunks", "round 2 left 2 chunks"]
    assert sum(map(len, pairs)) > 0


def test_a_changed_file_is_noticed_by_the_worker(here, tmp_path):
    path = tmp_path / "data.root"
    path.write_bytes(workers.DATA.read_bytes())
    job = workers.job(tmp_path / "chunks", step=10_000, data=path)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputFileError, match="changed or damaged"):
        here.pairs(job)


def test_fileset_is_coffeas(here, tmp_path):
    from coffea.dataset_tools.filespec import CoffeaROOTFileSpec, DataGroupSpec
    from coffea.processor import IterativeExecutor, Runner

    job = workers.job(tmp_path, step=9_000)
    expected, _ = here.pairs(job)
    path = tmp_path / "fileset_pairs.json"
    content = json.loads(path.read_text())
    spec = content["pairs"]["files"][str(workers.DATA)]
    assert CoffeaROOTFileSpec(**spec).num_entries == spec["steps"][-1][1] == 21621
    (dataset,) = DataGroupSpec(**content).root.values()
    assert dataset.files.root[str(workers.DATA)].steps == spec["steps"]
    with uproot.open({str(workers.DATA): None}) as file:
        assert spec["uuid"] == str(file.file.uuid)
    (listed,) = read_fileset(path).files
    assert (listed.path, listed.sha256) == (str(workers.DATA), file_sha256(workers.DATA))
    # a user's own Runner takes the same callable
    from coffea.nanoevents import BaseSchema

    runner = Runner(IterativeExecutor(status=False), schema=BaseSchema, chunksize=9_000)
    notes = runner({"data": {"files": {str(workers.DATA): "events"}}}, facility.DileptonPairs(job))
    assert sum(note["pairs"] for note in notes["done"]) == sum(map(len, expected))


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, as storage servers give them."""

    def do_GET(self):
        data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        ranges = self.headers.get("Range")
        low, high = 0, len(data) - 1
        if ranges:
            first, _, last = ranges.removeprefix("bytes=").partition("-")
            low, high = int(first), min(int(last or high), high)
        self.send_response(206 if ranges else 200)
        self.send_header("Accept-Ranges", "bytes")
        if ranges:
            self.send_header("Content-Range", f"bytes {low}-{high}/{len(data)}")
        self.send_header("Content-Length", str(high - low + 1))
        self.end_headers()
        self.wfile.write(data[low : high + 1])

    def do_HEAD(self):
        size = (Path(self.directory) / self.path.lstrip("/")).stat().st_size
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with _serving(_Ranges) as address:
        yield address


@contextlib.contextmanager
def _serving(kind):
    def handler(*arguments):
        return kind(*arguments, directory=str(workers.DATA.parent))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("how", "said"), [("busy", "status 503"), ("cut", "Payload"), ("missing", "no such file")]
)
def test_servers_that_do_not_give_a_file_are_named(monkeypatch, how, said):
    from gammastar import read
    from gammastar.read import files as servers
    from gammastar.store.filesets import Remote, identity, input_sha256

    class Broken(_Ranges):
        def do_HEAD(self):
            self.do_GET() if how != "cut" else super().do_HEAD()

        def do_GET(self):
            if how != "cut":
                self.send_error(503 if how == "busy" else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"root" * 100)

    monkeypatch.setattr(servers, "PAUSES", ())
    with _serving(Broken) as address:
        url = f"{address}/{workers.DATA.name}"
        for ask in (
            lambda: input_sha256(Remote(url)),
            lambda: identity(Remote(url), "uuid"),
            lambda: read.inspect(url),
        ):
            with pytest.raises(InputFileError, match=f"{url}.*{said}"):
                ask()


def test_files_over_http(here, serial, tmp_path, server):
    from gammastar.store.filesets import Remote, input_sha256

    url = f"{server}/{workers.DATA.name}"
    assert input_sha256(Remote(url)) == file_sha256(workers.DATA)
    expected, _ = serial
    job = replace(workers.job(tmp_path, step=8_000), sources=(Source(url, file_sha256(workers.DATA)),))
    found, _ = here.pairs(job)
    assert workers.content(found) == workers.content(expected)
    wrong = replace(job, sources=(Source(url, "0" * 64),))
    with pytest.raises(InputFileError, match="changed or damaged"):
        here.pairs(wrong)
    with pytest.raises(InputFileError, match="ftp"):
        Remote("ftp://somewhere/file.root")
