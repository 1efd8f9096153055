"""The manifest names a run's inputs: what was read of the data, and what was not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.summary import DatasetSummary, SourceSummary
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.recipes import AdapterTargets
from llm_engineering.reporting.manifest import Manifest, make_manifest


def test_what_was_not_read_of_a_source_is_in_the_manifest(
    make_config: Callable[..., FinetuningConfig],
) -> None:
    sources = [
        SourceSummary(source="a.jsonl", rows=3, form="messages", used=2, unread={"column meta": 3}),
        SourceSummary(source="b.jsonl", rows=1, form="text", used=1),
    ]
    model = SimpleNamespace(id="m", revision=None, chat_template="", weight_digests={})
    summary = SimpleNamespace(digest="d", sources=sources, template_inputs=TemplateInputs())
    record = SimpleNamespace(
        job=None,
        there=None,
        device="CPU",
        train_tokens=1,
        train_seconds=1.0,
        resumed_from_step=None,
    )

    manifest = make_manifest(
        "run",
        make_config(),
        cast(DatasetSummary, summary),
        cast(Any, SimpleNamespace(model=model, targets=AdapterTargets())),
        cast(Any, SimpleNamespace(digest="e")),
        cast(Any, record),
        parity=[],
        wall_seconds=1.0,
    )

    again = Manifest.model_validate_json(manifest.model_dump_json())
    assert again.data_sources == sources
    assert again.data_sources[0].unread == {"column meta": 3}
