"""Whatever a writer publishes has the mode that the umask gives; what a kill leaves of it is swept."""

import stat
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
from safetensors.numpy import load as decode
from safetensors.numpy import save as encode

from gammastar import flow
from gammastar.core.errors import InputFileError
from gammastar.flow.model import _card_digest
from gammastar.pipeline.record import read_domain
from gammastar.store.folder import sweep, sweep_temporaries
from gammastar.store.manifest import read_json, read_spectrum, write_json

HERE = Path(__file__).resolve().parent
WRITE = """
import importlib, os, sys
os.umask(int(sys.argv[2], 8))
from gammastar.core import files
importlib.reload(files)  # which asks for the umask
from pathlib import Path
import numpy as np
from gammastar import flow, report
from gammastar.core.pairs import Pairs
from gammastar.core.files import atomic
from gammastar.flow import LocalStatistics
from gammastar.report.style import new_figure
from gammastar.store.pairs import write_chunk
from gammastar.store.folder import write_tensors
from gammastar.store.manifest import write_json, write_text
from gammastar.store.pairs import write_pairs
from gammastar.store.manifest import write_histograms, write_table
folder = Path(sys.argv[1])
one = np.ones(3)
pairs = Pairs(one, one, one, np.zeros(3, np.int8), one, np.arange(3))
model = flow.load(Path(sys.argv[3]) / "flow")
def stage():
    with atomic(folder / "stages" / "select.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, a=one)
writers = {
    "flow": lambda: flow.save(model, folder / "flow"),
    "near": lambda: LocalStatistics(np.arange(3.0), one, 0.1).save(folder / "flow_members.pairs.json"),
    "page": lambda: write_text(folder / "report.html", "x"),
    "figure": lambda: report.save_figure(new_figure()[0], folder / "figures" / "rate"),
    "json": lambda: write_json(folder / "steering.json", {}),
    "manifest": lambda: write_text(folder / "manifest.json", "{}"),
    "table": lambda: write_table(folder / "reach.csv", {"a": [1]}),
    "histograms": lambda: write_histograms(folder / "spectrum.root", {}),
    "tensors": lambda: write_tensors(folder / "domain.safetensors", {"a": one}),
    "pairs": lambda: write_pairs(folder / "stages" / "pairs", [pairs]),
    "published pairs": lambda: write_pairs(folder / "pairs", [pairs]),
    "chunk": lambda: write_chunk(
        folder / "chunks" / "pairs" / f"pairs-{'0' * 32}.parquet", "k", {"a": one}, {}),
    "stage": stage,
}
if sys.argv[4] == "killed":
    def killed(*_, **__):
        os._exit(9)
    for name, write in writers.items():
        child = os.fork()
        if not child:
            os.replace = killed
            write()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, name
else:
    for write in writers.values():
        write()
"""


def written(folder, umask, model, how="whole"):
    folder.mkdir()
    forks.server.run("-c", WRITE, folder, oct(umask)[2:], model, how, check=True)
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.flow
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_gives(tmp_path, model, umask):
    files = written(tmp_path / "out", umask, model)
    assert len(files) >= 15
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files if path.name[0] != "."}
    assert set(modes.values()) == {oct(0o666 & ~umask)}, modes


@pytest.mark.flow
def test_what_killed_writers_left_is_swept(tmp_path, model):
    left = written(tmp_path / "out", 0o022, model, "killed")
    assert len(left) == 13
    assert all(path.name.startswith(".") for path in left)
    (tmp_path / "out" / ".mine.abcdefgh.tmp").write_text("mine")
    (tmp_path / "out" / "chunks" / "pairs" / ".theirs.parquet.abcdefgh.tmp.parquet").write_text("theirs")
    sweep_temporaries(tmp_path / "out")
    sweep(tmp_path / "out" / "chunks" / "pairs", "chunks")
    there = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert there == [".mine.abcdefgh.tmp", ".theirs.parquet.abcdefgh.tmp.parquet"]


# --- records that were changed, their digests too --------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sys.path.insert(0, str(HERE))
    from injection.models import trained

    folder = tmp_path_factory.mktemp("model")
    trained(folder / "flow")
    return folder


@pytest.mark.flow
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
def test_flows_of_impossible_weights_are_refused(model, tmp_path, value):
    tensors = decode((model / "flow.safetensors").read_bytes())
    card = read_json(model / "flow.json")
    for name in (key for key, array in tensors.items() if array.dtype == np.float32):
        changed = tensors | {name: tensors[name].copy()}
        changed[name].flat[-1] = value
        content = card | {"digest": flow.digest(changed)}
        (tmp_path / "flow.safetensors").write_bytes(encode(changed))
        write_json(tmp_path / "flow.json", content | {"digest_card": _card_digest(content)})
        with pytest.raises(InputFileError, match=rf"flow\.safetensors: {name}: not finite, or too large"):
            flow.load(tmp_path / "flow")
        (tmp_path / "flow.json").write_bytes((model / "flow.json").read_bytes())
        with pytest.raises(InputFileError, match="digest"):
            flow.load(tmp_path / "flow")


def test_domains_and_spectra_of_impossible_numbers_are_refused(tmp_path):
    sound = {
        "low": np.zeros(3),
        "high": np.ones(3),
        "values": np.ones((2, 2, 2)),
        "found": np.ones((2, 2, 2)),
    }
    sound["floor"] = np.array([0.01])
    path = tmp_path / "domain.safetensors"
    path.write_bytes(encode(sound))
    assert read_domain(path).floor == 0.01
    for name, array in sound.items():
        for wrong in (np.full_like(array, np.nan), array[:0], np.ones((1, 1)), None):
            content = {k: v for k, v in sound.items() if k != name} | ({} if wrong is None else {name: wrong})
            path.write_bytes(encode(content))
            with pytest.raises(InputFileError, match=rf"domain\.safetensors: {name} "):
                read_domain(path)
    path.write_bytes(encode(sound)[:-9])
    with pytest.raises(InputFileError, match=r"domain\.safetensors: cannot be read"):
        read_domain(path)
    write_json(tmp_path / "spectrum.json", {"axes": []})
    with pytest.raises(Exception, match=r"spectrum\.json: is not a spectrum"):
        read_spectrum(tmp_path / "spectrum.json")
