"""Tests of ``llm_engineering.model.evaluation.benchmarks``: a task of local files, really evaluated."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.model.evaluation.benchmark_tasks import require_benchmarks
from llm_engineering.model.evaluation.benchmarks import Benchmark, compared

installed = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the group benchmarks is not installed"
)
TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: gold
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A task of 16 sums with two answers each, in local files."""
    rows = [
        {"question": f"{a} + {b} =", "choices": [str(a + b), str(a + b + 1)], "gold": 0}
        for a in range(4)
        for b in range(4)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(TASK.format(rows=tmp_path / "sums.jsonl"))
    return tmp_path / "sums.yaml"


@installed
@pytest.mark.slow
def test_a_local_task_is_evaluated_before_and_after(
    sums: Path, tiny_model: Path, random_adapter: Path
) -> None:
    """Without a network; the figure is that of the log-likelihoods, taken here by plain PyTorch."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llm_engineering.model.evaluation.benchmarks import measure_benchmarks

    require_benchmarks([str(sums)])
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, random_adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    state = torch.get_rng_state()
    asked: Any = {"batch_size": 4, "limit": None}
    after = measure_benchmarks(model, tokenizer, [str(sums)], **asked)
    with model.disable_adapter():
        before = measure_benchmarks(model, tokenizer, [str(sums)], **asked)
        expected = _accuracy(model, tokenizer, sums)
    assert torch.equal(torch.get_rng_state(), state)
    (found,) = compared(before, after)
    assert (found.task, found.metric, found.rows) == ("sums", "acc", 16)
    assert found.before == pytest.approx(expected)
    assert found.after == pytest.approx(_accuracy(model, tokenizer, sums))
    assert found.before != found.after
    assert found.before_error is not None


def _accuracy(model: Any, tokenizer: Any, task: Path) -> float:
    import torch

    def likelihood(question: str, choice: str) -> float:
        start = len(tokenizer(question).input_ids)
        ids = torch.tensor([tokenizer(f"{question} {choice}").input_ids])
        with torch.inference_mode():
            log = model(ids).logits[0].log_softmax(-1)
        places = range(start, ids.shape[1])
        return sum(float(log[place - 1, ids[0, place]]) for place in places)

    rows = [json.loads(line) for line in task.with_suffix(".jsonl").read_text().splitlines()]
    hits = [
        likelihood(row["question"], row["choices"][0])
        > likelihood(row["question"], row["choices"][1])
        for row in rows
    ]
    return sum(hits) / len(hits)


@installed
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (None, "there is no file"),
        ("dataset_path: json", "has no key task"),
        ("task: [", "cannot be read as a task"),
    ],
)
def test_a_file_that_is_no_task_is_refused(text: str | None, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"evaluate.benchmarks: .*{wrong}"):
        require_benchmarks([str(path)])


def test_without_the_harness_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_benchmarks([])
    with pytest.raises(SetupError, match="poetry install --with benchmarks"):
        require_benchmarks(["arc_easy"])


@pytest.mark.parametrize(
    ("before", "after", "higher", "lost"),
    [
        (0.5, 0.4, True, 0.2),
        (0.5, 0.6, True, -0.2),
        (10.0, 12.0, False, 0.2),
        (0.0, 0.1, True, 0.0),
        (0.0, 0.1, False, 1.0),
    ],
)
def test_what_was_lost_is_a_share_of_the_base_models_figure(
    before: float, after: float, higher: bool, lost: float
) -> None:
    one = Benchmark(
        task="t", metric="m", before=before, after=after, higher_is_better=higher, rows=4
    )
    assert one.lost == pytest.approx(lost)
