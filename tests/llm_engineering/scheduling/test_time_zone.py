"""The zone that cron goes by is the host's, whatever TZ says."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llm_engineering.scheduling import time_zone
from llm_engineering.scheduling.time_zone import host_zone, other_zone

ZONES = Path("/usr/share/zoneinfo")


@pytest.fixture
def localtime(tmp_path, monkeypatch) -> Path:
    file = tmp_path / "localtime"
    monkeypatch.setattr(time_zone, "LOCALTIME", file)
    return file


@pytest.mark.skipif(not ZONES.is_dir(), reason="the host has no time zones")
def test_it_is_read_from_the_host_and_not_from_tz(localtime, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    localtime.symlink_to(ZONES / "Europe" / "Berlin")
    assert host_zone().key == "Europe/Berlin"
    assert other_zone() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "Europe/Paris")
    assert other_zone() is None, "its clocks show the same"
    monkeypatch.setenv("TZ", "Africa/Lagos")
    assert other_zone() == "Africa/Lagos", "the same in winter alone"
    monkeypatch.setenv("TZ", ":nowhere")
    assert other_zone() == "nowhere"
    localtime.unlink()
    localtime.write_bytes((ZONES / "Asia" / "Kathmandu").read_bytes())
    assert datetime(2026, 1, 1, tzinfo=host_zone()).utcoffset() == timedelta(hours=5, minutes=45)


def test_a_host_that_has_none_goes_by_utc(localtime):
    assert host_zone().key == "UTC"
    os.symlink("/usr/share/zoneinfo/No/Such", localtime)
    assert host_zone().key == "UTC"
