"""A full disk leaves a schedule's file as it was, and nothing beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llm_engineering.scheduling.whole_file import write_whole


def test_the_new_text_takes_the_place_of_the_old_for_its_user_alone(tmp_path):
    write_whole(tmp_path / "file.json", "old")
    write_whole(tmp_path / "file.json", "new ü")
    assert (tmp_path / "file.json").read_text(encoding="utf-8") == "new ü"
    assert (tmp_path / "file.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("fails", [(Path, "write_text"), (os, "replace")])
def test_a_full_disk_leaves_the_old_and_no_part_of_the_new(fails, tmp_path, monkeypatch):
    write_whole(tmp_path / "file.json", "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(*fails, full)
        with pytest.raises(OSError, match="No space"):
            write_whole(tmp_path / "file.json", "new")
    assert (tmp_path / "file.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
