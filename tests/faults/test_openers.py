"""Who opens files: what comes from elsewhere is a regular file of bounded size, or an error at once."""

import ast
import os
import re

import numpy as np
import pytest
import uproot
from builders import ROOT
from injection.adversarial import limited

from gammastar.core.errors import GammastarError
from gammastar.core.files import read_columns, regular_file
from gammastar.infer import read_likelihood
from gammastar.physics.hadrons import TabulatedFormFactor
from gammastar.read.published import table_names
from gammastar.results.events import _column
from gammastar.results.show import verify_results
from gammastar.store.folder import check_results
from gammastar.store.manifest import write_manifest
from gammastar.store.pairs import read_chunk, read_pairs

SOURCE = ROOT / "src" / "gammastar"
OPENS = {"open", "read_text", "read_bytes", "loadtxt", "genfromtxt", "read_table", "ParquetFile", "memmap"}
OPENS |= {"safe_open", "load_file", "ZipFile", "TarFile", "fromfile", "from_parquet", "read_parquet"}
LIBRARIES = {"np", "json", "tomllib", "torch", "pickle"}  # whose `load` opens
GUARDS = {"opened", "opened_file", "regular", "regular_file", "bytes_of", "text_of", "_content"}
OWN = {
    "os.open(path, flags, dir_fd=place)": "the guard itself",
    "os.open(here, flags)": "a folder",
    "os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)": "a folder",
    "os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 384, dir_fd=place)": "a new name",
    "os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)": "that new name",
    "os.open(path, flags, 420)": "the lock: no link, no pipe",
    "os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 384)": "a folder of this run alone",
    "Path(_marks().name, str(pid)).read_bytes()": "a folder of this run alone",
    "packed.read_bytes()": "a folder of this run alone",
    "path.read_bytes()": "the code of the package",
    "_STATUS.read_text(encoding='utf-8')": "of the system",
    "uproot.open({path: None}, array_cache=None, object_cache={}, **source_options(path))": "after a look",
    "fsspec.open(address(url), 'rb', **remote_options(url))": "of a server",
    "file.read_text(encoding='utf-8')": "shipped",
    "file.read_bytes()": "of installed packages; just written",
}
"""Calls that open without the guard: what the package itself wrote or ships, and why."""


def _opens(node):
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    library = getattr(getattr(node.func, "value", None), "id", "")
    text = ast.unparse(node)  # written, a stream, or shipped
    harmless = re.search(r"'(w|wb|a)'|\bfileobj=|\bdata_path\(|\bresources\.files\(", text)
    return not harmless and (name in OPENS or (name == "load" and library in LIBRARIES))


def _guarded(node, streams):
    """Return whether an argument went through the guard, or is a stream that did."""
    parts = [part for argument in node.args for part in ast.walk(argument)]
    parts += list(ast.walk(node.func))
    called = {
        getattr(part.func, "id", getattr(part.func, "attr", ""))
        for part in parts
        if isinstance(part, ast.Call)
    }
    return bool(called & GUARDS) or any(isinstance(part, ast.Name) and part.id in streams for part in parts)


def openers():
    """Yield text and file of every call that opens a file and takes no guarded stream."""
    words = re.compile(rf"\b({'|'.join(OPENS)}|load)\(")
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not words.search(text):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        streams = {
            item.optional_vars.id
            for node in nodes
            if isinstance(node, ast.With)
            for item in node.items
            if isinstance(item.optional_vars, ast.Name)
            and isinstance(item.context_expr, ast.Call)
            and getattr(item.context_expr.func, "id", "") in GUARDS
        }
        for node in nodes:
            if isinstance(node, ast.Call) and _opens(node) and not _guarded(node, streams):
                yield ast.unparse(node), path.relative_to(SOURCE).as_posix()


@pytest.mark.long
def test_every_opener_looks_first_or_is_listed():
    found = dict(openers())
    assert {call: file for call, file in found.items() if call not in OWN} == {}


READERS = {
    "record.root": table_names,
    "record.yaml": table_names,
    "table.csv": lambda path: read_columns(path, ["mass"]),
    "factors.csv": TabulatedFormFactor.read,
    "masses.txt": _column,
    "part-00000.parquet": lambda path: list(read_pairs([path])),
    "chunk.parquet": read_chunk,
    "likelihood.tar.gz": read_likelihood,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing", "huge", "not text"])
def test_what_is_no_regular_file_is_an_error_that_names_it(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as stream:
            stream.truncate(1 << 43)  # without blocks: 8 TB on paper
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe\x00" * 100)
    with limited(5.0), pytest.raises(GammastarError, match=name.replace(".", r"\.")):
        READERS[name](path)


@pytest.mark.parametrize("name", ["reach.json", "detectors/ship.toml", "flow.safetensors"])
def test_files_of_a_record_that_are_huge_are_not_read_for_their_digest(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(1 << 43)
    sums = {"files": {name: "0" * 64}, "stages": {}, "inputs": {}, "versions": {}, "finished": True}
    write_manifest(tmp_path, sums)
    with limited(5.0), pytest.raises(GammastarError, match=name):
        check_results(tmp_path, [name])
    with limited(5.0), pytest.raises(GammastarError, match=name):
        list(verify_results(tmp_path))


def test_what_was_read_before_still_is(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["mass"] = np.array([1.0, 2.0]), np.array([0.0, 0.5, 1.0])
    assert regular_file(path) == path
    assert table_names(path) == ("mass",)
