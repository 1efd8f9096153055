"""The reference pass: each process's share of the rows, and every row's numbers in its place."""

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
            num_processes=ranks, process_index=rank, device=torch.device("cpu")
        )
        self.args = SimpleNamespace(per_device_train_batch_size=2)
        self.model = SimpleNamespace(deleted=[], delete_adapter=lambda n: self.deleted.append(n))
        self.deleted, self.asked = [], []

    def data_collator(self, rows):
        return {"row": torch.tensor([float(row["row"]) for row in rows])}

    def compute_ref_log_probs(self, model, inputs):
        self.asked += inputs["row"].tolist()
        return -inputs["row"], -10 * inputs["row"]


@pytest.mark.parametrize(("rows", "ranks"), [(5, 1), (5, 2), (7, 3), (2, 3)])
def test_processes_share_the_rows(monkeypatch, rows, ranks):
    told = {}
    for rank in range(ranks):  # what each tells the others
        found = []
        monkeypatch.setattr(
            accelerate.utils, "gather_object", lambda v, f=found: f.append(v) or [0.0] * rows
        )
        trainer = Trainer(rows, rank, ranks)
        compute_reference(trainer, ["a", "b"])
        told[rank] = found
        assert len(trainer.asked) <= -(-rows // ranks)
    assert sum(len(told[rank][0]) for rank in told) == rows
    columns = iter([[one for rank in told for one in told[rank][place]] for place in (0, 1)])
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda _: next(columns))
    trainer = Trainer(rows, 0, ranks)
    compute_reference(trainer, ["a", "b"])
    assert trainer.train_dataset["a"][:] == [-float(row) for row in range(rows)]
    assert trainer.train_dataset["b"][:] == [-10.0 * row for row in range(rows)]
    assert trainer.deleted == ["ref"], "trl's copy of the adapter has done its work"
