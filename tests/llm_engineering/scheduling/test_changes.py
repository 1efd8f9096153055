"""Whether there is anything new to learn."""

from __future__ import annotations

import pytest

from llm_engineering.errors import DataError, ModelError
from llm_engineering.scheduling.changes import config_digest, take_inputs, what_changed


def test_nothing_changed_until_a_row_is_appended(make_config):
    config = make_config()
    first = take_inputs(config)
    assert what_changed(first, None) == "first run"
    assert what_changed(take_inputs(config), first) is None
    with open(config.data.sources[0].source, "a") as file:
        file.write('{"instruction": "Is this new?", "response": "Yes."}\n')
    assert what_changed(take_inputs(config), first) == "data changed"


def test_every_change_is_named(make_config):
    first = take_inputs(make_config())
    other = first.model_copy(update={"data": "x", "model": "y", "start": "s", "config": "z"})
    assert what_changed(other, first) == (
        "data and base model and configuration and starting adapter changed"
    )


def test_settings_of_when_and_where_are_no_reason_to_train(make_config):
    digest = config_digest(make_config())
    for key, value in (("run.name", "x"), ("schedule.retries", 7), ("schedule.keep_logs", 1)):
        assert config_digest(make_config({key: value})) == digest, key
    for key, value in (("train.learning_rate", 1e-4), ("run.seed", 1), ("registry.promote", False)):
        assert config_digest(make_config({key: value})) != digest, key


def test_what_is_missing_is_an_error(make_config):
    with pytest.raises(DataError, match="no such file"):
        take_inputs(make_config({"data.sources": [{"source": "gone.jsonl"}]}))
    with pytest.raises(ModelError, match=r"model\.id"):
        take_inputs(make_config({"model.id": "gone"}))
