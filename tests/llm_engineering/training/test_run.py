"""Training on the tiny Llama: what changes, what does not, and what a killed run leaves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm_engineering.configuration import to_yaml
from llm_engineering.errors import HardwareError, TrainingError, TrainingStoppedError
from llm_engineering.model import live
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def test_training_lowers_the_loss_and_leaves_the_base_weights_alone(run, make_config, tmp_path):
    config = make_config({"train.max_steps": 12, "train.learning_rate": 0.01})
    lora = inject_lora(load_model(config.model), config.lora)
    model = live_lora_model(lora).model
    base = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    lora, _, adapter, record = run(config, tmp_path)
    trained = dict(live_trained_model(lora, adapter).model.named_parameters())
    assert all(torch.equal(base[name], trained[name]) for name in base)
    assert record.after.loss < record.before.loss - 0.1
    assert [point.step for point in record.points] == list(range(1, 13))
    assert [point.step for point in record.held_out] == [0, 12]
    assert record.effective_batch == 2


def test_tokens_are_counted_without_padding(run, make_config, tmp_path):
    config = make_config({"train.max_steps": None, "train.epochs": 1})
    _, dataset, _, record = run(config, tmp_path)
    assert record.train_tokens == dataset.summary.train.tokens
    assert record.epochs == 1.0
    assert record.steps == 24  # 48 rows, micro-batch 2, no accumulation


def test_metrics_before_training_are_the_base_models(run, make_config, tmp_path):
    config = make_config()
    lora, dataset, adapter, record = run(config, tmp_path)
    held = live_trained_model(lora, adapter)
    rows = dataset.split("held_out")
    pad_id = held.tokenizer.pad_token_id
    with held.model.disable_adapter():
        before = held_out_metrics(held.model, rows, batch_size=3, pad_id=pad_id)
    after = held_out_metrics(held.model, rows, batch_size=5, pad_id=pad_id)
    assert record.before.loss == pytest.approx(before.loss, abs=1e-6)
    assert record.after.loss == pytest.approx(after.loss, abs=1e-6)


def split(micro_batch, effective_batch, **train):
    """Settings of ``effective_batch`` rows a step, ``micro_batch`` of them at a time."""
    values = {"micro_batch": micro_batch, "effective_batch": effective_batch, **train}
    return {f"train.{key}": value for key, value in values.items()} | {
        "train.gradient_accumulation": None
    }


@pytest.mark.parametrize("effective_batch", [8, 20])  # 20: the last step of 48 rows is short
def test_however_a_step_is_split_the_same_is_learned(run, make_config, tmp_path, effective_batch):
    losses = {}
    for micro_batch in (1, 4, effective_batch):
        config = make_config(split(micro_batch, effective_batch, max_steps=None, epochs=1))
        _, _, _, record = run(config, tmp_path / str(micro_batch))
        losses[micro_batch] = [point.loss for point in record.points]
        assert record.plan.micro_batch == micro_batch
        assert record.effective_batch == effective_batch
        live.release()
    assert len(losses[1]) == -(-48 // effective_batch)
    assert losses[4] == pytest.approx(losses[1], rel=1e-4)
    assert losses[effective_batch] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["plain", "none"])
def test_checkpointing_changes_nothing_that_is_learned(run, make_config, tmp_path, kind):
    losses = []
    for name, checkpointing in (("auto", "auto"), (kind, kind)):
        config = make_config({"train.gradient_checkpointing": checkpointing})
        _, _, _, record = run(config, tmp_path / name)
        losses.append([point.loss for point in record.points])
        live.release()
    assert record.plan.gradient_checkpointing == kind
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def out_of_memory(after, error=None):
    """Fails once, as an allocation would, when so many steps are done."""
    failed = []

    def fail(record):
        if record.steps == after and not failed:
            failed.append(record.plan)
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    return fail


CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("after", "error"),
    [(1, None), (3, None), (1, CUBLAS)],  # before the first checkpoint, and after it
)
def test_out_of_memory_goes_on_with_a_smaller_micro_batch(
    run, make_config, tmp_path, caplog, after, error
):
    settings = split("auto", 4, max_steps=5, checkpoint_every=2)
    _, _, _, whole = run(make_config(settings), tmp_path / "whole")
    live.release()
    _, _, _, record = run(
        make_config(settings), tmp_path / "fails", on_progress=out_of_memory(after, error)
    )
    assert (whole.plan.micro_batch, record.plan.micro_batch) == (2, 1)
    assert "micro-batch 2 x 2, no checkpointing: out of memory" in caplog.text
    assert "going on with micro-batch 1 x 4" in caplog.text
    assert [p.step for p in record.points] == [1, 2, 3, 4, 5]
    losses = [[p.loss for p in r.points] for r in (record, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert record.before == whole.before
    assert record.resumed_from_run is None


def test_out_of_memory_with_a_chosen_split_says_what_to_set(run, make_config, tmp_path):
    with pytest.raises(
        HardwareError, match=r"micro-batch 2 x 1.*set train\.micro_batch .* to auto"
    ):
        run(make_config(), tmp_path, on_progress=out_of_memory(1))


def test_a_run_resumes_under_another_split(run, make_config, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record.steps == 4:
            raise Stop

    _, _, _, whole = run(make_config(split(4, 4, max_steps=6)), tmp_path / "whole")
    with pytest.raises(Stop):
        run(make_config(split(2, 4, max_steps=6)), tmp_path / "cut", on_progress=stop)
    _, _, _, record = run(
        make_config(split(4, 4, max_steps=6)), tmp_path / "cut", resume="required"
    )
    assert record.resumed_from_step == 2
    losses = [[p.loss for p in r.points] for r in (record, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_adapter_loads_with_plain_peft(run, make_config, tmp_path):
    config = make_config()
    lora, dataset, adapter, _ = run(config, tmp_path)
    ids = torch.tensor([dataset.split("held_out")[0]["input_ids"]])
    with torch.no_grad():
        model = live_trained_model(lora, adapter).model.eval()
        ours = model(input_ids=ids.to(model.device)).logits
    torch.save(ours.cpu(), tmp_path / "ours.pt")
    script = f"""
        import sys, torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        base = AutoModelForCausalLM.from_pretrained({config.model.id!r}, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, {str(adapter.folder)!r}).eval()
        ids = torch.tensor({ids.tolist()})
        with torch.no_grad():
            theirs = model(input_ids=ids).logits
        ours = torch.load({str(tmp_path / "ours.pt")!r}, weights_only=True)
        assert "unsloth" not in sys.modules
        print(float((ours - theirs).abs().max()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) < 1e-5


def test_the_adapter_names_its_base_as_the_configuration_does(run, make_config, tmp_path):
    config = make_config()
    _, _, adapter, _ = run(config, tmp_path)
    values = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == config.model.id
    assert values["r"] == config.lora.r
    assert sorted(path.name for path in adapter.folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_rebuilt_from_its_folder_the_trained_model_is_the_same(run, make_config, tmp_path):
    config = make_config()
    lora, _, adapter, _ = run(config, tmp_path)
    before = {n: p.clone() for n, p in live_trained_model(lora, adapter).model.named_parameters()}
    live.release()
    after = dict(live_trained_model(lora, adapter).model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_same_seed_same_adapter_other_seed_another(run, make_config, tmp_path):
    digests = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        _, _, adapter, _ = run(make_config({"run.seed": seed}), tmp_path / name)
        digests[name] = adapter.digest
        live.release()
    assert digests["first"] == digests["again"] != digests["other"]


def test_a_retry_in_the_same_process_starts_from_a_fresh_adapter(run, make_config, tmp_path):
    """A trained model no longer answers to the reference of the fresh one."""
    config = make_config()
    lora, _, _, _ = run(config, tmp_path / "1")
    fresh = live_lora_model(lora).model
    b = fresh.get_base_model().model.layers[0].mlp.up_proj.lora_B["default"].weight
    assert not b.any()


def test_a_loss_that_is_not_finite_stops_the_run(run, make_config, tmp_path):
    config = make_config({"train.max_steps": 8})

    def poison(record):
        if record.steps == 3:
            model = next(iter(live._kept.values())).model
            layer = model.get_base_model().model.layers[0].mlp.up_proj
            with torch.no_grad():
                layer.lora_B["default"].weight.fill_(float("nan"))

    with pytest.raises(
        TrainingError, match=r"the loss is nan at step 4: lower train\.learning_rate"
    ):
        run(config, tmp_path, on_progress=poison)
    assert live._kept == {}


def test_progress_is_reported_while_training(run, make_config, tmp_path):
    seen = []
    run(make_config(), tmp_path, on_progress=lambda record: seen.append(record.steps))
    assert seen == [1, 2, 3, 4, 4]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from llm_engineering.configuration import load_config
    sys.path.insert(0, str(Path({tests!r})))
    from conftest import run_training as run

    config = load_config(Path({config!r}))
    def kill(record):
        print(record.steps, record.points[-1].loss, flush=True)
        if record.steps == 7:
            os.kill(os.getpid(), signal.SIGKILL)
    run(config, Path({folder!r}), on_progress=kill)
"""


def test_killed_in_the_middle_it_resumes_on_the_same_trajectory(run, make_config, tmp_path):
    changes = {"train.max_steps": 10, "train.checkpoint_every": 3, "lora.lora_dropout": 0.1}
    config = make_config(changes)
    _, _, whole_adapter, whole = run(config, tmp_path / "whole")
    live.release()

    (tmp_path / "config.yaml").write_text(to_yaml(config))
    script = KILLED.format(
        root=str(ROOT),
        tests=str(ROOT / "tests"),
        config=str(tmp_path / "config.yaml"),
        folder=str(tmp_path / "killed"),
    )
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    work = tmp_path / "killed" / "work"
    assert not (work / "run" / "adapter").exists()
    # A checkpoint that was being written when the kill came must not be chosen:
    half = work / "run" / "checkpoints" / "checkpoint-7"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")

    os.rename(work / "run", work / "interrupted")
    _, _, adapter, record = run(config, tmp_path / "killed", resume="required")
    assert record.resumed_from_step == 6
    assert record.resumed_from_run == "interrupted"
    assert [p.step for p in record.points] == [p.step for p in whole.points]
    assert [p.loss for p in record.points] == [p.loss for p in whole.points]
    assert record.before == whole.before
    assert record.after == whole.after
    assert record.train_tokens == whole.train_tokens
    theirs = load_file(whole_adapter.folder / "adapter_model.safetensors")
    ours = load_file(adapter.folder / "adapter_model.safetensors")
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_asked_to_stop_it_saves_a_checkpoint_and_can_go_on(run, make_config, tmp_path):
    changes = {"train.max_steps": 8, "train.checkpoint_every": 5}
    config = make_config(changes)
    _, _, whole_adapter, _ = run(config, tmp_path / "whole")
    live.release()
    stop = threading.Event()

    def ask(record):
        if record.steps == 3:
            stop.set()

    with pytest.raises(TrainingStoppedError, match=r"stopped on request after step 4 of 8"):
        run(config, tmp_path / "stopped", on_progress=ask, stop=stop)
    _, _, adapter, record = run(config, tmp_path / "stopped", resume="if-possible")
    assert record.resumed_from_step == 4
    assert adapter.digest == whole_adapter.digest


def test_if_possible_starts_anew_where_there_is_nothing_to_resume(run, make_config, tmp_path):
    _, _, _, record = run(make_config(), tmp_path, resume="if-possible")
    assert record.resumed_from_step is None
    assert record.steps == 4


def test_resume_of_another_training_says_what_differs(run, make_config, tmp_path):
    config = make_config({"train.max_steps": 6})

    class Stop(Exception):
        pass

    def stop(record):
        if record.steps == 5:
            raise Stop

    with pytest.raises(Stop):
        run(config, tmp_path, on_progress=stop)
    other = make_config({"train.max_steps": 6, "train.learning_rate": 0.005})
    with pytest.raises(TrainingError) as error:
        run(other, tmp_path, resume="required")
    assert str(error.value) == (
        "--resume: the interrupted run run (step 4) was another training: its training settings "
        "differ. Use its configuration and data, or start without --resume"
    )


def test_a_run_that_is_still_running_is_not_resumed(make_config, tmp_path):
    from llm_engineering.model.finetuning.checkpoints import (
        interrupted_checkpoints,
        mark_complete,
        open_work_folder,
    )

    run_folder = tmp_path / "work" / "running"
    lock = open_work_folder(run_folder, {"data": "x"})
    checkpoint = run_folder / "checkpoints" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    mark_complete(checkpoint)
    assert interrupted_checkpoints(tmp_path / "work") == []
    lock.close()
    assert [c.step for c in interrupted_checkpoints(tmp_path / "work")] == [5]
