"""Tests of which finished run is meant, and of what is refused before a weight is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import TalkError
from llm_engineering.talk.finished_run import find_run


@pytest.mark.parametrize("where", ["", "two", "FOLDER", "FOLDER/adapter"])
def test_a_run_is_found_by_its_name_or_its_folder_and_is_else_the_newest(
    where: str, make_run: Any, make_config: Any
) -> None:
    make_run("one")
    folder = make_run("two")

    run = find_run(where.replace("FOLDER", str(folder)), make_config())

    assert run.name == "two"
    assert run.folder == folder / "adapter"
    assert run.kind == "adapter"
    assert run.has_manifest
    assert run.base.id == make_config().model.id


def test_the_template_is_given_what_it_was_given_in_training(
    make_run: Any, make_config: Any
) -> None:
    inputs = {"variables": {"enable_thinking": False}, "date": "2026-11-30"}
    make_run(template_inputs=inputs)

    run = find_run("", make_config())

    assert run.inputs.variables == {"enable_thinking": False}
    assert str(run.inputs.date) == "2026-11-30"


def test_a_merged_model_is_its_own_base(make_run: Any, make_config: Any, tiny_model: Path) -> None:
    folder = make_run()
    shutil.copytree(tiny_model, folder / "merged")

    run = find_run(str(folder / "merged"), make_config())

    assert run.kind == "merged"
    assert run.base.id == str(folder / "merged")


def test_an_adapter_of_elsewhere_is_taken_and_nobody_vouches_for_it(
    make_run: Any, make_config: Any, tmp_path: Path, tiny_model: Path
) -> None:
    adapter = tmp_path / "elsewhere"
    shutil.copytree(make_run() / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())

    run = find_run(str(adapter), make_config())

    assert not run.has_manifest
    assert run.base.id == config["base_model_name_or_path"] == str(tiny_model)


@pytest.mark.parametrize("file", ["adapter", "base"])
def test_files_that_are_not_those_of_training_are_refused(
    file: str, make_run: Any, make_config: Any
) -> None:
    digests = {
        "adapter": {"adapter_digest": "a" * 64},
        "base": {"base_model_digests": {"model.safetensors": "b" * 64}},
    }
    make_run(**digests[file])

    with pytest.raises(TalkError, match=r"SHA-256 .* (manifest says a{64}|trained on b{64})"):
        find_run("", make_config())


def test_what_is_no_run_is_told_with_those_that_there_are(make_run: Any, make_config: Any) -> None:
    with pytest.raises(TalkError, match=r"no finished run in .* yet: --finetune makes one"):
        find_run("", make_config())
    folder = make_run("one")
    with pytest.raises(TalkError, match=r"three: neither a folder nor a run .*newest there: one\)"):
        find_run("three", make_config())
    shutil.rmtree(folder / "adapter")
    with pytest.raises(TalkError, match=r"has no adapter/adapter_config.json and no merged"):
        find_run("one", make_config())
