"""Evaluate: what the training changed, in figures and in words."""

from __future__ import annotations

import logging
from typing import Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.benchmarks import Measured, compared, measure_benchmarks
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.generic import GenericLoss, generic_metrics
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.held_out_answers import answer_rows, answered
from llm_engineering.model.evaluation.probe import (
    Probe,
    TrainedProbe,
    choose_rows,
    mean_kl,
    take_probe,
    vocabulary_digest,
)
from llm_engineering.model.evaluation.samples import (
    Sample,
    answers,
    choose_prompts,
    with_references,
)
from llm_engineering.model.evaluation.trained_tensors import trained_tensors
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.load import live_base_model
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.scoring.answers import Answer
from llm_engineering.scoring.score import scored

logger = logging.getLogger(__name__)


def evaluate(
    lora: LoraRecipe,
    adapter: AdapterFolder,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
    *,
    elsewhere: bool = False,
) -> Evaluation:
    """Compare base model and adapter, on the held-out rows and on general text, and score answers.

    What was trained by several ranks or in a job was measured there, since only they may be able to;
    its answers are scored here, as the configuration says now.

    Args:
        lora: The model.
        adapter: What it trained.
        dataset: The data.
        record: The training.
        settings: What is measured, and how answers are scored.
        elsewhere: As in ``scored``.

    Raises:
        ScoringError: As ``scored``.
    """
    measured = record.evaluation or measure(lora, adapter, dataset, record, settings)
    if measured.answers is None or settings.answers is None:
        return measured
    answers = scored(measured.answers, settings.answers, elsewhere=elsewhere)
    return measured.model_copy(update={"answers": answers})


def measure(
    lora: LoraRecipe,
    adapter: AdapterFolder,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
) -> Evaluation:
    """All of an evaluation that needs the model.

    The held-out metrics are those that training took of these very weights before its first step
    and after its last; answers are generated here from the same prompts, the base model's by the
    same weights with the adapter switched off.
    """
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

    asked = settings.answers
    questions = (
        choose_prompts(with_references(held_out), asked.rows, trained.tokenizer) if asked else []
    )
    if asked and len(questions) < asked.rows:
        logger.info("evaluate.answers.rows: %d, and %d are held out", asked.rows, len(questions))

    def answer_questions(model: Any, whose: str) -> list[Answer]:
        if asked is None:
            return []
        tokenizer, stops = trained.tokenizer, frozenset(stop_ids)
        return answer_rows(model, tokenizer, questions, asked, stop_ids=stops, whose=whose)

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

    def benchmarks(model: Any, whose: str) -> Measured:
        if not settings.benchmarks:
            return {}
        logger.info("benchmarks, %s: %s", whose, ", ".join(settings.benchmarks))
        return measure_benchmarks(
            model,
            trained.tokenizer,
            settings.benchmarks,
            batch_size=settings.batch_size,
            limit=settings.benchmark_limit,
        )

    after, generic_after = answer(trained.model), generic(trained.model)
    probed = probe(trained.model)
    answers_after = answer_questions(trained.model, "adapter")
    tasks_after = benchmarks(trained.model, "adapter")
    tensors = (
        trained_tensors(trained.model, backend().whole_adapter(trained.model)) if rows else None
    )
    if lora.settings.bias == "none":
        with trained.model.disable_adapter():
            before, generic_before = answer(trained.model), generic(trained.model)
            bare = probe(trained.model, probed)
            answers_before = answer_questions(trained.model, "base model")
            tasks_before = benchmarks(trained.model, "base model")
    else:  # trained biases are the base model's own and stay when the adapter is switched off
        base = live_base_model(lora.model).model
        before, generic_before = answer(base), generic(base)
        bare = probe(base, probed)
        answers_before = answer_questions(base, "base model")
        tasks_before = benchmarks(base, "base model")
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
                key=prompt.key,
                max_new_tokens=settings.max_new_tokens,
            )
            for prompt, one, other in zip(prompts, before, after, strict=True)
        ],
        generic=None
        if generic_before is None or generic_after is None
        else GenericLoss(before=generic_before, after=generic_after),
        trained_probe=None
        if probed is None or bare is None
        else TrainedProbe(
            rows=rows,
            probe=probed,
            effect=mean_kl(probed, bare),
            tensors=tensors,
            vocabulary=vocabulary_digest(trained.tokenizer),
        ),
        answers=answered(questions, answers_before, answers_after, asked) if asked else None,
        benchmarks=compared(tasks_before, tasks_after),
    )
