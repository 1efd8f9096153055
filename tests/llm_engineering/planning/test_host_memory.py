"""The memory that a process can have, where control groups of either version limit it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_engineering.planning import host_memory

MIB = 1024**2


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 4,096 MiB, 3,000 of them free, without control groups."""
    (tmp_path / "meminfo").write_text("MemTotal:  4194304 kB\nMemAvailable:  3072000 kB\n")
    for name, path in {"_MEMINFO": "meminfo", "_OWN_GROUP": "cgroup", "_GROUPS": "groups"}.items():
        monkeypatch.setattr(host_memory, name, tmp_path / path)
    return tmp_path


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(text)


def test_without_a_limit_it_is_the_machines(host: Path) -> None:
    assert host_memory.total_host_bytes() == 4096 * MIB
    assert host_memory.free_host_bytes() == 3000 * MIB


def test_a_group_above_limits_too_and_read_files_can_go(host: Path) -> None:
    """Version 2: the container's limit stands above the group that the process is in."""
    (host / "cgroup").write_text("0::/pod/task\n")
    group(
        host / "groups" / "pod",
        memory_max=str(2000 * MIB),
        memory_current=str(700 * MIB),
        memory_stat=f"anon 5\ninactive_file {200 * MIB}\n",
    )
    group(host / "groups" / "pod" / "task", memory_max="max\n", memory_current="1")
    assert host_memory.total_host_bytes() == 2000 * MIB
    assert host_memory.free_host_bytes() == 1500 * MIB


def test_version_one_has_a_tree_for_memory(host: Path) -> None:
    (host / "cgroup").write_text("5:cpu:/a\n4:memory:/a\n0::/\n")
    group(
        host / "groups" / "memory" / "a",
        memory_limit_in_bytes=str(1000 * MIB),
        memory_usage_in_bytes=str(100 * MIB),
        memory_stat=f"inactive_file 1\ntotal_inactive_file {40 * MIB}\n",
    )
    group(host / "groups" / "memory", memory_limit_in_bytes="9223372036854771712")
    assert host_memory.total_host_bytes() == 1000 * MIB
    assert host_memory.free_host_bytes() == 940 * MIB


def test_the_narrowest_of_all_groups_limits(host: Path) -> None:
    (host / "cgroup").write_text("4:memory:/a\n0::/b:c/d\n")
    group(host / "groups" / "memory" / "a", memory_limit_in_bytes=str(1000 * MIB))
    group(host / "groups" / "b:c", memory_max=str(900 * MIB))
    assert host_memory.total_host_bytes() == 900 * MIB


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1000),
        ({"memory_stat": f"inactive_file {9 * MIB}\n"}, 1000),
        ({"memory_current": str(300 * MIB)}, 700),
        ({"memory_current": str(300 * MIB), "memory_stat": "anon 5\n"}, 700),
        ({"memory_current": str(1200 * MIB)}, 0),
    ],
)
def test_what_a_group_holds_is_taken_off(files: dict[str, str], free: int, host: Path) -> None:
    (host / "cgroup").write_text("0::/\n")
    group(host / "groups", memory_max=str(1000 * MIB), **files)
    assert host_memory.free_host_bytes() == free * MIB


def test_an_old_kernel_does_not_say_what_is_free(host: Path) -> None:
    (host / "meminfo").write_text("MemTotal:  4194304 kB\n")
    assert host_memory.total_host_bytes() == 4096 * MIB
    assert host_memory.free_host_bytes() is None


def test_without_proc_it_is_not_known(host: Path) -> None:
    (host / "meminfo").unlink()
    assert host_memory.total_host_bytes() is None
    (host / "cgroup").write_text("0::/\n")
    group(host / "groups", memory_max=str(1000 * MIB))
    assert host_memory.total_host_bytes() is None
    assert host_memory.free_host_bytes() is None


def test_it_needs_the_standard_library_alone() -> None:
    code = "from llm_engineering.planning import host_memory; print(host_memory.total_host_bytes())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) > 0
