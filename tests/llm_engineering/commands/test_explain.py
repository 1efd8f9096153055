"""``--explain``, as it is typed."""

from __future__ import annotations

import pytest

from llm_engineering.commands import explain


def test_a_section_is_printed_with_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    explain.show("lora")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("lora: a section")
    assert "lora.r: integer (more than 0); default 32" in lines
    assert "    Rank of the update matrices." in [line.rstrip() for line in lines]
