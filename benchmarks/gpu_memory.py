"""The memory plan against what a GPU really takes: one JSON line a setting, the last one a summary.

Each setting loads a model of random weights, injects an adapter and makes two optimizer steps of two
micro-batches through this project's own trainer. PyTorch's peak of reserved bytes is compared with
the plan's. One process measures all settings, since importing unsloth takes half a minute.

    python benchmarks/gpu_memory.py [--tokenizer FOLDER] [--only NUMBER ...]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# Shape, row, micro-batch, checkpointing; then what differs from rank 32, bf16 and 8-bit AdamW.
SETTINGS: list[tuple[str, int, int, str, dict[str, Any]]] = [
    ("8b", 2048, 1, "none", {}),
    ("8b", 2048, 4, "none", {}),
    ("8b", 2048, 4, "none", {"packing": True}),
    ("8b", 2048, 2, "none", {"r": 128, "optimizer": "adamw_torch"}),
    ("8b", 8192, 1, "none", {"r": 16}),
    ("8b", 2048, 2, "none", {"target_modules": ["q_proj", "v_proj"]}),
    ("8b", 2048, 4, "plain", {}),
    ("8b", 2048, 2, "unsloth", {}),
    ("8b", 2048, 8, "unsloth", {}),
    ("8b", 8192, 2, "unsloth", {"r": 64}),
    ("8b", 2048, 2, "none", {"quantisation": "nf4"}),
    ("8b", 2048, 4, "unsloth", {"quantisation": "nf4", "r": 16}),
    ("8b", 2048, 2, "unsloth", {"use_dora": True}),
    ("8b", 2048, 8, "plain", {"use_rslora": True}),
    ("1b", 2048, 8, "none", {}),
    ("1b", 2048, 4, "none", {"packing": True}),
    ("1b", 1024, 8, "none", {"r": 8}),
    ("1b", 2048, 16, "plain", {}),
    ("1b", 2048, 16, "unsloth", {"r": 64, "optimizer": "adamw_torch"}),
    ("1b", 1024, 8, "none", {"quantisation": "nf4"}),
]
_TRAIN = ("packing", "optimizer")
_MODEL = ("quantisation",)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of settings, from 0")
    options = parser.parse_args()
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        for number in options.only or range(len(SETTINGS)):
            line = measure(SETTINGS[number], options.tokenizer, Path(folder))
            errors.append(abs(line["error"]))
            print(json.dumps({"setting": number, **line}), flush=True)
    print(json.dumps({"settings": len(errors), "largest_error": max(errors)}))


def measure(
    setting: tuple[str, int, int, str, dict[str, Any]], tokenizer: Path, folder: Path
) -> dict[str, Any]:
    """Train two steps of a setting; what was planned and what was reserved, in GB."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    import torch
    from random_llama import draw_weights, write_model

    from llm_engineering.configuration.evaluate import EvaluateSettings
    from llm_engineering.configuration.lora import LoraSettings
    from llm_engineering.configuration.model import ModelSettings
    from llm_engineering.configuration.train import TrainSettings
    from llm_engineering.model import live
    from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
    from llm_engineering.model.finetuning.load import live_base_model, load_model
    from llm_engineering.model.finetuning.trainer import make_trainer
    from llm_engineering.planning.batch_plan import BatchPlan
    from llm_engineering.planning.memory import estimate_memory
    from llm_engineering.planning.shape import read_shape
    from llm_engineering.planning.workload import Workload

    shape, row, micro_batch, checkpointing, changes = setting
    model = ModelSettings(
        id=str(write_model(shape, tokenizer, folder)),
        dtype="bfloat16",
        max_seq_length=row,
        **{k: v for k, v in changes.items() if k in _MODEL},
    )
    train = TrainSettings.model_validate(
        {
            "max_steps": 2,
            "warmup_steps": 1,
            "micro_batch": micro_batch,
            "gradient_accumulation": 2,
            "gradient_checkpointing": checkpointing,
            "checkpoint_every": None,
            "optimizer": "adamw_8bit",
            **{k: v for k, v in changes.items() if k in _TRAIN},
        }
    )
    adapter = LoraSettings(**{k: v for k, v in changes.items() if k not in (*_TRAIN, *_MODEL)})
    work = Workload(
        shape=read_shape(model),
        dtype="bfloat16",
        quantisation=model.quantisation,
        lora=adapter,
        train=train,
        evaluate=EvaluateSettings(),
        longest_row=row,
        mean_row=row,
    )
    plan = BatchPlan(
        micro_batch=micro_batch,
        gradient_accumulation=2,
        gradient_checkpointing=checkpointing,
        estimate=estimate_memory(work, micro_batch, checkpointing),
    )

    live.release()
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_allocated()  # by compiled code, of settings measured before
    reference = load_model(model)
    draw_weights(live_base_model(reference).model)
    lora = inject_lora(reference, adapter)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(
        live_lora_model(lora),
        _rows(row, 4 * micro_batch, short=train.packing),
        lora,
        train,
        plan,
        0,
        folder / "trainer",
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    measured = torch.cuda.max_memory_reserved() - left
    planned = plan.estimate.training if plan.estimate else 0.0
    return {
        "shape": shape,
        "row": row,
        "plan": str(plan),
        **changes,
        "planned_gb": round(planned / 1e9, 2),
        "reserved_gb": round(measured / 1e9, 2),
        "allocated_gb": round((torch.cuda.max_memory_allocated() - left) / 1e9, 2),
        "error": round(planned / measured - 1, 4),
        "seconds": round(seconds, 1),
    }


def _rows(length: int, count: int, *, short: bool) -> Any:
    import datasets

    draw = random.Random(0)
    rows = []
    for _ in range(count * 8 if short else count):
        tokens = min(length, max(32, int(draw.lognormvariate(5.5, 0.9)))) if short else length
        ids = [draw.randrange(1000, 40000) for _ in range(tokens)]
        rows.append({"input_ids": ids, "labels": ids})
    return datasets.Dataset.from_list(rows)


if __name__ == "__main__":
    main()
