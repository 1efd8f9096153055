"""Tests of vLLM's command line: what of the run it carries, and what vLLM would do otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import TalkError
from llm_engineering.serving.endpoint import Endpoint
from llm_engineering.serving.vllm_command import adapter_problem, command
from llm_engineering.talk.finished_run import find_run

ENDPOINT = Endpoint("127.0.0.1", 8000, "helper")


def value(line: list[str], flag: str) -> str:
    return line[line.index(flag) + 1]


def test_the_line_carries_adapter_rank_tokenizer_stops_and_template_inputs(
    make_run: Any, make_config: Any, tiny_model: Path
) -> None:
    folder = make_run(template_inputs={"variables": {"enable_thinking": False}}) / "adapter"

    line, notes = command(find_run("", make_config()), str(tiny_model), ENDPOINT)

    assert line[:3] == ["vllm", "serve", str(tiny_model)]
    assert value(line, "--lora-modules") == f"helper={folder.resolve()}"
    assert value(line, "--max-lora-rank") == "8"  # the adapter's is 4
    assert value(line, "--served-model-name") == "helper-base"
    assert value(line, "--tokenizer") == str(folder.resolve())
    assert value(line, "--generation-config") == str(folder.resolve())  # its stop tokens
    assert json.loads(value(line, "--default-chat-template-kwargs")) == {"enable_thinking": False}
    assert value(line, "--host") == "127.0.0.1"
    assert notes == []


def test_a_date_that_vllm_cannot_be_given_is_told(make_run: Any, make_config: Any) -> None:
    make_run(template_inputs={"date": "2026-11-30"})
    _, notes = command(find_run("", make_config()), "base", ENDPOINT)
    assert len(notes) == 1
    assert "2026-11-30 in training" in notes[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"trainable_token_indices": {"embed_tokens": [3]}}, "trained tokens"),
        ({"modules_to_save": ["lm_head"]}, r"whole modules \(lm_head\)"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "expert parameters"),
        ({"rank_pattern": {"q_proj": 1024}}, "of rank 1024, at most 512"),
    ],
)
def test_an_adapter_that_vllm_does_not_take_is_served_merged_or_refused(
    changes: dict[str, Any], told: str, make_run: Any, make_config: Any, tiny_model: Path
) -> None:
    folder = make_run()
    path = folder / "adapter" / "adapter_config.json"
    values = json.loads(path.read_text()) | changes
    path.unlink()  # it is a hard link
    path.write_text(json.dumps(values))
    run = find_run("", make_config())

    with pytest.raises(TalkError, match=f"{told}.*export.merged_16bit"):
        command(run, "base", ENDPOINT)
    shutil.copytree(tiny_model, folder / "merged")
    line, _ = command(run, "base", ENDPOINT)

    assert line[2] == str(run.folder.parent / "merged")
    assert "--enable-lora" not in line
    assert value(line, "--served-model-name") == "helper"


def test_a_plain_adapter_is_taken() -> None:
    assert adapter_problem({"r": 512, "bias": "none", "modules_to_save": None}) is None
