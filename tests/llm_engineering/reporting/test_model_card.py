from __future__ import annotations

import ast
import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from llm_engineering.data.summary import Repeats
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.reporting.model_card import cell, code, render_model_card
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport

MakeRun = Callable[..., RunReport]


def metadata(card: str) -> dict[str, Any]:
    empty, front_matter, _ = card.split("---\n", 2)
    assert empty == ""
    values = yaml.safe_load(front_matter)
    assert isinstance(values, dict)
    return values


def example(card: str) -> ast.Module:
    """The card's code, parsed."""
    return ast.parse(card.split("```python\n")[1].split("\n```")[0])


def strings(tree: ast.Module) -> set[str]:
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in constants if isinstance(node.value, str)}


def test_front_matter_names_base_model_and_only_data_sets_on_the_hub(run: RunReport) -> None:
    assert metadata(render_model_card(run)) == {
        "base_model": "acme/tiny-1b",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sft", "unsloth", "trl", "zenml"],
        "datasets": ["acme/questions"],
    }


def test_without_data_sets_on_the_hub_none_are_named(make_run: MakeRun, run: RunReport) -> None:
    data = run.config.data.model_copy(update={"sources": run.config.data.sources[:1]})
    config = run.config.model_copy(update={"data": data})
    assert "datasets" not in metadata(render_model_card(make_run(config=config)))


def test_a_model_id_cannot_break_the_front_matter(make_run: MakeRun, run: RunReport) -> None:
    odd = "models/a: b #c\n---\ntags: [x]"
    model = run.lora.model.model_copy(update={"id": odd})
    card = render_model_card(make_run(lora=run.lora.model_copy(update={"model": model})))
    assert yaml.safe_load(card.split("\nlibrary_name:")[0])["base_model"] == odd


def test_results_show_before_after_and_change(run: RunReport) -> None:
    card = render_model_card(run)
    assert "| 64 held-out rows, 2,034 labelled tokens | Before | After | Change |" in card
    assert "| Loss (nats per token) | 3.50 | 2.80 | −20.0 % |" in card
    assert "| Perplexity | 33.1 | 16.4 | −50.3 % |" in card
    assert "| Token accuracy | 36.0 % | 41.0 % | +5.0 points |" in card


def test_the_code_loads_this_adapter_onto_its_base_model(run: RunReport) -> None:
    tree = example(render_model_card(run))
    assert {
        "outputs/tiny-1b-questions-20261124-214700/adapter",
        "acme/tiny-1b",
        "0123abc",
        "What does `len` do?",
    } <= strings(tree)
    source = ast.unparse(tree)
    assert "dtype=torch.bfloat16" in source
    assert "eos_token_id=[2, 7]" in source
    assert "max_new_tokens=48" in source
    assert "trust_remote_code" not in source


def test_remote_code_is_asked_for_only_where_the_run_needed_it(
    make_run: MakeRun, run: RunReport
) -> None:
    model = run.lora.model.model_copy(update={"trust_remote_code": True, "revision": None})
    source = ast.unparse(
        example(render_model_card(make_run(lora=run.lora.model_copy(update={"model": model}))))
    )
    assert "trust_remote_code=True" in source
    assert "revision" not in source


def test_text_of_the_data_cannot_leave_the_code(make_run: MakeRun, run: RunReport) -> None:
    prompt = 'a "quote"\n```\n# Heading\n<script>alert(1)</script> \\'
    sample = Sample(origin="x:1", prompt=prompt, reference="", before="", after="")
    evaluation = run.evaluation.model_copy(update={"samples": [sample]})
    card = render_model_card(make_run(evaluation=evaluation))
    assert prompt in strings(example(card))
    assert "\n# Heading" not in card


def test_names_and_paths_never_become_markup(make_run: MakeRun, run: RunReport) -> None:
    hostile = "`</code><script>alert(1)</script>|*a* [b](c)\n\n# d"
    data = run.config.data.model_copy(
        update={"held_out": run.config.data.held_out.model_copy(update={"source": hostile})}
    )
    settings = run.config.model.model_copy(update={"chat_template": hostile})
    sources = [one.model_copy(update={"source": hostile}) for one in run.summary.sources]
    card = render_model_card(
        make_run(
            name=hostile,
            config=run.config.model_copy(update={"data": data, "model": settings}),
            summary=run.summary.model_copy(update={"sources": sources}),
            record=run.record.model_copy(update={"device": hostile}),
            manifest=run.manifest.model_copy(update={"hardware": hostile}),
        )
    )
    html = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    plain = (
        MarkdownIt("commonmark").enable("table").render(render_model_card(run).split("---\n", 2)[2])
    )
    assert "<script>" not in html
    for element in ("<em>", "<a ", "<h1>", "<td", "<tr>"):
        assert html.count(element) == plain.count(element)


def test_a_long_prompt_is_not_the_example(make_run: MakeRun, run: RunReport) -> None:
    sample = run.evaluation.samples[0].model_copy(update={"prompt": "x" * 5000})
    evaluation = run.evaluation.model_copy(update={"samples": [sample]})
    assert "Hello!" in strings(example(render_model_card(make_run(evaluation=evaluation))))


def test_training_settings_are_listed(run: RunReport) -> None:
    card = render_model_card(run)
    for row in (
        "| Rank | 32 |",
        "| Scaling | 0.5 (alpha / r) |",
        "| Target modules | `q_proj`, `down_proj` |",
        "| Trained parameters | 218,112 of 1,218,112 (17.9 %) |",
        "| Peak learning rate | 0.0002 |",
        "| Rows in a step | 16 (micro-batch 2 x 8, no checkpointing) |",
        "| Training time | 1 min 40 s on `One GPU` |",
    ):
        assert row in card


def test_trained_tokens_are_listed_in_card_and_report(make_run: MakeRun, run: RunReport) -> None:
    assert "Tokens trained" not in render_model_card(run)
    rows = {"model.embed_tokens": (7, 9), "lm_head": (7, 9)}
    lora = run.lora.model_copy(
        update={
            "settings": run.lora.settings.model_copy(update={"trainable_tokens": ["<|a|>", "<b>"]}),
            "targets": run.lora.targets.model_copy(update={"token_rows": rows}),
        }
    )
    told = make_run(lora=lora)
    row = r"| Tokens trained | `<\|a\|>`, `<b>`, in model.embed_tokens and lm_head |"
    assert row in render_model_card(told)
    text = "Tokens trained too, in model.embed_tokens and lm_head: <code>&lt;|a|&gt;</code>"
    assert text in render_report(told)


def test_data_and_environment_are_listed(run: RunReport) -> None:
    card = render_model_card(run)
    assert "| `data/train.jsonl` | 2,620 |" in card
    assert "| Training | 3,620 | 160,000 | 96,000 | 7 |" in card
    assert "SHA-256 over all token ids and labels: `" + "ab" * 32 in card
    assert "| torch | `2.13.0` |" in card


def test_limits_follow_from_the_evaluation(make_run: MakeRun, run: RunReport) -> None:
    assert (
        "Evaluated only on 64 held-out rows (2,034 labelled tokens) of `data/held_out.jsonl`"
        in render_model_card(run)
    )
    held_out = run.config.data.held_out.model_copy(update={"source": None, "fraction": 0.1})
    data = run.config.data.model_copy(update={"held_out": held_out})
    config = run.config.model_copy(update={"data": data})
    assert "taken from the training sources" in render_model_card(make_run(config=config))


def test_a_local_base_model_is_to_be_named_before_publishing(
    make_run: MakeRun, run: RunReport, tmp_path: Path
) -> None:
    settings = run.config.model.model_copy(update={"id": str(tmp_path), "revision": None})
    config = run.config.model_copy(update={"model": settings})
    assert "The base model was a local folder" in render_model_card(make_run(config=config))
    assert "local folder" not in render_model_card(run)


def test_the_chat_template_of_the_run_is_named(make_run: MakeRun, run: RunReport) -> None:
    settings = run.config.model.model_copy(update={"chat_template": "alpaca"})
    config = run.config.model_copy(update={"model": settings})
    assert "It is `alpaca`, chosen for this run" in render_model_card(make_run(config=config))
    assert "It is the base model's own" in render_model_card(run)


def test_quantised_training_is_told(make_run: MakeRun, run: RunReport) -> None:
    model = run.lora.model.model_copy(update={"quantisation": "nf4"})
    card = render_model_card(make_run(lora=run.lora.model_copy(update={"model": model})))
    assert "quantised to NF4" in card
    assert "quantised" not in render_model_card(run)


def test_an_adapter_that_belongs_to_quantised_weights_is_loaded_onto_them(
    make_run: MakeRun, run: RunReport
) -> None:
    settings = run.lora.settings.model_copy(update={"init": "loftq"})
    model = run.lora.model.model_copy(update={"quantisation": "nf4"})
    lora = run.lora.model_copy(update={"model": model, "settings": settings})
    card = render_model_card(make_run(lora=lora))
    source = ast.unparse(example(card))
    assert "import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig" in source
    assert "bnb_4bit_quant_type='nf4'" in source
    assert "quantization_config=quantised)" in source
    assert "on unquantised ones it is wrong" in card


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("plain_*name*", "`plain_*name*`"),
        ("a `b` c", "`` a `b` c ``"),
        ("two\n\nlines", "`two lines`"),
        ("", "` `"),
    ],
)
def test_code_spans_hold_any_text(text: str, span: str) -> None:
    assert code(text) == span


def test_a_bar_does_not_end_a_cell() -> None:
    assert cell("a|b") == "`a\\|b`"
    assert code("a|b") == "`a|b`"


def test_the_card_tells_of_parity_and_forgetting(run: RunReport) -> None:
    card = render_model_card(run)
    assert "60 passages of general text" in card
    assert "3.20 before, 3.28 after (+2.5 %)" in card
    assert "logits within 0.300 (tolerated: 4, bfloat16)" in card
    assert "0.600" not in card  # the merged model's, which has a card of its own


def test_the_card_tells_what_the_proof_is(run: RunReport) -> None:
    def parity(**changes: Any) -> RunReport:
        proofs = [proof.model_copy(update=changes) for proof in run.manifest.parity]
        return replace(run, manifest=run.manifest.model_copy(update={"parity": proofs}))

    alone = (
        "The adapter changes so little that outputs alone could not tell it from none: the stored"
    )
    card = render_model_card(parity(tensors=28, proven_by="outputs and stored tensors"))
    assert "greedy answers the same. Its 28 stored tensors are to the bit those that" in card
    assert alone not in card
    weak = {"tensors": 28, "proven_by": "stored tensors", "update_kept": 0.61}
    card = render_model_card(parity(**weak), merged=True)
    assert "the same. Rows of each of its 28 stored tensors were computed again from base" in card
    assert alone in card
    assert "**Rounding to 16 bit leaves 61.0 % of what the adapter changes.**" in card
    assert "stored tensors" not in render_model_card(run)  # of an older version's run


def test_the_merged_models_card_loads_it_alone(run: RunReport) -> None:
    card = render_model_card(run, merged=True)
    assert metadata(card)["library_name"] == "transformers"
    assert metadata(card)["base_model_relation"] == "finetune"
    code = example(card)
    assert "PeftModel" not in ast.unparse(code)
    assert f"outputs/{run.name}/merged" in strings(code)
    assert "logits within 0.600 (tolerated: 4, bfloat16)" in card
    assert "0.300" not in card


def test_what_repeats_contradicts_or_leaks_is_counted_where_it_was_looked_for(
    run: RunReport,
) -> None:
    assert (
        "Training rows that repeat another: 0. Training rows that leak held-out ones: 0. SHA"
        in render_model_card(run)
    )
    found = {"contradictions": Repeats(equal=2), "leaks": Repeats(near=3, dropped=True)}
    summary = run.summary.model_copy(update=found)
    card = render_model_card(replace(run, summary=summary))
    assert "Training rows that contradict another: 2. " in card
    assert "Training rows that leak held-out ones: 3, left out. " in card


def test_what_the_chat_template_was_given_is_given_in_use(
    make_run: MakeRun, run: RunReport
) -> None:
    inputs = TemplateInputs(
        variables={"enable_thinking": False, "mood": 'a "b"'}, date=datetime.date(2026, 1, 31)
    )
    summary = run.summary.model_copy(
        update={"template_inputs": inputs, "notices": ["3 answers are trained otherwise"]}
    )

    card = render_model_card(make_run(summary=summary))

    calls = [node for node in ast.walk(example(card)) if isinstance(node, ast.Call)]
    (call,) = [c for c in calls if getattr(c.func, "attr", "") == "apply_chat_template"]
    given = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    assert given["enable_thinking"] is False
    assert given["mood"] == 'a "b"'
    assert "the date, which was 2026-01-31 in training" in card
    assert "3 answers are trained otherwise" in card
    assert "enable_thinking" not in render_model_card(run)
