"""Where an export is read back: as few GPUs as hold it, before the CPU."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llm_engineering.export.reload import (
    Export,
    ReloadRequest,
    ReloadResponse,
    main,
    placement,
)
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.model.evaluation.probe import Probe, ProbeRow


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [
        (60, [80, 80], {"": "cuda:0"}),
        (60, [40, 80], {"": "cuda:1"}),
        (86, [80, 80], "balanced"),
        (150, [80, 80], {"": "cpu"}),
        (1, [], {"": "cpu"}),
    ],
)
def test_weights_that_no_gpu_holds_are_spread_over_all(
    size: int, free: list[int], expected: Any
) -> None:
    assert placement(size, free) == expected


@pytest.mark.slow
def test_an_adapter_stops_where_its_own_settings_say(
    tiny_model: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GLM-4.5's answers end with the next turn's token, which its base model need not name."""
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as the fresh process does, and back again
    own = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    (own / "generation_config.json").write_text('{"eos_token_id": [2, 300]}')
    row = ProbeRow(
        origin="x:1",
        input_ids=[5, 6, 7],
        prompt_ids=[5, 6],
        messages=[{"role": "user", "content": "Why?"}],
        template_inputs=TemplateInputs(variables={"mood": "calm"}),
        rendered_ids=[],
    )
    (own / "chat_template.jinja").write_text("{{ mood }}")
    exports = [
        Export(kind="adapter", path=str(folder), base=str(tiny_model), is_proven=False)
        for folder in (adapter, own)
    ]
    request = ReloadRequest(
        exports=exports,
        rows=[row],
        live=Probe(rows=[], greedy=[], answers=[]),
        dtype="float32",
        stop_ids=[2],
        trust_remote_code=False,
    )
    asked, answered = tmp_path / "request.json", tmp_path / "response.json"
    asked.write_text(request.model_dump_json())

    main(str(asked), str(answered))

    plain, found = ReloadResponse.model_validate_json(answered.read_bytes()).exports
    assert (plain.error, found.error) == (None, None)
    assert (plain.stop_ids, found.stop_ids) == ([2], [2, 300])
    assert AutoTokenizer.from_pretrained(own).decode(found.rendered_ids[0]) == "calm"
