"""Filesets of coffea and lists of files: every statement is used or refused, every file counts once."""

import gzip
import http.server
import json
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
import uproot
from builders import ROOT

from gammastar.core.errors import InputFileError
from gammastar.store.filesets import (
    UNREADABLE,
    Given,
    Remote,
    alike,
    check_listed,
    given_files,
    identities,
    identity,
    input_sha256,
    read_fileset,
    split_name,
)
from gammastar.store.manifest import file_sha256

DATA = ROOT / "data" / "mock" / "na60_data.root"
with uproot.open(DATA) as _file:
    ENTRIES, UUID = _file["events"].num_entries, str(_file.file.uuid)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.root", "b.root"):
        shutil.copy(DATA, tmp_path / name)
    return tmp_path


def fileset(folder, content, name="fileset.json"):
    path = folder / name
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def file(**changes):
    steps = [[0, 5], [5, ENTRIES]]
    return {"object_path": "events", "steps": steps, "num_entries": ENTRIES, "uuid": UUID} | changes


def test_several_datasets_need_a_choice(folder):
    """Data and simulated top pairs of one fileset are no sample."""
    fileset(folder, {"data": {"files": {"a.root": "events"}}, "ttbar": {"files": {"b.root": "events"}}})
    with pytest.raises(
        InputFileError, match=r"2 datasets: 'data', 'ttbar'; name one, as in 'fileset.json:data"
    ):
        given_files(["fileset.json"], folder)
    found = given_files(["fileset.json:ttbar"], folder)
    assert found.files == (folder / "b.root",)
    assert list(found.datasets) == ["fileset.json:ttbar"]
    with pytest.raises(InputFileError, match="no dataset 'wjets'; it has 'data', 'ttbar'"):
        given_files(["fileset.json:wjets"], folder)


def test_packed_filesets_and_patterns(folder):
    fileset(folder, {"data": {"files": {"?.root": "events"}, "metadata": {"year": 2018}}}, "one.json.gz")
    fileset(folder, {"data": ["a.root"]}, "two.json.gz")
    found = given_files(["*.json.gz:data", str(folder / "a*.root")], folder)
    assert found.files == (folder / "a.root", folder / "b.root")
    assert found.datasets["one.json.gz:data"] == {"year": 2018}
    assert split_name("https://host/a.json:data") == ("https://host/a.json:data", "")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"files": {"a.root": file(steps=[[0, 5]])}}, "choose 5 entries of"),
        ({"files": {"a.root": file(steps=[[0, 5], [9, ENTRIES]])}}, "part of a file is not read"),
        ({"files": {"a.root": file(steps=[[0, 9], [5, ENTRIES]])}}, "part of a file is not read"),
        ({"files": {"a.root": file(steps=[])}}, "choose 0 entries"),
        ({"files": {"a.root": file(steps=[["0", 5]])}}, "no list of"),
        ({"files": {"a.root": file(object_path="Events")}}, "tree 'Events', the schema reads 'events'"),
        ({"files": {"a.root": "other"}}, "tree 'other'"),
        ({"files": ["a.root"], "treename": "other"}, "tree 'other'"),
        ({"files": {"a.root": file(num_entries=True)}}, "no number of entries"),
        ({"files": {"a.root": file(num_entries=1e3)}}, "no number of entries"),
        ({"files": {"a.root": file(weight=2.0)}}, "unknown keys 'weight'"),
        ({"files": {"a.root": 3}}, "no name of a tree"),
        ({"files": {"a.root": "events"}, "redirector": "x"}, "unknown keys 'redirector'"),
        ({"files": {"a.root": "events"}, "format": "parquet"}, "'parquet' is not read"),
        ({"files": {"a.root": "events"}, "metadata": {"xsec": 831.8}}, "'xsec' would scale"),
        ({"files": {"a.root": "events"}, "metadata": {"sum_of_weights": 2}}, "would scale"),
        ({"files": {"a.root": "events"}, "metadata": [1]}, "no mapping"),
        ({"files": {"?.root": file()}}, "stands for 2 files"),
        ({"files": []}, "names no file"),
        ({"files": ["a.root", "a.root"]}, "names twice: 'a.root'"),
        ({"files": {"none.root": "events"}}, "none.root: no such file"),
    ],
)
def test_what_a_fileset_says_is_kept_or_refused(folder, content, match):
    fileset(folder, {"data": content})
    with pytest.raises(InputFileError, match=match) as error:
        given_files(["fileset.json"], folder, tree="events")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"num_entries": 7, "steps": None}, f"has {ENTRIES} entries, .*dataset 'data' has 7"),
        ({"num_entries": None, "steps": [[0, 7]]}, "has 7"),
        ({"uuid": "0" * 36}, f"has UUID {UUID}"),
    ],
)
def test_entries_and_uuid_are_compared_with_the_file(folder, wrong, match):
    sound = given_files(
        [fileset(folder, {"data": {"files": {"a.root": file()}}}).name], folder, tree="events"
    )
    assert identities(sound, "sha256", tree="events") == (file_sha256(DATA),)
    fileset(folder, {"data": {"files": {"a.root": file(**wrong)}}})
    found = given_files(["fileset.json"], folder, tree="events")
    with pytest.raises(InputFileError, match=match):
        identities(found, "sha256", tree="events")
    sums = {"sha256": {"a.root": "1" * 64}}
    fileset(folder, {"data": {"files": {"a.root": file()}, "metadata": sums}})
    with pytest.raises(InputFileError, match="changed or damaged"):
        identities(given_files(["fileset.json"], folder), "sha256")


def test_forty_thousand_files_are_quick(tmp_path):
    path = fileset(tmp_path, {"data": {"files": {f"run{i}.root": "events" for i in range(40_000)}}})
    start = time.process_time()
    assert len(read_fileset(path).files) == 40_000
    assert time.process_time() - start < 3.0


def test_an_unpacked_fileset_is_bounded(tmp_path):
    """Four gigabytes of blanks are a few megabytes when they are packed."""
    blank = gzip.compress(b" " * (1 << 24), 1)
    (tmp_path / "big.json.gz").write_bytes(blank * 17)
    with pytest.raises(InputFileError, match="larger than 256 MB"):
        read_fileset(tmp_path / "big.json.gz")
    (tmp_path / "cut.json.gz").write_bytes(blank[:-100])
    with pytest.raises(InputFileError, match="is not a fileset"):
        read_fileset(tmp_path / "cut.json.gz")


def test_a_file_counts_once(folder):
    """The same file through a link, a hard link and a way round is one file; a copy is refused."""
    (folder / "d").mkdir()
    (folder / "link.root").symlink_to("a.root")
    (folder / "hard.root").hardlink_to(folder / "a.root")
    found = given_files(["a.root", "link.root", "d/../a.root", "hard.root", "./a.root", "[a]*.root"], folder)
    assert found.files == (folder / "a.root",)
    both = given_files(["?.root"], folder).files
    with pytest.raises(InputFileError, match=r"a\.root and .*b\.root have the same content"):
        alike(both, identities(Given(both), "sha256"))


def test_missing_files_can_be_skipped(folder):
    (folder / "gone.root").symlink_to("nowhere.root")
    names = ["a.root", "none.root", "gone.root", "x*.root", "http://127.0.0.1:9/dead.root"]
    found = given_files(names, folder, missing=True)
    shas = identities(found, "sha256", skip=True)
    assert shas == (file_sha256(DATA), *[UNREADABLE] * 4)
    alike(found.files, shas)
    for name in names[1:]:
        with pytest.raises(InputFileError, match=name.replace("*", r"\*")):
            identities(given_files([name], folder), "sha256")


LISTS = {
    "plain": "{sha}  {name}",
    "binary": "{sha} *{name}",
    "dot": "{sha}  ./{name}",
    "round": "{sha}  x/../{name}",
    "tab": "{sha}\t{name}",
    "absolute": "{sha}  {folder}/{name}",
    "bsd": "SHA256 ({name}) = {sha}",
    "bsd folder": "SHA256 (./{name}) = {sha}",
    "carriage return": "# made by hand\r\n{sha}  {name}\r",
    "byte order mark": "\ufeff{sha}  {name}",
    "capitals": "{SHA}  {name}",
}


@pytest.mark.parametrize("kind", LISTS)
def test_every_way_of_listing_a_digest(folder, kind):
    path, good = folder / "a.root", file_sha256(DATA)
    (folder / "x").mkdir()

    def listed(sha):
        values = {"sha": sha, "SHA": sha.upper(), "name": "a.root", "folder": folder}
        (folder / "SHA256SUMS").write_text(LISTS[kind].format(**values) + "\n")

    listed("0" * 64)
    with pytest.raises(InputFileError, match=f"SHA-256 is {good}, expected {'0' * 64}"):
        check_listed([path], [good])
    listed(good + " ")  # another length: the cache of lists sees it
    listed(good)
    check_listed([path], [good])


def test_lists_of_other_folders_names_and_lines(folder):
    good = file_sha256(DATA)
    (folder / "in").mkdir()
    odd = folder / "in" / "new\nline.root"
    shutil.copy(DATA, odd)
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  in/c.root\n\\{'1' * 64}  in/new\\nline.root\n")
    shutil.copy(DATA, folder / "in" / "c.root")
    for path in (folder / "in" / "c.root", odd):
        with pytest.raises(InputFileError, match="changed or damaged"):
            check_listed([path], [good])
    (folder / "SHA256SUMS").write_text(f"{good[:40]}  a.root\n")
    with pytest.raises(InputFileError, match=r"line 1: .* is no"):
        check_listed([folder / "a.root"], [good])
    (folder / "SHA256SUMS").write_text(f"{good}  a.root\n{'0' * 64}  ./a.root\n")
    with pytest.raises(InputFileError, match=r"line 2: './a.root' has another SHA-256 than before"):
        check_listed([folder / "a.root"], [good])


@contextmanager
def served(folder, busy):
    """Serve files with byte ranges; the first `busy` answers are 503. Yields the address and a tally."""
    tally = {"busy": busy, "bytes": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, body):
            if tally["busy"] > 0:
                tally["busy"] -= 1
                self.send_error(503)
                return
            data = (folder / self.path.lstrip("/")).read_bytes()
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
            if body:
                tally["bytes"] += high + 1 - low
                self.wfile.write(data[low : high + 1])

        def do_GET(self):
            self.answer(True)

        def do_HEAD(self):
            self.answer(False)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", tally
        running.shutdown()


def test_a_busy_server_is_asked_again(folder):
    with served(folder, busy=2) as (address, tally):
        url = Remote(f"{address}/a.root")
        assert input_sha256(url) == file_sha256(DATA)
        tally["busy"] = 2
        assert identity(url, "uuid") == f"uuid:{UUID}:{DATA.stat().st_size}"
        tally["busy"] = 2
        from gammastar import read
        from gammastar.config import read_toml

        schema = read.Schema.from_mapping(read_toml(DATA.parents[2] / "analysis/na60_dimuon/schema.toml"))
        assert sum(map(len, read.open_events(str(url), schema))) == ENTRIES


def test_a_uuid_reads_little(folder):
    with served(folder, busy=0) as (address, tally):
        identity(Remote(f"{address}/a.root"), "uuid")
        assert tally["bytes"] < 0.2 * DATA.stat().st_size
