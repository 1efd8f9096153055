"""Scheduled calls in a row, with faults drawn at random; what must hold is checked after each.

    unshare --mount python tests/soak.py WORLD --ticks 200 --seed 1

WORLD holds config.yaml, as test_soak.py makes it. This process loads the libraries and never opens
ZenML's store: every call is a fork of it, and every training a fork of its call, in the place of
the command's own start. With a mount namespace of its own, the disk of the runs is a small one that
can be filled; without one that fault is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import importlib.util
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
NAME = "soak"
DISK_MB = 300
FAULTS = {
    "none": 6,
    "kill -9 of the training": 4,
    "kill -9 of the caller": 2,
    "SIGTERM": 3,
    "disk full": 3,
    "store gone": 2,
    "bad row": 2,
    "clock jump": 2,
}
BAD_ROW = '{"instruction": "No answer"\n'
PR_SET_CHILD_SUBREAPER = 36


class Forked:
    """As ``subprocess.Popen`` of tools/run.py, by a fork of this process."""

    def __init__(self, command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> None:
        self.args, self.returncode = command, None
        self.pid = _fork(lambda: _command(command, stdout, env))

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _fork(work: Callable[[], int]) -> int:
    """Run a function in a process of its own, which ends with what it returns."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError


def _run_module() -> Any:
    spec = importlib.util.spec_from_file_location("run", ROOT / "tools" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _command(command: list[str], log: Any, env: dict[str, str]) -> int:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log.fileno(), 1), (log.fileno(), 2)):
        os.dup2(source, target)
    os.environ.update(env)
    import tempfile

    tempfile.tempdir = None
    return _run_module().main.main(command[2:], standalone_mode=True) or 0


class World:
    """The schedule, its data, its disk, and what was seen."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.disk = folder / "disk"
        self.disk.mkdir(exist_ok=True)
        self.can_fill = self._mount()
        for name in ("tmp", "zenml", "locks", "schedules", "cache"):
            (self.disk / name).mkdir(exist_ok=True)
        os.environ |= {
            "TMPDIR": str(self.disk / "tmp"),
            "ZENML_CONFIG_PATH": str(self.disk / "zenml"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
            "XDG_CACHE_HOME": str(self.disk / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.counts: Counter[str] = Counter()
        self.alerts = folder / "alerts.txt"
        self.problems: list[str] = []
        self.had_production = False
        self.seconds_of_training = 20.0

    def _mount(self) -> bool:
        if os.environ.get("SOAK_OWN_MOUNTS") != "1":
            return False
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.disk)]
        return subprocess.run(mount, capture_output=True).returncode == 0

    def load(self) -> None:
        """Load the libraries, and give the schedule its file."""
        from llm_engineering.training_stack import import_unsloth

        import_unsloth()
        import pipelines.finetuning  # noqa: F401  (loaded before the forks)
        from llm_engineering.configuration import load_config
        from llm_engineering.scheduling import attempt, host_queue, schedules, tick  # noqa: F401

        schedules.FOLDER = self.disk / "schedules"
        host_queue.FOLDERS = (self.disk / "locks",)
        attempt.GRACE_SECONDS = 120.0
        attempt.subprocess = SimpleNamespace(  # its alone: alerts are programs of their own
            Popen=Forked,
            DEVNULL=subprocess.DEVNULL,
            STDOUT=subprocess.STDOUT,
            TimeoutExpired=subprocess.TimeoutExpired,
        )
        self.config = load_config(self.folder / "config.yaml")
        self.data = Path(self.config.data.sources[0].source)
        rows = self.data.read_text().splitlines()
        self.data.write_text("\n".join(rows[:8]) + "\n")
        self.spare = (  # without an end: a call that has nothing to learn tries nothing
            json.dumps({key: f"{value} {number}" for key, value in json.loads(row).items()})
            for number in itertools.count()
            for row in rows[8:]
        )
        self.schedule = schedules.Schedule(
            name=NAME,
            cron="0 3 * * *",
            config_path=self.folder / "config.yaml",
            overrides=[f"run.output_dir={self.disk}/outputs"],
            target="local",
            working_directory=self.folder,
            environment={},
            clock="cron",
            settings=self.config.schedule,
        )
        schedules.write_schedule(self.schedule)
        self.known = set((self.disk / "tmp").iterdir())  # by importing the libraries

    # one call

    def tick(self, fault: str) -> None:
        """One call with one fault."""
        if fault == "none" or self.random.random() < 0.6:
            self._append_row()
        with self._around(fault):
            jump = self.random.choice([-400, 3, 400]) if fault == "clock jump" else 0
            caller = _fork(lambda: self._call(jump))
            self._during(fault, caller)
            code = os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1])
        self.counts[f"{fault}: exit {code}"] += 1
        self._let_orphans_end()

    def _call(self, jump_days: int) -> int:
        log = (self.folder / "calls.log").open("a")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        if jump_days:
            _jump(jump_days)
        return _run_module().main.main(["--run-scheduled", NAME], standalone_mode=True) or 0

    def _append_row(self) -> None:
        with self.data.open("a") as file:
            file.write(next(self.spare) + "\n")

    @contextlib.contextmanager
    def _around(self, fault: str) -> Iterator[None]:
        good = self.data.read_text()
        filler = self.disk / "filler"
        if fault == "bad row":
            self.data.write_text(good + BAD_ROW)
        if fault == "disk full":
            self._fill(filler, self.random.choice([0, 50, 400, 2000, 6000]))
        store = None
        if fault == "store gone":
            database = self.disk / "zenml" / "local_stores" / "default_zen_store" / "zenml.db"
            if database.exists():
                store = sqlite3.connect(database, timeout=60, isolation_level=None)
                store.execute("BEGIN EXCLUSIVE")
        self.store = store
        try:
            yield
        finally:
            self.data.write_text(good)
            filler.unlink(missing_ok=True)
            if store is not None:
                store.close()

    def _fill(self, filler: Path, left_kb: int) -> None:
        with filler.open("wb") as file:
            for _ in range(100):  # a training that outlived its call may take some in between
                free = os.statvfs(self.disk)
                size = free.f_bavail * free.f_frsize - left_kb * 1024
                try:
                    return os.posix_fallocate(file.fileno(), 0, max(size, 1))
                except OSError:
                    continue

    def _during(self, fault: str, caller: int) -> None:
        begun = time.monotonic()
        at = self.random.uniform(0.2, 1.1) * self.seconds_of_training
        if fault in ("none", "clock jump"):
            return
        # Half of them as soon as there is something to go on from, which is a short part of a call.
        seen = self._checkpoints() if self.random.random() < 0.5 else None
        while time.monotonic() - begun < at if seen is None else self._checkpoints() <= seen:
            if psutil.Process(caller).status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.02)
        if self.store is not None and self.random.random() < 0.5:
            self.store.close()  # it comes back
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if fault == "kill -9 of the training":
                for child in psutil.Process(caller).children():
                    child.kill()
            elif fault == "kill -9 of the caller":
                os.kill(caller, signal.SIGKILL)
            elif fault == "SIGTERM":
                os.kill(caller, signal.SIGTERM)

    def _checkpoints(self) -> set[Path]:
        return set(
            (self.disk / "outputs" / ".work").glob("*/checkpoints/checkpoint-*/trainer_state.json")
        )

    def _let_orphans_end(self) -> None:
        """A training whose caller was killed: half the time the next call finds it going on."""
        if self.random.random() < 0.5:
            return
        _wait_until(lambda: not _processes(), 180)

    # what must hold

    def check(self, *, whole: bool = False) -> None:
        """Look at everything that must hold between two calls."""
        if whole:
            _wait_until(lambda: not _processes(), 180)
        if _processes():
            self.counts["a training outlived its call"] += 1
            return
        self._check_files()
        read, write = os.pipe()
        looker = _fork(lambda: self._look_at_store(write))
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(looker, 0)
        try:
            seen = json.loads(text)
        except ValueError:
            self._problem("the store could not be looked at")
            return
        if seen["production"] is None and self.had_production:
            self._problem("production is gone")
        self.had_production |= seen["production"] is not None
        self.problems += seen["problems"]

    def _check_files(self) -> None:
        left = [str(path) for path in (self.disk / "tmp").iterdir() if path not in self.known]
        left += [str(path) for path in self.schedule.folder.rglob("*.part")]
        outputs = self.disk / "outputs"
        if outputs.is_dir():
            left += [str(path) for path in outputs.iterdir() if path.name.endswith(".part")]
            latest = outputs / "latest"
            if latest.is_symlink() and not (latest / "manifest.json").is_file():
                self._problem("latest is not whole")
        if left:
            self._problem(f"left behind: {left[:3]}")
        for folder in (self.schedule.folder, *(self.disk / "locks").iterdir()):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._problem(f"still locked: {folder.name}")
            finally:
                os.close(descriptor)
        if not json.loads((self.schedule.folder / "schedule.json").read_text()):
            self._problem("the schedule's file is broken")

    def _look_at_store(self, write: int) -> int:
        sys.stderr = (self.folder / "calls.log").open("a")
        from zenml.client import Client

        from llm_engineering.model.base_model import file_digest
        from llm_engineering.registry.versions import artifact

        problems = []
        versions = Client().list_model_versions(stage="production", hydrate=True).items
        if len(versions) > 1:
            problems.append(f"{len(versions)} versions are in production")
        for version in versions:
            adapter = artifact(version, "adapter")
            if file_digest(adapter.folder / "adapter_model.safetensors") != adapter.digest:
                problems.append(f"production {version.name} cannot be loaded")
            if not (self.disk / "outputs" / version.name / "manifest.json").is_file():
                problems.append(f"production {version.name} has lost its output")
        name = versions[0].name if versions else None
        locks = Client().list_tags(name="startswith:promoting").items
        with os.fdopen(write, "w") as pipe:
            json.dump({"production": name, "problems": problems, "locks": len(locks)}, pipe)
        return 0

    def finish(self) -> dict[str, Any]:
        """A last call without a fault, after which nothing may be missing."""
        from llm_engineering.configuration import load_config
        from llm_engineering.scheduling.changes import take_inputs
        from llm_engineering.scheduling.history import last_success, read_history

        _wait_until(lambda: not _processes(), 180)
        self.tick("none")
        self.check(whole=True)
        ticks = read_history(self.schedule.folder)
        success = last_success(ticks)
        config = load_config(self.schedule.config_path, self.schedule.overrides)
        if success is None or success.inputs != take_inputs(config):
            self._problem("the last call did not learn what there is to learn")
        running = self._in_child(_running)
        if running:
            self._problem(f"ZenML says that {running} run(s) are running")
        outcomes = Counter(tick.outcome for tick in ticks)
        told = self.alerts.read_text() if self.alerts.exists() else ""
        return {
            "faults": dict(sorted(self.counts.items())),
            "outcomes": dict(outcomes),
            "resumed": self._resumed(),
            "alerts": told.count("The scheduled fine-tuning"),
            "over": told.count(" works again"),
            "problems": self.problems,
        }

    def _in_child(self, work: Callable[[], int]) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(_fork(work), 0)[1])

    def _resumed(self) -> int:
        manifests = (self.disk / "outputs").glob("*/manifest.json")
        return sum(
            json.loads(one.read_text())["resumed_from_step"] is not None for one in manifests
        )

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        print(f"PROBLEM {text}", flush=True)


def _running() -> int:
    from zenml.client import Client

    return Client().list_pipeline_runs(status="running", size=1).total


def _jump(days: int) -> None:
    """Put this process's clock forward or back."""
    from llm_engineering.scheduling import tick

    real, step = time.time, timedelta(days=days)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return super().now(tz) + step

    time.time = lambda: real() + step.total_seconds()
    tick.datetime = Clock  # type: ignore[misc]


def _processes() -> list[psutil.Process]:
    """What is alive of all that was started; the dead are buried.

    A process whose first thread has ended is a zombie already, and holds its files until its last has.
    """
    alive = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            ended = process.status() == psutil.STATUS_ZOMBIE
            if ended and process.ppid() == os.getpid():
                ended = os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
            if not ended:
                alive.append(process)
    return alive


def _wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)


def main() -> None:
    """Run it; exit status 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path)
    parser.add_argument("--ticks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="Stop after so long.")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # A training whose caller was killed becomes this process's child.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    world = World(arguments.world, arguments.seed)
    world.load()
    begun, done = time.monotonic(), 0
    names = [name for name in FAULTS if name != "disk full" or world.can_fill]
    weights = [FAULTS[name] for name in names]
    first = ["none", *(name for name in names if name != "none")]
    while done < arguments.ticks and time.monotonic() - begun < arguments.seconds:
        # The first calls have every fault once, so that a short soak has them all.
        fault = first[done] if done < len(first) else world.random.choices(names, weights)[0]
        at = time.monotonic()
        world.tick(fault)
        if fault == "none":
            world.seconds_of_training = time.monotonic() - at
        world.check()
        done += 1
        print(f"{done:4} {time.monotonic() - at:6.1f} s  {fault}", flush=True)
    figures = world.finish()
    figures |= {"calls": done, "seconds": round(time.monotonic() - begun), "seed": arguments.seed}
    print(json.dumps(figures, indent=1))
    sys.exit(bool(figures["problems"]))


if __name__ == "__main__":
    main()
