"""vLLM's command line for a finished run, or why vLLM cannot serve it.

Flags as vLLM 0.11 and later document them (docs.vllm.ai: "LoRA Adapters", "vllm serve"). What an
adapter may hold is what its LoRA support takes (vllm/lora/peft_helper.py).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_engineering.errors import TalkError
from llm_engineering.export.exports import MERGED
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_CONFIG
from llm_engineering.serving.endpoint import Endpoint
from llm_engineering.talk.finished_run import FinishedRun

MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""vLLM's choices of ``--max-lora-rank``."""
_STATED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What vLLM takes of a ``generation_config.json`` as a request's defaults."""


def is_installed() -> bool:
    """Whether vLLM is in this environment."""
    return importlib.util.find_spec("vllm") is not None


def adapter_problem(config: Mapping[str, Any]) -> str | None:
    """Why vLLM takes no such adapter, by its ``adapter_config.json``; None if it does."""
    if config.get("use_dora"):
        return "vLLM takes no DoRA adapter"
    if config.get("bias", "none") != "none":
        return f"vLLM takes no adapter with trained biases (bias: {config['bias']})"
    if config.get("trainable_token_indices"):
        return "vLLM takes no adapter with trained tokens"
    if config.get("modules_to_save"):
        return f"vLLM takes no adapter with whole modules ({', '.join(config['modules_to_save'])})"
    if config.get("target_parameters"):
        return "vLLM takes no adapter of expert parameters (target_parameters)"
    rank = _rank(config)
    if rank > MAX_RANKS[-1]:
        return f"vLLM takes no adapter of rank {rank}, at most {MAX_RANKS[-1]}"
    return None


def command(run: FinishedRun, base: str, endpoint: Endpoint) -> tuple[list[str], list[str]]:
    """The command line, and what of the run vLLM will do otherwise.

    Args:
        run: What to serve.
        base: Folder of its base model's files, or the model's Hub id.
        endpoint: Where, and under which name.

    Raises:
        TalkError: vLLM takes no such adapter, and there is no merged model beside it.
    """
    served = run.folder
    lora: list[str] = []
    if run.kind == "adapter":
        values = json.loads((run.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        problem = adapter_problem(values)
        merged = run.folder.parent / MERGED
        if problem is None:
            rank = next(each for each in MAX_RANKS if each >= _rank(values))
            lora = ["--enable-lora", "--max-lora-rank", str(rank)]
            lora += ["--lora-modules", f"{endpoint.model}={run.folder}"]
        elif (merged / "config.json").is_file():
            served = merged
        else:
            raise TalkError(
                f"{run.folder}: {problem}; train with export.merged_16bit: true, whose merged model "
                "it serves"
            )
    line = ["vllm", "serve", base if lora else str(served)]
    line += ["--host", endpoint.host, "--port", str(endpoint.port)]
    # A request for the base model is another name's, so that nobody takes it for the adapter.
    line += ["--served-model-name", f"{endpoint.model}-base" if lora else endpoint.model, *lora]
    line += ["--tokenizer", str(served)]
    if lora and run.base.revision:
        line += ["--revision", run.base.revision]
    if (served / "generation_config.json").is_file():
        line += ["--generation-config", str(served)]
    if lora and (stated := _stated(base)):
        line += ["--override-generation-config", json.dumps(stated)]
    if run.inputs.variables:
        line += ["--default-chat-template-kwargs", json.dumps(run.inputs.variables)]
    if run.base.trust_remote_code:
        line += ["--trust-remote-code"]
    return line, _otherwise(run)


def _otherwise(run: FinishedRun) -> list[str]:
    notes = []
    if run.inputs.date is not None:
        notes.append(
            f"the chat template prints today's date, and printed {run.inputs.date} in training: vLLM "
            "cannot be given another"
        )
    if run.kind == "adapter" and run.base.quantisation != "none":
        notes.append(
            f"the adapter was trained on weights in {run.base.quantisation}, and is served on the "
            "16-bit ones"
        )
    return notes


def _rank(config: Mapping[str, Any]) -> int:
    return max([int(config.get("r", 0)), *(config.get("rank_pattern") or {}).values()])


def _stated(base: str) -> dict[str, Any]:
    """How the base model's own ``generation_config.json`` draws; vLLM reads the adapter's instead."""
    path = Path(base) / "generation_config.json"
    if not path.is_file():
        return {}
    values = json.loads(path.read_text(encoding="utf-8"))
    if not values.get("do_sample"):
        return {"temperature": 0.0}
    return {name: values[name] for name in _STATED if values.get(name) is not None}
