"""The reference pass: each process's share of the rows, and every row's numbers in its place."""

from contextlib import nullcontext
from types import SimpleNamespace

import accelerate.utils
import datasets
import pytest
import torch

from llm_engineering.objectives.reference_model import compute_reference


class Trainer:
    """Its log-probabilities are minus the row's number, and minus ten times it."""

    def __init__(self, rows, rank, ranks):
        self.train_dataset = datasets.Dataset.from_dict({"row": list(range(rows))})
        self.accelerator = SimpleNamespace(
            num_processes=ranks, process_index=rank, device=torch.device("cpu"),
            autocast=nullcontext,
        )  # fmt: skip
        self.args = SimpleNamespace(per_device_train_batch_size=2)
        self.model = torch.nn.Module()
        self.model.delete_adapter = lambda name: self.deleted.append(name)
        self.deleted, self.asked = [], []

    def data_collator(self, rows):
        return {"row": torch.tensor([float(row["row"]) for row in rows])}

    def ask(self, batch):
        assert not self.model.training, "no dropout"
        assert not torch.is_grad_enabled()
        self.asked += batch["row"].tolist()
        return {"a": -batch["row"], "b": -10 * batch["row"]}


@pytest.mark.parametrize(("rows", "ranks"), [(5, 1), (5, 2), (7, 3), (2, 3)])
def test_processes_share_the_rows(monkeypatch, rows, ranks):
    told = {}
    for rank in range(ranks):  # what each tells the others
        found = []
        monkeypatch.setattr(
            accelerate.utils, "gather_object",
            lambda own, f=found: f.extend(own) or [{"a": 0.0, "b": 0.0}] * rows,
        )  # fmt: skip
        trainer = Trainer(rows, rank, ranks)
        compute_reference(trainer, trainer.ask)
        told[rank] = found
        assert len(trainer.asked) <= -(-rows // ranks)
        assert trainer.model.training, "as before"
    of_all = [one for rank in told for one in told[rank]]
    assert len(of_all) == rows
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda _: of_all)
    trainer = Trainer(rows, 0, ranks)
    compute_reference(trainer, trainer.ask)
    assert trainer.train_dataset["a"][:] == [-float(row) for row in range(rows)]
    assert trainer.train_dataset["b"][:] == [-10.0 * row for row in range(rows)]
    assert trainer.deleted == ["ref"], "trl's copy of the adapter has done its work"
