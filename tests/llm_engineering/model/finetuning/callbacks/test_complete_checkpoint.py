"""A checkpoint is complete once all that a resumption needs is in it, and the first process says so."""

from types import SimpleNamespace

import pytest

from llm_engineering.initialisations import Initialisation
from llm_engineering.model.finetuning.best_weights import BestWeights
from llm_engineering.model.finetuning.callbacks import complete_checkpoint as module
from llm_engineering.model.finetuning.callbacks.complete_checkpoint import CompleteCheckpoint
from llm_engineering.model.finetuning.checkpoints import newest_checkpoint
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.peers import ALONE, Alone


class Second(Alone):
    """A process that writes nothing."""

    def is_first(self):
        return False


class Noted(Initialisation):
    def add_to(self, checkpoint):
        (checkpoint / "start.txt").write_text("start")


@pytest.mark.parametrize("peers", [ALONE, Second()])
def test_all_lies_with_it(tmp_path, peers):
    checkpoint = tmp_path / "checkpoints" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (tmp_path / "best.safetensors").write_bytes(b"best")
    record = TrainingRecord(steps=4)
    callback = CompleteCheckpoint(record, BestWeights(tmp_path, peers), Noted(tmp_path), peers, 1)
    arguments = SimpleNamespace(output_dir=str(checkpoint.parent))
    callback.on_save(arguments, SimpleNamespace(global_step=4), None)
    if peers is not ALONE:
        assert newest_checkpoint(tmp_path) is None
        assert list(checkpoint.iterdir()) == []
        return
    assert newest_checkpoint(tmp_path).step == 4
    assert (checkpoint / "best.safetensors").read_bytes() == b"best"
    assert (checkpoint / "start.txt").read_text() == "start"
    text = (checkpoint / "training_record.json").read_text()
    assert TrainingRecord.model_validate_json(text) == record


@pytest.mark.parametrize("keep", [1, 2])
def test_older_ones_go_once_the_newest_is_complete(tmp_path, monkeypatch, keep):
    """A kill between the save and its completion leaves the one before."""
    folder = tmp_path / "checkpoints"
    arguments = SimpleNamespace(output_dir=str(folder))
    callback = CompleteCheckpoint(
        TrainingRecord(), BestWeights(tmp_path, ALONE), Noted(tmp_path), ALONE, keep
    )
    for step in (2, 4, 10):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        callback.on_save(arguments, SimpleNamespace(global_step=step), None)
    steps = sorted(int(path.name.split("-")[1]) for path in folder.iterdir())
    assert steps == [2, 4, 10][-keep:]

    def killed(checkpoint):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "mark_complete", killed)
    (folder / "checkpoint-12").mkdir()
    with pytest.raises(KeyboardInterrupt):
        callback.on_save(arguments, SimpleNamespace(global_step=12), None)
    assert newest_checkpoint(tmp_path).step == 10
