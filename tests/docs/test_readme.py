"""What the README and the pages name is there: files, flags, targets of make, keys of the configuration."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from llm_engineering.configuration.schema import keys

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
OTHERS = {"--help"}
"""Flags that are not ours."""
FILES = {
    "model.safetensors",
    "model.tar.gz",
    "train.jsonl",
    "data.jsonl",
    "sagemaker.core.image_uris",
}
"""What has a section's name before its dot, and is no key."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_page
def test_flags_of_the_command_exist(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("run_script", ROOT / "tools" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = {flag for option in module.main.params for flag in option.opts}
    lines = [one for one in page.read_text("utf-8").splitlines() if "tools/run.py" in one]
    named = {flag for line in lines for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert named - known - OTHERS == set()


@each_page
def test_targets_of_make_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(
        r"`make ([a-z][a-z-]*)|^make ([a-z][a-z-]*)", page.read_text("utf-8"), re.M
    )
    for target in {one or other for one, other in targets}:
        assert re.search(rf"^{target}:", makefile, re.M), target


@each_page
def test_keys_of_the_configuration_exist(page: Path) -> None:
    known = {key.name for key in keys()} | {"model.load_in_4bit"}
    sections = {name.partition(".")[0] for name in known}
    named = re.findall(r"`(?:--set )?([a-z]+(?:\.[a-z0-9_]+)+)\b[^`/]*`", page.read_text("utf-8"))
    ours = {re.sub(r"\.\d+\b", "", name) for name in named if name.partition(".")[0] in sections}
    assert ours - FILES - known == set()
