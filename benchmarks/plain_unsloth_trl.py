"""The embedded default as a plain unsloth + trl script: the yardstick of benchmarks/overhead.py.

The same base model, rows, LoRA values, optimisation, held-out evaluations and sample answers, the
way a tutorial would write it: no ZenML, no data checks, no record, no report.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(folder: str) -> None:
    """Train, and print one JSON line."""
    started = time.perf_counter()
    from unsloth import FastLanguageModel  # isort: skip
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from llm_engineering.configuration import load_config

    config = load_config(ROOT / "configs" / "finetuning.yaml")
    model_settings, lora, train = config.model, config.lora, config.train

    def rows(name: str, count: int | None) -> Dataset:
        with (ROOT / "data" / "stdlib_qa" / name).open(encoding="utf-8") as lines:
            values = [json.loads(line) for line in islice(lines, count)]
        return Dataset.from_list(
            [
                {
                    "prompt": [{"role": "user", "content": row["instruction"]}],
                    "completion": [{"role": "assistant", "content": row["response"]}],
                }
                for row in values
            ]
        )

    held_out = rows("held_out.jsonl", config.data.held_out.max_rows)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(ROOT / model_settings.id),
        max_seq_length=model_settings.max_seq_length,
        dtype=torch.float32,
        load_in_4bit=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        use_gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows("train.jsonl", None),
        eval_dataset=held_out,
        args=SFTConfig(
            output_dir=folder,
            max_steps=train.max_steps or -1,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=config.evaluate.batch_size,
            gradient_accumulation_steps=train.rows_in_step // 2,
            learning_rate=train.learning_rate,
            lr_scheduler_type=train.lr_scheduler,
            warmup_steps=train.warmup_steps,
            weight_decay=train.weight_decay,
            max_length=model_settings.max_seq_length,
            gradient_checkpointing=False,
            bf16=False,
            seed=config.run.seed,
            logging_steps=1,
            save_strategy="steps",
            save_steps=train.checkpoint_every or 1000,
            report_to="none",
        ),
    )

    def sample() -> None:
        for row in held_out.select(range(config.evaluate.samples)):
            ids = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            model.generate(**ids, max_new_tokens=config.evaluate.max_new_tokens, do_sample=False)

    before = trainer.evaluate()["eval_loss"]
    sample()
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    sample()
    model.save_pretrained(f"{folder}/adapter")
    tokenizer.save_pretrained(f"{folder}/adapter")
    print(
        json.dumps(
            {"before": before, "after": after, "seconds_inside": time.perf_counter() - started}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
