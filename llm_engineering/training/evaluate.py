"""Evaluate: what the training changed, in figures and in words."""

from __future__ import annotations

from typing import Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.generic import GenericLoss, generic_metrics
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.probe import (
    Probe,
    TrainedProbe,
    choose_rows,
    mean_kl,
    take_probe,
)
from llm_engineering.model.evaluation.samples import Sample, answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.load import live_base_model
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe


def evaluate(
    lora: LoraRecipe,
    adapter: AdapterFolder,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
) -> Evaluation:
    """Compare base model and adapter, on the held-out rows and on general text.

    The held-out metrics are those that training took of these very weights before its first step
    and after its last; the sample answers are generated here, greedily, from the same prompts. What
    was trained by several ranks or in a job was evaluated there, since only they may be able to.
    """
    if record.evaluation is not None:
        return record.evaluation
    trained = live_trained_model(lora, adapter)
    held_out = dataset.split("held_out")
    prompts = choose_prompts(held_out, settings.samples, trained.tokenizer)
    inputs = dataset.summary.template_inputs
    rows = choose_rows(held_out, settings.parity_rows, trained.tokenizer, inputs)
    stop_ids = lora.model.stop_ids

    def answer(model: Any) -> list[str]:
        return answers(
            model,
            trained.tokenizer,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=frozenset(stop_ids),
        )

    def generic(model: Any) -> HeldOutMetrics | None:
        if not settings.generic_passages:
            return None
        return generic_metrics(
            model,
            trained.tokenizer,
            settings.generic_passages,
            batch_size=settings.batch_size,
            max_length=lora.model.max_seq_length,
        )

    def probe(model: Any, same_as: Probe | None = None) -> Probe | None:
        if not rows:
            return None
        pad_id = trained.tokenizer.pad_token_id
        return take_probe(
            model, rows, pad_id=pad_id, stop_ids=stop_ids, same_as=same_as, answer=same_as is None
        )

    after, generic_after = answer(trained.model), generic(trained.model)
    probed = probe(trained.model)
    effect: float | None = None
    if lora.settings.bias == "none":
        with trained.model.disable_adapter():
            before, generic_before = answer(trained.model), generic(trained.model)
            if probed is not None and (bare := probe(trained.model, probed)) is not None:
                effect = mean_kl(probed, bare)
    else:  # trained biases are the base model's own and stay when the adapter is switched off
        base = live_base_model(lora.model).model
        before, generic_before = answer(base), generic(base)
    return Evaluation(
        before=record.before,
        after=record.after,
        samples=[
            Sample(
                origin=prompt.origin,
                prompt=prompt.text,
                reference=prompt.reference,
                before=one,
                after=other,
            )
            for prompt, one, other in zip(prompts, before, after, strict=True)
        ],
        generic=None
        if generic_before is None or generic_after is None
        else GenericLoss(before=generic_before, after=generic_after),
        trained_probe=None
        if probed is None
        else TrainedProbe(rows=rows, probe=probed, effect=effect),
    )
