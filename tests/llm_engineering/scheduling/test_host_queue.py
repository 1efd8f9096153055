"""Schedules of one queue take turns, whatever checkout or user they are of."""

from __future__ import annotations

import os
import subprocess

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.scheduling import host_queue
from llm_engineering.scheduling.host_queue import turn


def no_wait(seconds: float) -> None:
    raise TimeoutError


def test_the_second_waits_for_the_first_and_for_what_the_first_started():
    waited = []
    with turn("gpu", no_wait) as held:
        child = subprocess.Popen(["sleep", "0.5"], pass_fds=held)
    # The first is gone, as after kill -9: its training goes on.

    def wait(seconds: float) -> None:
        waited.append(seconds)
        child.wait()

    with turn("gpu", wait):
        assert waited == [5.0]


def test_another_queue_and_none_wait_for_nobody():
    with turn("gpu0", no_wait) as held:
        assert len(held) == 1
        with turn("gpu1", no_wait), turn(None, no_wait) as none:
            assert none == []
        with pytest.raises(TimeoutError), turn("gpu0", no_wait):
            pass


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be another user")
def test_users_share_a_queue(tmp_path):
    tmp_path.chmod(0o1777)
    with turn("gpu", no_wait):
        (lock,) = tmp_path.glob("*.lock")
        assert lock.stat().st_mode & 0o777 == 0o644
        other = ["setpriv", "--reuid=65534", "--clear-groups", "flock", "--nonblock"]
        tries = f"{' '.join(other)} /proc/self/fd/9 true 9<{lock}"
        assert subprocess.run(["sh", "-c", tries]).returncode == 1
    assert subprocess.run(["sh", "-c", tries]).returncode == 0


def test_a_link_that_somebody_put_there_is_not_followed(tmp_path):
    (tmp_path / "llm-engineering-finetuning-gpu.lock").symlink_to(tmp_path / "target")
    with pytest.raises(SetupError, match=r"set schedule\.queue: null"), turn("gpu", no_wait):
        pass
    assert not (tmp_path / "target").exists()


def test_without_a_folder_that_all_see_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(host_queue, "FOLDERS", (tmp_path / "none",))
    with (
        pytest.raises(SetupError, match=r"schedule\.queue: no lock can be made in"),
        turn("gpu", no_wait),
    ):
        pass
