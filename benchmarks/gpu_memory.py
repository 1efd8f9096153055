"""The memory plan against what a GPU really takes, family by family; random weights, few layers.

Each setting loads a model at its full width with some of its layers, injects an adapter, and makes the
step that measures a plan before a training starts (two optimizer steps of two micro-batches, by this
project's own trainer). Prints a JSON line a setting as it goes, and a table in Markdown at the end. One
process measures all settings, since importing unsloth takes half a minute.

    python benchmarks/gpu_memory.py [--tokenizer FOLDER] [--only NUMBER ...] [--seconds 220]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# Model and its layers here, row, micro-batch, checkpointing; then what differs from the default
# adapter, bf16 and 8-bit AdamW. What matters most comes first: time may end the list early.
SETTINGS: list[tuple[str, int, int, int, str, dict[str, Any]]] = [
    ("llama-3.1-8b", 6, 2048, 4, "none", {}),
    ("qwen3-8b", 6, 2048, 4, "none", {}),
    ("qwen3-0.6b", 28, 2048, 4, "none", {}),
    ("mistral-7b", 6, 2048, 4, "none", {}),
    ("gemma3-4b", 6, 2048, 4, "none", {}),
    ("phi3-mini", 6, 2048, 4, "none", {}),
    ("qwen3-30b-a3b", 4, 2048, 4, "none", {}),
    ("qwen3-30b-a3b", 4, 2048, 4, "plain", {}),
    ("gemma3-4b", 6, 2048, 4, "plain", {}),
    ("phi3-mini", 6, 2048, 4, "plain", {}),
    ("gpt-oss-20b", 4, 2048, 2, "none", {}),
    ("qwen3-8b", 6, 2048, 4, "none", {"packing": True}),
    ("gemma3-4b", 6, 2048, 4, "none", {"packing": True}),
    ("phi3-mini", 6, 2048, 4, "unsloth", {}),
    ("qwen3-30b-a3b", 4, 2048, 4, "none", {"packing": True}),
    ("qwen3-30b-a3b", 4, 2048, 4, "unsloth", {}),
    ("gemma3-1b", 26, 2048, 2, "none", {}),
    ("phi3-mini", 12, 2048, 4, "none", {}),
    ("qwen3-30b-a3b", 8, 2048, 2, "none", {}),
    ("qwen3-30b-a3b", 4, 2048, 4, "none", {"quantisation": "nf4"}),
    ("qwen3-0.6b", 28, 1024, 16, "plain", {}),
    ("qwen3-8b", 6, 2048, 4, "plain", {"quantisation": "nf4"}),
    ("llama-3.1-8b", 6, 2048, 4, "none", {"quantisation": "fp8"}),
    ("qwen3-8b", 6, 2048, 4, "none", {"quantisation": "fp8", "packing": True}),
    ("qwen3-0.6b", 28, 2048, 8, "plain", {"quantisation": "fp8"}),
    ("llama-3.1-8b", 32, 32768, 1, "unsloth", {}),
    ("llama-3.1-8b", 32, 32768, 1, "tiled", {"quantisation": "nf4"}),
    ("llama-3.1-8b", 32, 131072, 1, "tiled", {}),
    ("llama-3.1-8b", 32, 131072, 1, "tiled", {"quantisation": "nf4"}),
    ("llama-3.1-8b", 32, 131072, 1, "unsloth", {"quantisation": "nf4"}),
]
_LONG = 100_000  # a step of such rows takes a minute
_TRAIN = ("packing", "optimizer")
_MODEL = ("quantisation",)
_COLUMNS = ("model", "plan", "planned_gb", "reserved_gb", "error")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of settings, from 0")
    parser.add_argument("--seconds", type=float, default=1e9, help="start none after so many")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for number in options.only or range(len(SETTINGS)):
            if time.perf_counter() - STARTED > options.seconds:
                print(json.dumps({"setting": number, "left_out": "time is up"}), flush=True)
                continue
            try:
                line = measure(SETTINGS[number], options.tokenizer, Path(folder))
            except Exception as error:  # the others are measured all the same
                traceback.print_exc(limit=-6)
                failed = {"failed": f"{type(error).__name__}: {error}"[:600]}
                print(json.dumps({"setting": number, **failed}), flush=True)
                continue
            lines.append(line)
            print(json.dumps({"setting": number, **line}), flush=True)
    print(f"\n| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for line in lines:
        print(f"| {' | '.join(str(line[name]) for name in _COLUMNS)} |")


def measure(
    setting: tuple[str, int, int, int, str, dict[str, Any]], tokenizer: Path, folder: Path
) -> dict[str, Any]:
    """Measure a setting; what was planned and what was reserved, in GB."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    import torch
    from cut_models import write_cut_model
    from random_llama import draw_weights

    from llm_engineering.configuration.evaluate import EvaluateSettings
    from llm_engineering.configuration.lora import LoraSettings
    from llm_engineering.configuration.model import ModelSettings
    from llm_engineering.configuration.train import TrainSettings
    from llm_engineering.model import live
    from llm_engineering.model.evaluation.held_out import held_out_metrics
    from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
    from llm_engineering.model.finetuning.load import live_base_model, load_model
    from llm_engineering.model.finetuning.record import TrainingRecord
    from llm_engineering.model.finetuning.trained_shape import trained_shape
    from llm_engineering.planning.batch_plan import BatchPlan
    from llm_engineering.planning.memory import estimate_memory
    from llm_engineering.planning.workload import Workload
    from llm_engineering.training.attempt import Attempt
    from llm_engineering.training.measured_step import measure_step

    name, layers, row, micro_batch, checkpointing, changes = setting
    accumulation = 2 if row < _LONG else 1
    model = ModelSettings(
        id=str(write_cut_model(name, layers, tokenizer, folder)),
        dtype="bfloat16",
        max_seq_length=row,
        **{k: v for k, v in changes.items() if k in _MODEL},
    )
    train = TrainSettings.model_validate(
        {
            "micro_batch": micro_batch,
            "gradient_accumulation": accumulation,
            "gradient_checkpointing": checkpointing,
            "optimizer": "adamw_8bit",
            **{k: v for k, v in changes.items() if k in _TRAIN},
        }
    )
    adapter = LoraSettings(**{k: v for k, v in changes.items() if k not in (*_TRAIN, *_MODEL)})
    shape = trained_shape(model, adapter)
    work = Workload(
        shape=shape.model,
        adapter=shape.adapter,
        dtype="bfloat16",
        quantisation=model.quantisation,
        lora=adapter,
        train=train,
        evaluate=EvaluateSettings(),
        longest_row=row,
        mean_row=row,
    )
    estimate = estimate_memory(work, micro_batch, checkpointing)
    plan = BatchPlan(
        micro_batch=micro_batch,
        gradient_accumulation=accumulation,
        gradient_checkpointing=checkpointing,
        estimate=estimate,
    )

    live.release()
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated()  # by compiled code, of settings measured before
    started = time.perf_counter()
    reference = load_model(model)
    draw_weights(live_base_model(reference).model)
    lora = inject_lora(reference, adapter)
    loaded = time.perf_counter() - started
    attempt = Attempt(
        lora=lora, dataset=folder, settings=train, evaluate=EvaluateSettings(), seed=0, start=None,
        plan=plan, checkpoint=None, record=TrainingRecord(), folder=folder / "run",
    )  # fmt: skip
    step = measure_step(attempt, live_lora_model(lora), _rows(row, 4 * micro_batch), plan)
    stepped = time.perf_counter() - started - loaded
    torch.cuda.reset_peak_memory_stats()
    held_out = _rows(row, 1 if row >= _LONG else 4)
    held_out_metrics(live_lora_model(lora).model, held_out, batch_size=len(held_out), pad_id=2)
    evaluating = torch.cuda.max_memory_reserved()
    parts = {key: round(value / 1e9, 2) for key, value in estimate.model_dump().items()}
    return {
        "model": f"{name}, {layers} layers",
        "row": row,
        "plan": str(plan) + "".join(f", {key}: {value}" for key, value in changes.items()),
        "planned_gb": round(estimate.training / 1e9, 2),
        "reserved_gb": round((step.peak - left) / 1e9, 2),
        "error": f"{estimate.training / (step.peak - left) - 1:+.1%}",
        "held_gb": round((step.held - left) / 1e9, 3),
        "held_planned_gb": round((estimate.weights + 4 * shape.adapter.parameters) / 1e9, 3),
        "parts_gb": parts,
        "trainable": lora.trainable_parameters,
        "load_seconds": round(loaded, 1),
        "step_seconds": round(stepped, 1),
        "evaluating_gb": round((evaluating - left) / 1e9, 2),
        "evaluating_planned_gb": round(estimate.evaluating / 1e9, 2),
        "evaluation_seconds": round(time.perf_counter() - started - loaded - stepped, 1),
    }


def _rows(length: int, count: int) -> Any:
    import datasets

    draw = random.Random(0)
    rows = []
    for _ in range(count):
        ids = [draw.randrange(1000, 32000) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": ids})
    return datasets.Dataset.from_list(rows)


if __name__ == "__main__":
    main()
