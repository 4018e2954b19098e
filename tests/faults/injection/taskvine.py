"""A stand-in for ndcctools.taskvine, which conda alone has: tasks run here, in a folder of their own.

What coffea's TaskVineExecutor calls, after the manual of TaskVine: functions and arguments travel as bytes,
results as the bytes that a task returns, inputs of a task are files in its folder.
"""

import contextlib
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cloudpickle


class PythonTaskNoResult(Exception):
    """Stands for the output of a task that has none."""


class File:
    def __init__(self, path):
        self.path = str(path)

    def source(self):
        return self.path


class PythonTask:
    def __init__(self, function, *arguments):
        self.call, self.inputs = cloudpickle.dumps((function, arguments)), {}
        self.id, self.category, self.result, self.output_file = 0, "default", "new", None

    def __getattr__(self, name):
        if name in {"disable_output_serialization", "set_output_cache", "enable_temp_output"}:
            return lambda *_: None
        raise AttributeError(name)

    def add_input(self, file, name):
        self.inputs[name] = file.source()

    def set_category(self, category):
        self.category = category

    def successful(self):
        return self.result == "success"

    def get_metric(self, _):
        return 0

    @property
    def output(self):
        return Path(self.output_file.source()).read_bytes()

    def run(self, staging):
        function, arguments = cloudpickle.loads(self.call)
        with tempfile.TemporaryDirectory(dir=staging) as folder, contextlib.chdir(folder):
            for name, path in self.inputs.items():
                Path(name).symlink_to(path)
            content = function(*arguments)
        self.output_file = File(Path(staging) / f"task-{self.id}")
        Path(self.output_file.source()).write_bytes(content)
        self.result = "success"


class Manager:
    def __init__(self, port, name, staging_path, status_display_interval, ssl):
        self.port, self.name, self.options = port, name, (status_display_interval, ssl)
        self.staging, self.queue, self.sent = staging_path, [], 0

    def __getattr__(self, name):
        if name in {"tune", "set_category_mode", "set_category_resources_max", "undeclare_file"}:
            return lambda *_: None
        raise AttributeError(name)

    @property
    def stats(self):
        return SimpleNamespace(tasks_waiting=len(self.queue), tasks_on_workers=0)

    def declare_file(self, path, *, cache):
        assert isinstance(cache, bool)
        return File(path)

    def submit(self, task):
        self.sent += 1
        task.id = self.sent
        self.queue.append(task)
        return task.id

    def hungry(self):
        return len(self.queue) < 3

    def empty(self):
        return not self.queue

    def wait(self, _timeout):
        if not self.queue:
            return None
        task = self.queue.pop()  # not in the order of submission
        task.run(self.staging)
        return task


def modules():
    """Return the modules to put into sys.modules."""
    package, module = ModuleType("ndcctools"), ModuleType("ndcctools.taskvine")
    module.Manager, module.PythonTask, module.PythonTaskNoResult = Manager, PythonTask, PythonTaskNoResult
    package.taskvine = module
    return {"ndcctools": package, "ndcctools.taskvine": module}
