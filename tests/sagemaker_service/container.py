"""The container of one attempt of a job: namespaces of its own, in which /opt/ml is its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import psutil

ENTER = Path(__file__).with_name("enter_container.sh")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the Deep Learning Containers set.
IMAGE_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "UTF-8",
    "PYTHONUNBUFFERED": "1",
}
POLL_S = 0.02


@dataclass
class Image:
    """What stands in for the image: an interpreter with its packages, and variables.

    ``python``: the interpreter of a virtual environment, which is python3 and pip3 inside.
    ``hidden``: folders that are empty inside, such as the checkout that submits the job.
    """

    python: Path
    hidden: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> Path:
        """The folder of the interpreter's environment."""
        return self.python.parent.parent


@cache
def namespace_problem() -> str | None:
    """Why this machine cannot make the namespaces of a container; None if it can."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "unshare and setpriv (util-linux) are not installed"
    probe = subprocess.run(
        [*_unshare(network_isolation=False), "mount", "-t", "tmpfs", "tmpfs", "/opt"],
        capture_output=True,
        text=True,
    )
    return None if probe.returncode == 0 else f"unshare is not permitted: {probe.stderr.strip()}"


class Container:
    """One run of a command as PID 1 of a PID namespace, as a container's entry point is.

    So a signal reaches the entry point alone, and SIGTERM only if it has a handler; when it ends,
    everything that it started ends too.
    """

    def __init__(self, folder: Path, image: Image, hosts: Sequence[str] = ()) -> None:
        """Make ``folder`` with the tree of /opt/ml in it.

        ``hosts`` are the names by which the containers of a cluster find each other; all of them
        are this machine, whose network they share.

        Raises:
            ValueError: the folder lies in one that is hidden inside.
        """
        for hidden in image.hidden:
            if folder.resolve().is_relative_to(hidden.resolve()):
                raise ValueError(f"the folder of jobs {folder} lies in {hidden}, hidden inside")
        self._folder = folder
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None
        self.ml = folder / "ml"
        for name in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self.ml / name).mkdir(parents=True)
        for name in ("home", "tmp", "bin"):
            (folder / name).mkdir()
        known = Path("/etc/hosts").read_text(encoding="utf-8")
        names = "".join(f"127.0.0.1 {host}\n" for host in hosts)
        (folder / "hosts").write_text(f"{known.rstrip()}\n{names}", encoding="utf-8")
        for name, words in {
            "python3": "",
            "python": "",
            "pip3": " -m pip",
            "pip": " -m pip",
        }.items():
            shim = folder / "bin" / name
            shim.write_text(f'#!/bin/sh\nexec "{image.python}"{words} "$@"\n')
            shim.chmod(0o755)

    def inside(self, path: str) -> Path:
        """The file here that is ``path``, below /opt/ml, inside."""
        return self.ml / Path(path).relative_to("/opt/ml")

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], network_isolation: bool
    ) -> IO[bytes]:
        """Run the command; returns the pipe of its standard output and error."""
        inside = {
            "PATH": f"{self._folder / 'bin'}:{SYSTEM_PATH}",
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            **IMAGE_ENVIRONMENT,
            **self._image.environment,
            **environment,
        }
        # The prefix is spelt as the interpreter's path has it: a link's target is elsewhere.
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", *_unshare(network_isolation)),
                *("/bin/sh", str(ENTER), str(self._folder), str(self._image.prefix)),
                *map(str, self._image.hidden),
                "--",
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=inside,
        )
        if self._process.stdout is None:
            raise RuntimeError("the container has no output pipe")
        return self._process.stdout

    def exit_code(self) -> int | None:
        """The entry point's exit code, 128 + n for a signal n; None while it runs."""
        if self._process is None:
            return None
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the entry point, then SIGKILL to everything after ``grace_s`` seconds."""
        if grace_s > 0:
            self._signal("terminate")
        deadline = time.monotonic() + grace_s
        while self.exit_code() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to everything inside; returns once it is gone."""
        if self._process is not None:
            if self.exit_code() is None:
                self._signal("kill")
            self._process.wait()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, name: str) -> None:
        if self._process is None:
            return
        try:
            inside = psutil.Process(self._process.pid).children()
            for process in inside:
                getattr(process, name)()
            if not inside and name == "kill":
                self._process.kill()
        except psutil.NoSuchProcess:
            return


def _unshare(network_isolation: bool) -> list[str]:
    """The command that makes the namespaces; as another user than root, in one of users too."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    network = ["--net"] if network_isolation else []
    spaces = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return ["unshare", *as_user, *network, *spaces, "--"]
