"""A real cron daemon retrains when, and only when, there is new data.

Debian's cron runs in a mount namespace of its own, where the spool of crontabs, the system's
crontabs and /run are empty: it runs nothing of this host's, the host's own daemon sees nothing of
it, and all is gone when the test ends, however it ends. The command that schedules runs there too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_engineering.configuration import to_yaml
from llm_engineering.scheduling import schedules
from llm_engineering.scheduling.history import Tick, read_history

ROOT = Path(__file__).resolve().parents[3]
NAME = f"test-cron-{os.getpid()}"
ROWS_AT_FIRST = 6
DAEMON = """
for folder in /run /var/spool/cron/crontabs /etc/cron.d; do mount -t tmpfs tmpfs $folder; done
mount --bind /dev/null /etc/crontab
exec cron -f
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cron") is None, reason="cron is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root for a cron daemon of its own"),
    pytest.mark.skipif(
        subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
        reason="mount namespaces are not permitted here",
    ),
]

Run = Callable[..., str]


@pytest.fixture
def beside_cron(tmp_path: Path) -> Iterator[Run]:
    """Run a command of this project where the cron daemon of this test sees its crontab."""
    daemon = subprocess.Popen(
        # Were the test killed, the kernel would kill unshare, and that the daemon.
        [
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            "--mount",
            "--fork",
            "--kill-child",
            "sh",
            "-ec",
            DAEMON,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    assert daemon.poll() is None, daemon.stderr.read()
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()

    def run(*arguments: str) -> str:
        # The root too: in a chroot, the namespace's own root is another.
        enter = ["nsenter", "--mount", "--root", f"--target={children[0]}", f"--wdns={tmp_path}"]
        command = [*enter, sys.executable, str(ROOT / "tools" / "run.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    try:
        yield run
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.long
def test_new_data_between_two_ticks_is_trained_on_and_promoted(
    beside_cron, make_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(schedules, "FOLDER", ROOT / ".schedules")
    folder = schedules.FOLDER / NAME
    config = make_config(
        {
            "train.max_steps": None,
            "train.epochs": 4.0,
            "schedule.retries": 0,
            "schedule.queue": NAME,
            "registry.model": NAME,  # one that has no production version yet
        }
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config, schedule=True))
    data = Path(config.data.sources[0].source)
    rows = data.read_text().splitlines(keepends=True)
    data.write_text("".join(rows[:ROWS_AT_FIRST]))
    give_up = time.monotonic() + 300

    def wait_for(outcome: str, *, beyond: int) -> Tick:
        """The first tick of that outcome after so many ticks."""
        while True:
            for tick in read_history(folder)[beyond:]:
                if tick.outcome == outcome:
                    return tick
                assert tick.outcome in (outcome, "skipped"), tick.reason
            assert time.monotonic() < give_up, read_history(folder)
            time.sleep(0.5)

    try:
        every_minute = ["--finetune", "--schedule", "* * * * *", "--name", NAME]
        said = beside_cron(*every_minute, "--config", "config.yaml")
        assert f"{NAME}, by cron" in said
        assert "no cron daemon" not in said

        # By hand, while the daemon waits for its minute; a call of its own may come first.
        said = beside_cron("--run-scheduled", NAME)
        first = wait_for("succeeded", beyond=0)
        assert first.reason == "first run"
        done = len(read_history(folder))
        with data.open("a") as file:
            file.writelines(rows[ROWS_AT_FIRST:])

        second = wait_for("succeeded", beyond=done)  # the daemon's
        assert second.reason == "data changed"
        assert second.promoted is True
        while "going on" in (said := beside_cron("--run-scheduled", NAME)):
            assert time.monotonic() < give_up
        assert "skipped: nothing changed since the last success" in said
        assert (first.folders[-1] / "adapter").is_dir()
        assert (tmp_path / "outputs" / "latest").resolve() == second.folders[-1]
    finally:
        if folder.exists():
            beside_cron("--unschedule", NAME)
            shutil.rmtree(folder, ignore_errors=True)
