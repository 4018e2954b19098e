"""The page for facilities, tried as written, and executors of coffea that are no commands of ours."""

import importlib.util
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from builders import ROOT
from injection import kills, workers
from injection import taskvine as stand_in

from gammastar.facility import Executor, open_executor

PAGE = (ROOT / "docs" / "howto" / "facility.md").read_text()


def blocks(heading):
    """Return the code of a section: fenced and indented."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    indented = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    return fenced, indented


def test_python_of_the_page_runs(tmp_path, capsys):
    fenced, _ = blocks("The same from Python")
    (tmp_path / "toys.py").write_text(fenced[0])
    runpy.run_path(str(tmp_path / "toys.py"), run_name="__main__")
    assert float(capsys.readouterr().out) == pytest.approx(3.0, abs=0.03)


@pytest.mark.slow
def test_scheduler_and_workers_by_hand(tmp_path):
    """The lines of the page in one shell, workers in the background as there."""
    _, lines = blocks("A scheduler and workers by hand")
    assert [line.split()[0] for line in lines] == ["dask", "dask", "dask", "while", "gammastar"]
    kills.steering(tmp_path / "steering.toml")
    script = "\n".join(["trap 'kill $(jobs -p)' EXIT", *lines])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    forks.gammastar("run", "steering.toml", "--output", "serial", cwd=tmp_path, check=True)
    assert kills.contents(folder) == kills.contents(tmp_path / "serial")


@pytest.mark.slow
def test_parsl_through_coffeas_executor(tmp_path):
    def _square(i):
        return i * i

    parsl = pytest.importorskip("parsl")
    from coffea.processor import ParslExecutor
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    two = HighThroughputExecutor(
        label="two", address="127.0.0.1", max_workers_per_node=2, provider=LocalProvider(max_blocks=1)
    )
    config = parsl.Config(executors=[two], run_dir=str(tmp_path / "parsl"), initialize_logging=False)
    expected, _ = workers.serial()
    with parsl.load(config):
        executor = Executor("Parsl", lambda: ParslExecutor(config=None, status=False, compression=None))
        found, _flow = executor.pairs(workers.job(tmp_path / "chunks", step=4_000))
        assert workers.content(found) == workers.content(expected)
        assert executor.map(_square, range(5)) == [0, 1, 4, 9, 16]


@pytest.fixture
def taskvine(monkeypatch):
    """coffea's executor for TaskVine, beside a stand-in for TaskVine itself."""
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    name = "coffea.processor.taskvine_beside_a_stand_in"
    path = importlib.util.find_spec("coffea.processor.taskvine_executor").origin
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    handler = signal.getsignal(signal.SIGINT)
    yield module.TaskVineExecutor
    signal.signal(signal.SIGINT, handler)


def test_taskvine_through_coffeas_executor(taskvine, tmp_path):
    """Chunks, and tasks whose items cannot be hashed."""
    executor = Executor(
        "TaskVine",
        lambda: taskvine(manager_name="gammastar", status=False, compression=None, filepath=str(tmp_path)),
    )
    found, _ = executor.pairs(workers.job(tmp_path / "chunks", step=4_000))
    assert workers.content(found) == workers.content(workers.serial()[0])
    assert executor.map(lambda item: item["i"] ** 2, [{"i": i} for i in range(50)]) == [
        i * i for i in range(50)
    ]
    assert not executor.events


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its files stay open
def test_a_cluster_of_dask_jobqueue(tmp_path):
    """Its interface, with jobs that are processes of this machine: scripts, scaling, address."""
    local = pytest.importorskip("dask_jobqueue.local")
    with local.LocalCluster(cores=1, memory="2 GB", log_directory=str(tmp_path / "logs")) as cluster:
        cluster.scale(2)
        with open_executor(dask=cluster.scheduler_address) as executor:
            found, _ = executor.pairs(workers.job(tmp_path / "chunks", step=4_000))
            assert workers.content(found) == workers.content(workers.serial()[0])
