"""The crontab line: what cron will run, and that no other line is touched."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from llm_engineering.errors import ConfigError
from llm_engineering.scheduling import crontab

# What python-crontab would rewrite: \% in a command, a variable between lines, 7 for Sunday.
OTHERS = """# my own
0 0 * * 7 /bin/date +\\%F
MAILTO=me@example.com
~ 3 * * *   /bin/b   # spaced

0 3 * * * /other/run.py --run-scheduled nightly # schedule nightly of /other
"""


def test_a_line_comes_and_goes_and_every_other_stays_to_the_byte(fake_crontab, make_schedule):
    fake_crontab.write_text(OTHERS)
    crontab.install(make_schedule())
    text = fake_crontab.read_text()
    assert text.startswith(OTHERS)
    (line,) = text.removeprefix(OTHERS).splitlines()
    assert line.startswith(("0 3 * * * /", "0 3 * * * '/"))  # quoted where the path has spaces

    crontab.install(make_schedule(cron="0 4 * * *"))
    assert fake_crontab.read_text().removeprefix(OTHERS).startswith("0 4 * * * ")
    crontab.install(make_schedule(name="weekly"))
    assert len(fake_crontab.read_text().removeprefix(OTHERS).splitlines()) == 2

    crontab.remove(make_schedule())
    crontab.remove(make_schedule(name="weekly"))
    assert fake_crontab.read_text() == OTHERS


def test_a_crontab_that_held_nothing_else_is_gone_afterwards(fake_crontab, make_schedule):
    crontab.remove(make_schedule())
    crontab.install(make_schedule())
    assert fake_crontab.exists()
    crontab.remove(make_schedule())
    assert not fake_crontab.exists()


def test_what_cron_refuses_is_a_mistake_in_the_expression(fake_crontab, make_schedule):
    with pytest.raises(ConfigError, match="--schedule: cron does not take it: line 1: bad minute"):
        crontab.install(make_schedule(cron="99 3 * * *"))
    assert not fake_crontab.exists()


def test_the_line_needs_nothing_of_the_environment_and_tells_cron_nothing(make_schedule):
    schedule, command = make_schedule(), crontab.crontab_line(make_schedule())
    words = shlex.split(command.removeprefix(schedule.cron), comments=True)
    assert words[0] == sys.executable
    assert Path(words[1]).is_absolute()
    assert Path(words[1]).is_file()
    assert words[2:] == ["--run-scheduled", "nightly", ">/dev/null"]


def test_a_percent_sign_would_end_the_command(make_schedule, monkeypatch):
    monkeypatch.setattr(crontab, "ROOT", Path("/a 100% folder"))
    line = crontab.crontab_line(make_schedule())
    assert r"'/a 100\% folder/tools/run.py'" in line
    assert line.count("%") == line.count(r"\%") == 2


def test_a_line_of_the_folder_that_this_one_was_goes_too(fake_crontab, make_schedule, tmp_path):
    old = f"0 3 * * * /x/python {tmp_path}/old/tools/run.py --run-scheduled nightly"
    longer = old.replace("nightly", "nightly-2")
    fake_crontab.write_text(
        f"{OTHERS}{old} >/dev/null # schedule nightly of {tmp_path}/old\n{old} 2>&1 | logger\n{longer}\n"
    )
    moved = make_schedule(root=tmp_path / "old")
    crontab.remove(moved)
    assert fake_crontab.read_text() == f"{OTHERS}{longer}\n"


def test_the_line_of_a_checkout_of_which_this_is_a_copy_stays(
    fake_crontab, make_schedule, tmp_path
):
    line = f"0 3 * * * /x/python {tmp_path}/first/tools/run.py --run-scheduled nightly\n"
    fake_crontab.write_text(line)
    (tmp_path / "first" / ".schedules" / "nightly").mkdir(parents=True)
    crontab.remove(make_schedule(root=tmp_path / "first"))
    assert fake_crontab.read_text() == line


def test_a_call_in_the_users_own_words_is_left_and_told(fake_crontab, make_schedule, tmp_path):
    own = "0 3 * * * cd /x && ./tools/run.py --run-scheduled nightly"
    gone = "0 3 * * * /gone/tools/run.py --run-scheduled nightly"
    theirs = f"0 3 * * * {tmp_path}/tools/run.py --run-scheduled nightly"
    fake_crontab.write_text("\n".join([own, gone, theirs, f"# {own}", f"{own}-2"]) + "\n")
    assert crontab.leftovers(make_schedule()) == [own, gone]


def test_it_is_found_again_where_the_folder_has_a_percent_sign(
    fake_crontab, make_schedule, monkeypatch
):
    monkeypatch.setattr(crontab, "ROOT", Path("/a 100% folder"))
    crontab.install(make_schedule())
    crontab.remove(make_schedule())
    assert not fake_crontab.exists()
