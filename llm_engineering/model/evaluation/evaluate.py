"""Evaluate: what the training changed, in figures and in words."""

from __future__ import annotations

from llm_engineering.configuration.schema import EvaluateSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.samples import Sample, answers, choose_prompts
from llm_engineering.model.finetuning.load import live_base_model
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.finetuning.train import live_trained_model
from llm_engineering.model.references import LoraReference


def evaluate(
    lora: LoraReference,
    adapter: AdapterFolder,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
) -> Evaluation:
    """Compare base model and adapter on the held-out rows.

    The metrics are those that training took of these very weights before its first step and
    after its last; the sample answers are generated here, greedily, from the same prompts. What
    was trained in a remote job was evaluated there, since only that host may be able to.
    """
    if record.evaluation is not None:
        return record.evaluation
    trained = live_trained_model(lora, adapter)
    prompts = choose_prompts(dataset.split("held_out"), settings.samples, trained.tokenizer)
    stop_ids = frozenset(lora.model.stop_ids)

    def answer(model: object) -> list[str]:
        return answers(
            model,
            trained.tokenizer,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=stop_ids,
        )

    after = answer(trained.model)
    if lora.settings.bias == "none":
        with trained.model.disable_adapter():
            before = answer(trained.model)
    else:  # trained biases are the base model's own and stay when the adapter is switched off
        before = answer(live_base_model(lora.model).model)
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
    )
