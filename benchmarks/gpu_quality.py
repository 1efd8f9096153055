"""What FP8 weights cost in what is learned: the embedded model trained on 16-bit and on FP8 weights.

The same data, seeds, ranks and rates; held-out loss before and after, and the course of the loss. What was
trained on FP8 is measured on the 16-bit weights too: those are what it is merged into and served with.
One process trains all, one JSON line a training; the last line has the differences.

    python benchmarks/gpu_quality.py [--steps 60] [--ranks 8 32] [--rates 5e-4 1e-3 2e-3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
KINDS = ("none", "fp8")


def main() -> None:
    """Train each pair, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "finetuning.yaml")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct", help="as model.id")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ranks", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--rates", type=float, nargs="*", default=[5e-4, 1e-3, 2e-3])
    options = parser.parse_args()
    os.environ["UNSLOTH_BLOCK_COMPILE"] = "0"  # half a minute for each model
    os.chdir(ROOT)
    found: dict[tuple[int, float, str], float] = {}
    moved: dict[tuple[int, float], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rank, rate, kind in itertools.product(options.ranks, options.rates, KINDS):
            setting = {"rank": rank, "rate": rate, "quantisation": kind}
            try:
                line = trained(options, setting, Path(folder))
                found[rank, rate, kind] = line["held_out"][-1]
                if "on_16_bit" in line:
                    moved[rank, rate] = line["on_16_bit"]
            except Exception:
                line = {"failed": traceback.format_exc()[-1500:]}
            print(json.dumps({**setting, **line}), flush=True)
    print(json.dumps({"fp8_over_16_bit": _differences(found)}), flush=True)
    on_16_bit = {(rank, rate, "fp8"): loss for (rank, rate), loss in moved.items()}
    on_16_bit |= {at: loss for at, loss in found.items() if at[2] == "none"}
    print(json.dumps({"on_16_bit_over_16_bit": _differences(on_16_bit)}), flush=True)


def trained(options: argparse.Namespace, setting: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train once; losses in nats a token."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    from llm_engineering.configuration.load import load_config
    from llm_engineering.data.dataset import PreparedDataset
    from llm_engineering.data.prepare import prepare_data
    from llm_engineering.model import live
    from llm_engineering.model.evaluation.held_out import held_out_metrics
    from llm_engineering.model.finetuning.backend import backend
    from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
    from llm_engineering.model.finetuning.load import load_model
    from llm_engineering.training.run import train

    config = load_config(
        options.config,
        [
            f"model.id={options.model}",
            f"lora.r={setting['rank']}",
            f"lora.lora_alpha={setting['rank']}",
            f"train.learning_rate={setting['rate']}",
            f"model.quantisation={setting['quantisation']}",
            f"train.max_steps={options.steps}",
            "train.packing=true",
            "train.effective_batch=8",
            "train.log_every=1",
        ],
    )
    data = folder / "data"
    if data.is_dir():
        dataset = PreparedDataset.read(data)
    else:
        dataset = prepare_data(config.data, config.model, objective="sft", folder=data)
    started = time.perf_counter()
    lora = inject_lora(load_model(config.model), config.lora)
    name = "-".join(str(value) for value in setting.values())
    adapter, record = train(
        lora, dataset, config.train, config.evaluate, seed=0, work=folder / "work", name=name
    )
    live.release()
    more = {}
    if setting["quantisation"] != "none":
        plain = config.model.model_copy(update={"quantisation": "none"})
        whole = inject_lora(load_model(plain), config.lora)
        held = live_lora_model(whole)
        with backend().other_adapter(held.model, adapter.folder):
            metrics = held_out_metrics(
                held.model, dataset.split("held_out"),
                batch_size=config.evaluate.batch_size, pad_id=held.tokenizer.pad_token_id,
            )  # fmt: skip
        more["on_16_bit"] = round(metrics.loss, 5)
        live.release()
    return {
        **more,
        "held_out": [round(point.metrics.loss, 5) for point in record.held_out],
        "losses": [round(point.loss, 3) for point in record.points],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _differences(found: dict[tuple[int, float, str], float]) -> dict[str, float]:
    return {
        f"rank {rank}, rate {rate:g}": round(
            found[rank, rate, "fp8"] / found[rank, rate, "none"] - 1, 5
        )
        for rank, rate, kind in found
        if kind == "fp8" and (rank, rate, "none") in found
    }


if __name__ == "__main__":
    main()
