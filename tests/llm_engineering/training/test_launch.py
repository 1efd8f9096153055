"""Two gloo ranks on the CPU learn what one process learns, and fail as one process fails."""

import logging
import shutil
import threading
import time

import psutil
import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.data.prepare import prepare_data
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.errors import ModelError, TrainingError, TrainingStoppedError
from llm_engineering.model import live
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS, live_trained_model
from llm_engineering.model.finetuning.inject import describe_lora, inject_lora
from llm_engineering.model.finetuning.load import describe_model, load_model
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.planning.device_plans import DevicePlans
from llm_engineering.training import run as training
from llm_engineering.training.production import ProductionAdapter
from llm_engineering.training.run import train

pytestmark = pytest.mark.slow

RANK_MODULE = "llm_engineering.training.rank"
TWO = Placement(ranks_per_host=2)
# Epochs of 48 rows in steps of 20, 20 and 8: 8 are no multiple of 2 ranks x 5 rows.
STEPS = {
    "train.effective_batch": 20, "train.gradient_accumulation": None, "train.max_steps": None,
    "train.epochs": 2, "train.learning_rate": 0.01, "evaluate.generic_passages": 0,
    "evaluate.parity_rows": 0, "registry.checks": [],
}  # fmt: skip


def prepared(config, folder):
    return prepare_data(
        config.data,
        config.model,
        objective=config.train.objective,
        folder=folder,
        validates=config.train.validates,
    )


def run(config, folder, placement=HERE, **options):
    """Prepare and train; where ranks train, this process only describes the model."""
    dataset = prepared(config, folder / "data")
    if placement is HERE:
        lora = inject_lora(load_model(config.model), config.lora)
    else:
        lora = described(config)
    name = options.pop("name", "run")
    try:
        return train(
            lora, dataset, config.train, config.evaluate, seed=0, work=folder / "work", name=name,
            placement=placement, **options,
        )  # fmt: skip
    finally:
        live.release()


def described(config):
    return describe_lora(describe_model(config.model, dtype=config.model.dtype), config.lora)


def much_changed(adapter, folder):
    """A production version whose adapter does the opposite."""
    shutil.copytree(adapter.folder, folder)
    weights = load_file(folder / ADAPTER_WEIGHTS)
    changed = {name: -tensor if "lora_B" in name else tensor for name, tensor in weights.items()}
    save_file(changed, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return ProductionAdapter("first", AdapterFolder(folder, file_digest(folder / ADAPTER_WEIGHTS)))


def losses(record):
    return [point.loss for point in record.points]


def is_rank(process):
    return "llm_engineering.training.rank" in process.cmdline()


def ranks_of_this_process():
    return [each for each in psutil.Process().children() if RANK_MODULE in each.cmdline()]


def kill_second_rank():
    """Ends the second rank as the kernel does for want of memory."""
    (second,) = [each for each in ranks_of_this_process() if each.environ()["RANK"] == "1"]
    second.kill()


def test_ranks_learn_what_one_process_learns_and_go_on_from_each_others_checkpoints(
    make_config, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    _, whole = run(make_config({**STEPS, "train.micro_batch": 4}), tmp_path / "whole")
    config = make_config({**STEPS, "train.micro_batch": 5, "train.checkpoint_every": 2})

    # Two ranks, one of which is killed: the end of both, at once, and nothing half written.
    killed = []

    def kill(record):
        if len(record.points) == 3 and not killed:
            killed.append(time.monotonic())
            kill_second_rank()

    with pytest.raises(TrainingError, match=r"rank 1 of 2 was killed by SIGKILL.*--resume"):
        run(config, tmp_path / "two", TWO, on_progress=kill)
    assert time.monotonic() - killed[0] < 5
    assert not ranks_of_this_process()
    assert not (tmp_path / "two/work/run/adapter").exists()
    assert "10 rows" not in caplog.text
    assert "20 rows a step: micro-batch 5 x 2, no checkpointing on each of 2 ranks" in caplog.text

    # One process goes on from their checkpoint ...
    _, record = run(config, tmp_path / "two", resume="required", name="alone")
    assert record.resumed_from_step == 2
    assert (record.ranks, record.effective_batch) == (1, 20)
    assert losses(record) == pytest.approx(losses(whole), rel=1e-4)

    # ... and two ranks from that of one process.
    stop = threading.Event()
    with pytest.raises(TrainingStoppedError):
        run(config, tmp_path / "one", stop=stop, on_progress=lambda _: stop.set())
    shown = []
    adapter, record = run(
        config, tmp_path / "one", TWO, resume="required", name="two",
        on_progress=lambda r: shown.append(len(r.points)),
    )  # fmt: skip
    assert record.resumed_from_step in (1, 2)
    assert (record.ranks, record.effective_batch) == (2, 20)
    assert record.plan.micro_batch * record.plan.gradient_accumulation == 10
    assert losses(record) == pytest.approx(losses(whole), rel=1e-4)
    assert record.after.loss == pytest.approx(whole.after.loss, rel=1e-4)
    # A step's missing rows are filled up by two tokens each: 4 rows in each of two epochs.
    assert 0 <= record.train_tokens - whole.train_tokens <= 2 * 4 * 2
    assert sorted({*shown}) == [*range(shown[0], 7)], "progress came while they trained"
    assert len(record.evaluation.samples) == 2, "evaluated where it was trained"
    assert {path.name for path in adapter.folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert caplog.text.count("step 6 of 6") == 3 * 2, "one progress, of whichever process trains"


@pytest.mark.parametrize("objective", ["dpo", pytest.param("orpo", marks=pytest.mark.long), "kto"])
def test_ranks_learn_preferences(preference_config, tmp_path, objective):
    """An epoch's last step has fewer rows, which are no multiple of what the ranks take at a time."""
    source = preference_config(objective).data.sources[0].source
    config = preference_config(
        objective,
        {
            "data.sources": [{"source": source, "max_rows": 23}],
            "train.effective_batch": 8,
            "train.gradient_accumulation": None,
            "train.micro_batch": 2,
            "train.max_steps": 7,
            "registry.promote": False,
            "evaluate.parity_rows": 0,
        },
    )
    _, whole = run(config, tmp_path / "one")
    _, record = run(config, tmp_path / "two", TWO)
    assert record.ranks == 2
    assert record.epochs == pytest.approx(whole.epochs, rel=0.01), "it counts forward passes"
    assert whole.epochs > 1
    assert losses(record) == pytest.approx(losses(whole), rel=1e-4)
    margins = [[point.reward_margin for point in one.points] for one in (record, whole)]
    assert margins[0] == pytest.approx(margins[1], rel=1e-3, abs=1e-6)
    assert record.after.rewards.margin == pytest.approx(whole.after.rewards.margin, rel=1e-3)
    assert record.before.row_losses == whole.before.row_losses, "shared, and the same to the digit"
    assert record.after.row_losses == pytest.approx(whole.after.row_losses, rel=1e-3)
    assert record.train_tokens == whole.train_tokens


def test_ranks_keep_the_best_weights_and_undo_pissa(make_config, tmp_path):
    source = make_config().data.sources[0].source
    overfitting = {
        **STEPS, "data.sources": [{"source": source, "max_rows": 2}], "lora.init": "pissa",
        "train.effective_batch": 2, "train.micro_batch": 1, "train.max_steps": 8, "lora.r": 4,
        "train.learning_rate": 0.03, "train.lr_scheduler": "constant_with_warmup",
        "train.evaluate_every": 2, "train.keep_best": True,
    }  # fmt: skip
    config = make_config(overfitting)
    _, whole = run(config, tmp_path / "one")
    adapter, record = run(config, tmp_path / "two", TWO)
    assert losses(record) == pytest.approx(losses(whole), rel=1e-3)
    assert record.kept_step == whole.kept_step < 8, "the last weights are not the best"
    assert record.after.loss == pytest.approx(whole.after.loss, rel=1e-3)
    lora = inject_lora(load_model(config.model), config.lora)
    held = live_trained_model(lora, adapter)
    rows = prepared(config, tmp_path / "data").split("held_out")
    pad_id = held.tokenizer.pad_token_id
    on_disk = held_out_metrics(held.model, rows, batch_size=4, pad_id=pad_id)
    assert on_disk.loss == pytest.approx(record.after.loss, rel=1e-5)


def test_a_ranks_error_is_the_one_that_one_process_gives(make_config, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = make_config({**STEPS, "train.micro_batch": 5, "model.id": str(model)})
    dataset = prepared(config, tmp_path / "data")
    lora = describe_lora(describe_model(config.model, dtype="float32"), config.lora)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(ModelError, match=r"the weight files of .* have changed since this run"):
        train(
            lora, dataset, config.train, config.evaluate, seed=0, work=tmp_path / "work",
            name="run", placement=TWO,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "close"), [pytest.param("float32", 1e-4, marks=pytest.mark.long), ("bfloat16", 2e-2)]
)
def test_ranks_that_share_the_weights_learn_what_one_process_learns(
    make_config, tmp_path, monkeypatch, dtype, close
):
    config = make_config(
        {
            **STEPS, "train.effective_batch": 4, "train.micro_batch": 1, "train.max_steps": 4,
            "train.checkpoint_every": 2, "model.dtype": dtype,
            "evaluate.answers": {"rows": 3, "max_new_tokens": 5, "scorers": ["exact"]},
        }
    )  # fmt: skip
    first, whole = run(config, tmp_path / "one")
    production = much_changed(first, tmp_path / "production")
    shared = BatchPlan(
        micro_batch=1, gradient_accumulation=2, gradient_checkpointing="plain", sharded=True
    )
    monkeypatch.setattr(training, "cpu_plans", lambda *_: DevicePlans(shared, [shared]))

    def fail(record):
        if len(record.points) == 3:
            raise RuntimeError("the dashboard is not there")

    with pytest.raises(RuntimeError, match="the dashboard is not there"):
        run(config, tmp_path / "two", TWO, on_progress=fail)
    adapter, record = run(
        config, tmp_path / "two", TWO, resume="required", name="again", production=production
    )
    assert record.resumed_from_step == 2
    assert record.plan.sharded
    assert losses(record) == pytest.approx(losses(whole), rel=close)
    assert record.after.loss == pytest.approx(whole.after.loss, rel=close)
    assert len(record.evaluation.samples) == 2
    answered = record.evaluation.answers.rows  # by all ranks at once, before any is scored
    assert len(answered) == 3
    assert all(row.before.text and row.after.text for row in answered)
    weights = load_file(adapter.folder / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == 71680  # whole, not a rank's part

    held = live_trained_model(described(config), production.adapter)
    rows = prepared(config, tmp_path / "rows").split("held_out")
    pad_id = held.tokenizer.pad_token_id
    there = held_out_metrics(held.model, rows, batch_size=4, pad_id=pad_id)
    live.release()
    assert record.production.metrics.loss == pytest.approx(there.loss, rel=close)
    assert abs(there.loss - record.after.loss) > 0.05
