"""Workers with other code, other libraries, other files or another folder of results are refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from injection import hangs, kills, workers

import gammastar
from gammastar import facility
from gammastar.core.errors import StoreError
from gammastar.facility.processor import signature
from gammastar.pipeline.run import run
from gammastar.store.manifest import file_sha256, package_digest
from gammastar.store.pairs import Source


@pytest.fixture
def old_numpy(tmp_path):
    """Return a folder with the metadata of another numpy."""
    place = tmp_path / "old" / "numpy-1.0.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    return place.parent


@pytest.mark.slow  # other code is refused the same way, in the default run
def test_a_worker_with_other_libraries_is_refused_and_both_sides_are_named(tmp_path, old_numpy):
    with hangs.dask(tmp_path, workers=0) as (address, running):
        running.append(hangs.worker(address, path=old_numpy))
        said = rf"worker tcp://.*numpy 1\.0\.0 there, {np.__version__} here; install the same"
        with (
            pytest.raises(StoreError, match=said),
            facility.open_executor(dask=address, patience=hangs.SHORT),
        ):
            pass


def test_a_worker_with_other_code_is_refused(tmp_path):
    package = Path(gammastar.__file__).parent
    shutil.copytree(package, tmp_path / "other" / "gammastar", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "other" / "gammastar" / "core" / "records.py").open("a") as file:
        file.write("# another\n")
    with hangs.dask(tmp_path, workers=0) as (address, running):
        running.append(hangs.worker(address, path=tmp_path / "other"))
        said = f"code of gammastar [0-9a-f]{{12}} there, {package_digest()[:12]} here"
        with (
            pytest.raises(StoreError, match=said),
            facility.open_executor(dask=address, patience=hangs.SHORT),
        ):
            pass


@pytest.mark.slow
def test_a_worker_that_joins_later_with_other_libraries_does_nothing(tmp_path, old_numpy):
    with (
        hangs.dask(tmp_path, workers=1) as (address, running),
        facility.open_executor(dask=address, patience=hangs.SHORT) as executor,
    ):
        running.append(hangs.worker(address, path=old_numpy))
        executor.crew.client.wait_for_workers(2, timeout=60)
        with pytest.raises(StoreError, match=r"numpy 1\.0\.0 there"):
            executor.map(_slowly(), range(20))
        with pytest.raises(StoreError, match=r"numpy 1\.0\.0 there"):
            executor.pairs(workers.job(tmp_path / "chunks", step=400))


def _slowly():
    def slowly(i):
        import time

        time.sleep(0.1)
        return i

    return slowly


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("other", r"data\.root: worker tcp://.* sees another file \(.* bytes, ends .*\) than"),
        ("missing", r"data\.root: worker tcp://.* sees another file \(No such file or directory\) than"),
        ("shared", r"worker tcp://.* does not see the folder of results .*; both must share it"),
    ],
)
def test_other_files_on_a_worker_are_refused_before_work(tmp_path, monkeypatch, theirs, said):
    """Relative names are other files in another folder, as on another mount."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    shutil.copy(workers.DATA, here / "data.root")
    if theirs == "other":
        shutil.copy(workers.ROOT / "data" / "mock" / "na60_mc.root", there / "data.root")
    if theirs == "shared":
        shutil.copy(workers.DATA, there / "data.root")
    else:
        (there / "chunks").symlink_to(here / "chunks")
    monkeypatch.chdir(here)
    job = replace(
        workers.job(Path("chunks"), step=5_000), sources=(Source("data.root", file_sha256(workers.DATA)),)
    )
    with hangs.dask(tmp_path, workers=0) as (address, running):
        running.append(hangs.worker(address, cwd=there))
        options = {"dask": address, "patience": hangs.SHORT}
        with facility.open_executor(**options) as executor, pytest.raises(StoreError, match=said):
            executor.pairs(job)
    assert [path.name for path in (here / "chunks").iterdir()] == []


def test_the_manifest_names_the_versions_of_the_workers(tmp_path):
    path = kills.steering(tmp_path / "steering.toml")
    path.write_text(path.read_text().split("[subtract]")[0])
    with facility.open_executor(workers=1) as executor:
        run(path, output=tmp_path / "out", executor=executor)
    versions = json.loads((tmp_path / "out" / "manifest.json").read_text())["versions"]
    assert versions["workers"].startswith("1 local processes: python 3.")
    assert f"numpy {np.__version__}" in versions["workers"]
    assert dict(signature())["numba"] == versions["numba"]
