"""Training speed at the shape of Llama-3.1-8B on one GPU: this project against what others do.

Weights are random, the documents are the embedded data's text cut to the lengths of instruction
data, packed into rows of 2,048 tokens, 16 rows a step, LoRA r = 32 on seven projections, 8-bit
AdamW. Every variant runs in a process of its own (with --together in one, which saves imports and
blurs start-up times) and prints one JSON line; the first line is the card's rate in large matrix products, from which the ceiling of 4 operations a parameter and token
follows (forward, and backward to the activations; the weights are frozen).

    python benchmarks/gpu_throughput.py [--tokenizer FOLDER] [--steps 6] [--only VARIANT ...]
    python benchmarks/gpu_throughput.py --table FILE   # the README's table of what a run printed
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

ROW, WARM_UP = 2048, 2
ROWS_IN_STEP = {"135m": 32}  # 16 of other shapes
LORA: dict[str, Any] = {
    "r": 32,
    "lora_alpha": 32,
    "lora_dropout": 0,
    "target_modules": [f"{n}_proj" for n in ("q", "k", "v", "up", "down", "o", "gate")],
}


def main() -> None:
    """Run the variants in turn, or one of them in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps; two warm up")
    parser.add_argument("--shape", default="8b", help="of random_llama.py")
    parser.add_argument("--only", nargs="*", help="default: all; NAME@SHAPE is of another shape")
    parser.add_argument("--profile", type=Path, help="a file for the kernels of one more step")
    parser.add_argument("--run", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--micro-batch", type=int, help="instead of the plan's; of NAME@SHAPE:N too"
    )
    parser.add_argument("--together", action="store_true", help="all variants in this process")
    parser.add_argument("--table", type=Path, help="print the table of what a run printed")
    options = parser.parse_args()
    if options.table:
        lines = options.table.read_text(encoding="utf-8").splitlines()
        print(table([json.loads(line) for line in lines if line.startswith("{")]))
        return
    if options.run:
        from random_llama import write_model

        model = write_model(options.shape, options.tokenizer, options.folder)
        print("RESULT " + json.dumps(VARIANTS[options.run](model, options)), flush=True)
        return
    if options.together:
        run_together(options)
        return
    rate = None
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or VARIANTS:
            command = [sys.executable, *sys.argv, "--run", name, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = [x[7:] for x in done.stdout.splitlines() if x.startswith("RESULT ")]
            if not lines:
                print(json.dumps({"variant": name, "failed": done.stderr[-1500:]}), flush=True)
                continue
            result = json.loads(lines[0])
            rate = result.get("matrix_tflops", rate)
            if rate and "tokens_per_second" in result:
                ceiling = rate * 1e12 / (4 * result.pop("parameters"))
                result["share_of_ceiling"] = round(result["tokens_per_second"] / ceiling, 3)
            print(json.dumps({"variant": name, **result}), flush=True)


def run_together(options: argparse.Namespace) -> None:
    """Run the variants in this process; one that fails says so, and the others go on."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    import torch
    from random_llama import write_model

    from llm_engineering.model import live

    default = options.shape
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        for name in options.only or VARIANTS:
            variant, _, shape = name.partition("@")
            shape, _, micro_batch = shape.partition(":")
            options.shape, options.micro_batch = shape or default, int(micro_batch or 0) or None
            model = write_model(options.shape, options.tokenizer, options.folder)
            if options.profile:
                with options.profile.open("a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
            try:
                result = VARIANTS[variant](model, options)
            except Exception:
                result = {"failed": traceback.format_exc()[-2500:]}
            print(json.dumps({"variant": name, **result}), flush=True)
            live.release()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def table(results: list[dict[str, Any]]) -> str:
    """Markdown of a run's results: what was measured, on which card, by which versions."""
    by_name = {result["variant"]: result for result in results if "failed" not in result}
    card = by_name["matrix_rate"]
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    base = by_name.get("handbook", {}).get("tokens_per_second")
    lines = [
        f"{card['card']}, {versions}, {card['date']}:",
        "",
        "| | tokens/s | of the handbook's | peak GB | to the first step |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, words in WORDS.items():
        if name in by_name:
            one = by_name[name]
            ratio = f"{one['tokens_per_second'] / base:.2f} x" if base else ""
            lines.append(
                f"| {words} | {one['tokens_per_second']:,} | {ratio} | {one['peak_reserved_gb']:.1f} "
                f"| {one['seconds_to_first_step']:.0f} s |"
            )
    return "\n".join(lines)


def matrix_rate(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The card, and its bf16 rate in products of 8,192 x 8,192 random numbers."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(20):
        a @ b
    start.record()
    for _ in range(100):
        a @ b
    end.record()
    torch.cuda.synchronize()
    rate = 100 * 2 * 8192**3 / (start.elapsed_time(end) / 1e3) / 1e12
    packages = ("torch", "triton", "transformers", "trl", "peft", "unsloth")
    return {
        "card": torch.cuda.get_device_name(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "matrix_tflops": round(rate),
    }


def handbook(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The LLM Engineer's Handbook's recipe: unsloth, its offloaded checkpointing, 2 rows x 8."""
    from unsloth import FastLanguageModel  # isort: skip
    import torch
    from trl import SFTConfig, SFTTrainer

    loaded, tokenizer = FastLanguageModel.from_pretrained(
        str(model), max_seq_length=ROW, dtype=torch.bfloat16, load_in_4bit=False
    )
    fill(loaded)
    wrapped = FastLanguageModel.get_peft_model(loaded, **LORA, use_gradient_checkpointing="unsloth")
    trainer = SFTTrainer(
        model=wrapped,
        processing_class=tokenizer,
        train_dataset=documents(tokenizer, options),
        args=SFTConfig(
            **common(options), per_device_train_batch_size=2, gradient_accumulation_steps=8
        ),
    )
    return timed(trainer)


def peft_trl(model: Path, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """peft and trl alone, with checkpointing, 2 rows x 8; packed rows as trl packs them."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map="cuda")
    fill(loaded)
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        model=loaded,
        processing_class=tokenizer,
        train_dataset=documents(tokenizer, options),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
        args=SFTConfig(
            **common(options),
            **more,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=8,
            gradient_checkpointing=True,
        ),
    )
    return timed(trainer)


def peft_trl_liger(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same with Liger's kernels."""
    return peft_trl(model, options, use_liger_kernel=True)


def ours(model: Path, options: argparse.Namespace, quantisation: Any = "none") -> dict[str, Any]:
    """This project: load, inject, plan for the card, train; the pipeline's steps in a row."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    from llm_engineering.configuration.evaluate import EvaluateSettings
    from llm_engineering.configuration.lora import LoraSettings
    from llm_engineering.configuration.model import ModelSettings
    from llm_engineering.configuration.train import TrainSettings
    from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
    from llm_engineering.model.finetuning.load import live_base_model, load_model
    from llm_engineering.model.finetuning.trained_shape import trained_shape
    from llm_engineering.model.finetuning.trainer import make_trainer
    from llm_engineering.planning import hardware
    from llm_engineering.planning.batch_plan import gpu_plans
    from llm_engineering.planning.workload import Workload

    settings = ModelSettings(
        id=str(model), dtype="bfloat16", quantisation=quantisation, max_seq_length=ROW
    )
    reference = load_model(settings)
    fill(live_base_model(reference).model)
    lora = inject_lora(reference, LoraSettings(**LORA))
    train = TrainSettings(
        effective_batch=ROWS_IN_STEP.get(options.shape, 16),
        micro_batch=options.micro_batch or "auto",
        max_steps=options.steps,
        warmup_steps=1,
        optimizer="adamw_8bit",
        packing=True,
        checkpoint_every=None,
    )
    shape = trained_shape(settings, lora.settings)
    work = Workload(
        shape=shape.model,
        adapter=shape.adapter,
        dtype="bfloat16",
        quantisation=quantisation,
        lora=lora.settings,
        train=train,
        evaluate=EvaluateSettings(),
        longest_row=ROW,
        mean_row=ROW,
    )
    plan = next(p for p in gpu_plans(work) if p.fits(hardware.gpu_capacity_bytes()))
    held = live_lora_model(lora)
    rows = documents(held.tokenizer, options)
    trainer = make_trainer(held, rows, lora, train, plan, 0, options.folder / "ours")
    return {"plan": str(plan), **timed(trainer, options.profile)}


def ours_fa4(
    model: Path, options: argparse.Namespace, quantisation: Any = "none"
) -> dict[str, Any]:
    """The same with FlashAttention 4, where its package is in the folder that FLASH_ATTENTION_4 names.

    unsloth and transformers take the name of its package for FlashAttention 2, so that it must not be
    found before they have looked.
    """
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    sys.path.append(os.environ["FLASH_ATTENTION_4"])
    from torch.nn.attention import activate_flash_attention_impl

    activate_flash_attention_impl("FA4")
    return ours(model, options, quantisation)


def ours_fp8_fa4(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both."""
    return ours_fa4(model, options, "fp8")


def ours_fp8(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same with the frozen weights in FP8."""
    return ours(model, options, "fp8")


def common(options: argparse.Namespace) -> dict[str, Any]:
    """trl's arguments that all scripts give alike."""
    return {
        "output_dir": str(options.folder / "trainer"),
        "max_steps": options.steps,
        "learning_rate": 3e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": 1,
        "optim": "adamw_8bit",
        "weight_decay": 0.01,
        "max_length": ROW,
        "packing": True,
        "bf16": True,
        "seed": 0,
        "data_seed": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }


def fill(model: Any) -> None:
    """Random weights: zeros, as the file holds, would be too easy a load."""
    from random_llama import draw_weights

    draw_weights(model)


def documents(tokenizer: Any, options: argparse.Namespace) -> Any:
    """Tokenized documents, enough for all steps; median 245 tokens, some as long as a row."""
    import datasets

    with (ROOT / "data" / "stdlib_qa" / "train.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"] for line in lines]
    stream = tokenizer("\n\n".join(texts))["input_ids"]
    draw = random.Random(0)
    rows, tokens = [], 0
    while tokens < 1.1 * ROW * ROWS_IN_STEP.get(options.shape, 16) * (options.steps + 1):
        length = max(32, min(ROW, int(draw.lognormvariate(5.5, 0.9))))
        start = draw.randrange(len(stream) - length)
        ids = stream[start : start + length]
        rows.append({"input_ids": ids, "labels": ids})
        tokens += length
    return datasets.Dataset.from_list(rows)


def timed(trainer: Any, profile: Path | None = None) -> dict[str, Any]:
    """Train; the speed after the warm-up, as the median of the steps.

    Args:
        trainer: Ready to train.
        profile: Where a table of one more step's kernels is written.
    """
    import torch
    from transformers import TrainerCallback

    from llm_engineering.model.finetuning.token_count import TokenCount

    steps: list[tuple[float, int]] = []
    tokens = TokenCount(lambda row: len(row["input_ids"]))
    trainer.data_collator = tokens.collating(trainer.data_collator)

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append((time.perf_counter(), 0))

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if profile and state.global_step == state.max_steps - 1:
                watch.start()

        def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tokens.batch_is_trained()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            tokens.batch_is_trained()
            steps.append((time.perf_counter(), tokens.trained))

    watch = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    trainer.add_callback(Clock())
    if profile:
        trainer.args.max_steps += 1
    trainer.train()
    if profile:
        watch.stop()
        steps.pop()
        kernels = watch.key_averages().table(
            sort_by="self_device_time_total", row_limit=45, max_name_column_width=90
        )
        with profile.open("a", encoding="utf-8") as file:
            file.write(kernels)
    speeds = [
        (read - seen) / (now - before) for (before, seen), (now, read) in itertools.pairwise(steps)
    ]
    model = trainer.model
    return {
        "tokens_per_second": round(statistics.median(speeds[WARM_UP:])),
        "each_step": [round(speed) for speed in speeds],
        "tokens_a_step": round(steps[-1][1] / (len(steps) - 1)),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
        "seconds_to_first_step": round(steps[1][0] - STARTED, 1),
        "first_step_seconds": round(steps[1][0] - steps[0][0], 1),
        "losses": [round(x["loss"], 4) for x in trainer.state.log_history if "loss" in x],
        "parameters": sum(p.numel() for p in model.parameters() if not p.requires_grad),
    }


VARIANTS = {
    "matrix_rate": matrix_rate,
    "handbook": handbook,
    "peft_trl": peft_trl,
    "peft_trl_liger": peft_trl_liger,
    "ours": ours,
    "ours_fp8": ours_fp8,
    "ours_fa4": ours_fa4,
    "ours_fp8_fa4": ours_fp8_fa4,
}
WORDS = {
    "peft_trl": "peft + trl",
    "peft_trl_liger": "peft + trl + Liger",
    "handbook": "the handbook's recipe (unsloth)",
    "ours": "this project",
    "ours_fp8": "this project, frozen weights in FP8",
}

if __name__ == "__main__":
    main()
