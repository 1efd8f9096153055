"""Ending early and keeping the best weights, on the tiny Llama that learns two rows by heart."""

import pytest

from llm_engineering.model import live
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model

BY_HEART = {
    "train.max_steps": 8,
    "train.learning_rate": 0.05,
    "train.lr_scheduler": "constant_with_warmup",
    "train.evaluate_every": 2,
    "train.checkpoint_every": 3,
}


@pytest.fixture
def overfitting(make_config):
    """A configuration whose held-out loss rises again after two steps."""

    def make(changes):
        source = make_config().data.sources[0].source
        rows = {"data.sources": [{"source": source, "max_rows": 2}]}
        return make_config({**BY_HEART, **rows, **changes})

    return make


def measured(lora, dataset, adapter):
    """The held-out loss of the adapter that is on disk, in a model built from it."""
    live.release()
    held = live_trained_model(lora, adapter)
    rows = dataset.split("held_out")
    return held_out_metrics(held.model, rows, batch_size=4, pad_id=held.tokenizer.pad_token_id)


def test_the_best_weights_are_saved_and_said_to_be(run, overfitting, tmp_path):
    config = overfitting({"train.keep_best": True})
    lora, dataset, adapter, record = run(config, tmp_path)
    assert dataset.summary.validation is not None
    losses = {point.step: point.metrics.loss for point in record.validation}
    assert list(losses) == [0, 2, 4, 6, 8]
    assert record.kept_step == min((step for step in losses if step), key=losses.__getitem__)
    assert record.kept_step < 8, "the last weights are not the best"
    assert losses[record.kept_step] < losses[8]
    assert [point.step for point in record.held_out] == [0, record.kept_step]
    assert len(record.after.row_losses) == len(dataset.split("held_out"))
    assert measured(lora, dataset, adapter).loss == pytest.approx(record.after.loss, abs=1e-6)


def test_without_keep_best_the_last_weights_are_saved(run, overfitting, tmp_path):
    lora, dataset, adapter, record = run(overfitting({}), tmp_path)
    assert record.kept_step is None
    assert record.after == record.held_out[-1].metrics
    assert measured(lora, dataset, adapter).loss == pytest.approx(record.after.loss, abs=1e-6)


def test_training_ends_when_the_held_out_loss_ceases_to_fall(run, overfitting, tmp_path):
    config = overfitting({"train.early_stopping_patience": 2, "train.keep_best": True})
    _, _, _, record = run(config, tmp_path)
    assert record.stopped_early
    assert record.steps == record.kept_step + 4 < 8
    assert [point.step for point in record.validation][-1] == record.steps
    assert [point.step for point in record.held_out] == [0, record.kept_step]


def test_resumed_past_the_best_weights_it_still_saves_them(
    run, run_interrupted, overfitting, tmp_path
):
    config = overfitting({"train.keep_best": True})
    _, _, whole_adapter, whole = run(config, tmp_path / "whole")
    live.release()
    _, _, adapter, record = run_interrupted(config, tmp_path / "interrupted", step=7)
    assert record.resumed_from_step == 6 > record.kept_step == whole.kept_step
    assert adapter.digest == whole_adapter.digest
    assert (record.held_out, record.validation) == (whole.held_out, whole.validation)


def test_answers_are_given_and_noise_is_made_only_where_asked(run, make_config, tmp_path):
    losses = {}
    for name, changes in (
        ("plain", {}),
        ("answers", {"evaluate.samples_every": 2}),
        ("noise", {"train.neftune_noise_alpha": 5.0}),
    ):
        _, _, _, record = run(make_config(changes), tmp_path / name)
        losses[name] = [point.loss for point in record.points]
        live.release()
        if name == "answers":
            assert [point.step for point in record.samples] == [2, 4]
            assert all(len(point.answers) == 2 for point in record.samples)
        else:
            assert record.samples == []
    assert losses["answers"] == losses["plain"], "answering changes nothing that is learned"
    assert losses["noise"] != losses["plain"]
