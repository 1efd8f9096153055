"""What a run goes on from, and how often it tries: without a training (test_run has those)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.distributed.share import share_of_step
from llm_engineering.errors import (
    HardwareError,
    LoraError,
    TrainingError,
    TrainingStoppedError,
)
from llm_engineering.model import live
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.finetuning.checkpoints import (
    is_running,
    mark_complete,
    open_work_folder,
)
from llm_engineering.model.finetuning.progress import ProgressDisplay
from llm_engineering.model.finetuning.record import AdapterFolder, HeldOutPoint, TrainingRecord
from llm_engineering.model.recipes import AdapterTargets, LoraRecipe, ModelRecipe
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.planning.step_size import StepSize
from llm_engineering.signals import StopRequest
from llm_engineering.training import run
from llm_engineering.training.attempt import Attempt

IDENTITY = {"model": "m", "data": "d"}
DONE = AdapterFolder(Path("adapter"), "digest")
LORA = LoraRecipe(
    model=ModelRecipe(
        id="model", revision=None, architecture="LlamaForCausalLM", dtype="float32",
        quantisation="none", max_seq_length=128, chat_template="", stop_ids=(2,),
        trust_remote_code=False, weight_digests={}, parameters=1,
    ),
    settings=LoraSettings(), matched=(), trainable_parameters=1, total_parameters=2, scaling=1.0,
)  # fmt: skip
SETTINGS = TrainSettings(micro_batch=4, gradient_accumulation=2)
EVALUATE = EvaluateSettings(batch_size=3)


def a_plan(micro_batch: int) -> BatchPlan:
    return BatchPlan(
        micro_batch=micro_batch, gradient_accumulation=8 // micro_batch,
        gradient_checkpointing="none",
    )  # fmt: skip


DATASET: Any = SimpleNamespace(folder=Path("rows"), summary=SimpleNamespace(train="audited"))
SIZE = StepSize(documents=8.0, tokens=100.0, steps=500, packed=False)
PLANS = [a_plan(4), a_plan(2), a_plan(1)]


def a_point(step: int) -> HeldOutPoint:
    metrics = HeldOutMetrics(
        loss=1.0, token_accuracy=0.5, tokens=10, rows=1, row_losses=[10.0], row_tokens=[10]
    )
    return HeldOutPoint(step=step, metrics=metrics)


def a_checkpoint(folder: Path, step: int, **record: Any) -> None:
    """A complete checkpoint of the run whose work folder this is."""
    checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    text = TrainingRecord(steps=step, **record).model_dump_json()
    (checkpoint / "training_record.json").write_text(text, encoding="utf-8")
    mark_complete(checkpoint)


def interrupted(work: Path, name: str, step: int, **differing: str) -> None:
    open_work_folder(work / name, IDENTITY | differing).close()
    a_checkpoint(work / name, step, train_tokens=100)


class Training:
    """In place of what trains: notes each attempt, and does what it is told in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
        self.work = work
        self.attempts: list[Attempt] = []
        self.asked: list[Any] = []
        self.sized: list[Any] = []
        self.freed = 0
        self.does: list[Any] = []
        self.plans = list(PLANS)
        replaced = {
            "cpu_plans": lambda *arguments: (
                self.asked.append(arguments)
                or SimpleNamespace(first=self.plans[0], every=self.plans)
            ),
            "step_size": lambda *arguments: self.sized.append(arguments) or SIZE,
            "step_warnings": lambda *arguments: [f"{arguments} is few"],
            "identity_of": lambda *arguments: self.asked.append(arguments) or IDENTITY,
            "train_here": self.train_here,
            "train_on_ranks": self.train_on_ranks,
        }
        for name, stand_in in replaced.items():
            monkeypatch.setattr(run, name, stand_in)
        monkeypatch.setattr(run.hardware, "free_gpu_memory", self.free)
        monkeypatch.setattr(run.hardware, "is_out_of_memory", lambda e: "out of memory" in str(e))

    def free(self) -> None:
        self.freed += 1

    def train_here(self, attempt: Attempt, *arguments: Any) -> AdapterFolder:
        assert is_running(attempt.folder)
        self.attempts.append(attempt)
        self.arguments = arguments
        if self.does and (error := self.does.pop(0)(attempt)):
            raise error
        return DONE

    def train_on_ranks(self, attempt: Attempt, *arguments: Any) -> Any:
        self.attempts.append(attempt)
        if self.does and (error := self.does.pop(0)(attempt)):
            raise error
        return "by ranks", (attempt, *arguments)

    def go(self, **options: Any) -> Any:
        values = {"seed": 5, "work": self.work, "name": "mine"} | options
        settings = values.pop("settings", SETTINGS)
        lora = values.pop("lora", LORA)
        return run.train(lora, DATASET, settings, EVALUATE, **values)  # type: ignore[arg-type]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Training:
    return Training(monkeypatch, tmp_path)


def out_of_memory(attempt: Attempt) -> RuntimeError:
    return RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


# --- from where --------------------------------------------------------------------------------


def test_a_run_starts_from_the_first_step(training: Training) -> None:
    interrupted(training.work, "before", 4)

    adapter, record = training.go()

    assert adapter == DONE
    (attempt,) = training.attempts
    assert record is attempt.record
    assert attempt == Attempt(
        lora=LORA, dataset=Path("rows"), settings=SETTINGS, evaluate=EVALUATE, seed=5, start=None,
        plan=PLANS[0], candidates=PLANS, checkpoint=None,
        record=TrainingRecord(step_size=SIZE), folder=training.work / "mine",
    )  # fmt: skip
    assert not is_running(attempt.folder)


@pytest.mark.parametrize("resume", ["required", "if-possible"])
def test_it_goes_on_from_an_equal_one(resume: str, training: Training) -> None:
    interrupted(training.work, "before", 4)
    interrupted(training.work, "another", 9, data="others")

    training.go(resume=resume)

    (attempt,) = training.attempts
    assert attempt.checkpoint is not None
    assert (attempt.checkpoint.step, attempt.checkpoint.run.name) == (4, "before")
    record = attempt.record
    assert record.step_size == SIZE
    assert (record.steps, record.train_tokens) == (4, 100)
    assert (record.resumed_from_step, record.resumed_from_run) == (4, "before")
    assert record.continued_runs == ["before"]


def test_it_remembers_every_run_that_it_went_through(training: Training) -> None:
    """The work folders of all of them go once it is saved."""
    open_work_folder(training.work / "third", IDENTITY).close()
    a_checkpoint(
        training.work / "third", 6, resumed_from_run="second", earlier_runs=["first", "second"]
    )

    training.go(resume="required")

    (attempt,) = training.attempts
    assert attempt.record.continued_runs == ["first", "second", "third"]


def test_it_starts_anew_where_it_may_and_says_why(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(training.work, "before", 4, data="others")

    with caplog.at_level("INFO"):
        training.go(resume="if-possible")

    assert training.attempts[0].checkpoint is None
    assert "the first step: the interrupted run before (step 4) was another training" in caplog.text


def test_it_must_not_start_anew_where_resumption_is_required(training: Training) -> None:
    interrupted(training.work, "before", 4, data="others")

    with pytest.raises(TrainingError, match="its data differ"):
        training.go(resume="required")

    assert training.attempts == []


@pytest.mark.parametrize("resume", ["never", "if-possible", "required"])
def test_a_step_that_is_restarted_under_its_own_name_goes_on(
    resume: str, training: Training
) -> None:
    interrupted(training.work, "mine", 3)
    interrupted(training.work, "before", 9)

    training.go(resume=resume)

    assert training.attempts[0].checkpoint is not None
    assert training.attempts[0].checkpoint.step == 3


def test_but_not_from_another_trainings_checkpoint(training: Training) -> None:
    interrupted(training.work, "mine", 3, data="others")

    training.go()

    assert training.attempts[0].checkpoint is None


def test_what_is_interrupted_can_be_resumed_by_a_run_of_another_name(training: Training) -> None:
    def ended(attempt: Attempt) -> RuntimeError:
        a_checkpoint(attempt.folder, 7)
        return RuntimeError("the host went away")

    training.does = [ended]
    with pytest.raises(RuntimeError, match="went away"):
        training.go(name="first")
    training.go(name="second", resume="required")

    assert training.attempts[1].checkpoint is not None
    assert training.attempts[1].checkpoint.step == 7


def test_the_size_of_a_step_is_worked_out_and_warned_of(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    training.go()

    assert training.sized == [(SETTINGS, "audited", 128)]
    assert "(8.0, 500) is few" in caplog.text


def test_on_a_gpu_the_plans_are_those_that_fit_it(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    plans = SimpleNamespace(first=PLANS[1], every=PLANS[1:])
    monkeypatch.setattr(run.hardware, "has_gpu", lambda: True)
    monkeypatch.setattr(run, "trained_shape", lambda *arguments: ("shape of", *arguments))
    monkeypatch.setattr(run, "device_plans", lambda *arguments: asked.append(arguments) or plans)

    training.go(placement=Placement(ranks_per_host=2))

    shape = ("shape of", LORA.model.settings, LORA.settings)
    assert asked == [(LORA, shape, DATASET, share_of_step(SETTINGS, 2), EVALUATE, 2)]
    assert training.attempts[0].candidates == PLANS[1:]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("parameters", [(), ("mlp.experts.down_proj",)])
def test_experts_are_not_adapted_where_ranks_share_the_weights(
    sharded: bool, parameters: tuple[str, ...], training: Training
) -> None:
    lora = LORA.model_copy(update={"targets": AdapterTargets(parameters=parameters)})
    training.plans = [PLANS[0].model_copy(update={"sharded": sharded})]

    if sharded and parameters:
        with pytest.raises(LoraError, match=r"lora\.target_modules: .* mlp\.experts\.down_proj"):
            training.go(lora=lora)
        assert training.attempts == []
        return
    training.go(lora=lora)
    assert len(training.attempts) == 1


class Store:
    """Notes what is asked of it, and whether a training is within it."""

    def __init__(self) -> None:
        self.brought: list[Any] = []
        self.kept: list[Path] = []
        self.is_keeping = False

    def bring(self, *arguments: Any, others: bool) -> None:
        self.brought.append((*arguments, others))

    @contextmanager
    def keeping(self, run: Path) -> Iterator[None]:
        self.kept.append(run)
        self.is_keeping = True
        yield
        self.is_keeping = False


@pytest.mark.parametrize(
    ("resume", "others"), [("never", False), ("if-possible", True), ("required", True)]
)
def test_checkpoints_are_brought_from_where_they_outlive_the_host_and_kept_there(
    resume: str, others: bool, training: Training
) -> None:
    store, seen = Store(), []
    interrupted(training.work, "before", 4)
    training.does = [lambda attempt: seen.append(store.is_keeping)]

    training.go(checkpoints=store, resume=resume)

    assert store.brought == [(training.work, "mine", IDENTITY, others)]
    assert store.kept == [training.work / "mine"]
    assert seen == [True]
    assert not store.is_keeping


@pytest.mark.parametrize(
    ("number", "exit_code"), [(2, 130), (15, 143), (None, TrainingStoppedError.exit_code)]
)
def test_a_run_that_a_signal_stops_exits_as_shells_expect(
    number: int | None, exit_code: int, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = StopRequest()
    asked.number = number
    monkeypatch.setattr(run, "stop_after_step", lambda stop: nullcontext(asked))
    training.does = [lambda attempt: TrainingStoppedError("stopped")]

    with pytest.raises(TrainingStoppedError) as caught:
        training.go()

    assert caught.value.exit_code == exit_code


def test_a_run_that_its_caller_stops_keeps_its_exit_code(training: Training) -> None:
    training.does = [lambda attempt: TrainingStoppedError("stopped")]

    with pytest.raises(TrainingStoppedError) as caught:
        training.go(stop=threading.Event())

    assert caught.value.exit_code == TrainingStoppedError.exit_code


def test_what_decides_the_training_is_that_of_the_fastest_plan(training: Training) -> None:
    start = AdapterFolder(Path("start"), "d")
    settings = SETTINGS.model_copy(update={"start_from": "start"})

    training.go(start=start, settings=settings)

    plans_of, identity_of = training.asked
    assert plans_of == (settings,)
    assert identity_of[:2] == (LORA, DATASET)
    assert identity_of[2:] == (settings, start, 5, PLANS[0])
    assert training.attempts[0].start == start


@pytest.mark.parametrize("stated", [True, False])
def test_the_adapter_to_start_from_is_the_one_that_the_settings_name(
    stated: bool, training: Training
) -> None:
    settings = SETTINGS.model_copy(update={"start_from": "start" if stated else None})

    with pytest.raises(ValueError, match=r"train\.start_from is "):
        training.go(settings=settings, start=None if stated else DONE)


# --- ranks -------------------------------------------------------------------------------------


def test_several_ranks_share_each_step(training: Training) -> None:
    placement = Placement(ranks_per_host=2)

    found, (attempt, *others) = training.go(
        placement=placement, production="theirs", on_progress="progress", stop="stop"
    )

    assert found == "by ranks"
    assert others == [placement, "theirs", "progress", "stop"]
    assert attempt.plan == PLANS[0]
    (share,) = training.asked[0]
    assert share.rows_in_step == SETTINGS.rows_in_step // 2
    assert attempt.settings == SETTINGS


def test_this_process_alone_is_told_of_progress_and_the_end(training: Training) -> None:
    training.go(placement=HERE, on_progress="progress", stop="stop")

    display, *others = training.arguments
    assert isinstance(display, ProgressDisplay)
    assert others == ["progress", "stop"]


# --- out of memory -----------------------------------------------------------------------------


def test_it_goes_on_with_the_next_smaller_plan_from_the_newest_checkpoint(
    training: Training,
) -> None:
    open_work_folder(training.work / "before", IDENTITY).close()
    a_checkpoint(training.work / "before", 2, resumed_from_run="first")

    def after_step_6(attempt: Attempt) -> RuntimeError:
        a_checkpoint(attempt.folder, 6, held_out=[a_point(0)])
        return out_of_memory(attempt)

    training.does = [after_step_6, out_of_memory]
    live.keep("key", "half-trained")  # type: ignore[arg-type]

    adapter, record = training.go(resume="required")

    assert adapter == DONE
    assert [attempt.plan for attempt in training.attempts] == PLANS
    steps = [attempt.checkpoint and attempt.checkpoint.step for attempt in training.attempts]
    assert steps == [2, 6, 6]
    assert [attempt.candidates for attempt in training.attempts] == [PLANS, PLANS[1:], PLANS[2:]]
    assert all(attempt.record.step_size == SIZE for attempt in training.attempts)
    assert record is training.attempts[-1].record
    assert record.steps == 6
    # What is said of the resumption stays that of the run, not of the fallback.
    assert (record.resumed_from_step, record.resumed_from_run) == (2, "before")
    assert record.continued_runs == ["first", "before"]
    assert training.freed == 2
    assert live.find("key") is None


@pytest.mark.parametrize(("ranks", "tried"), [(1, [4, 1]), (2, [4, 2])])
def test_the_plan_that_failed_is_the_one_that_was_measured_in_this_process(
    ranks: int, tried: list[int], training: Training
) -> None:
    """The measured step may have gone on to a smaller plan itself; ranks' records are their own."""

    def measured(attempt: Attempt) -> RuntimeError:
        attempt.record.plan = PLANS[1]
        return out_of_memory(attempt)

    training.does = [measured]
    training.go(placement=Placement(ranks_per_host=ranks))

    assert [attempt.plan.micro_batch for attempt in training.attempts] == tried


def test_before_its_first_checkpoint_it_goes_on_from_where_it_began(training: Training) -> None:
    interrupted(training.work, "before", 2)
    training.does = [out_of_memory]

    training.go(resume="required")

    first, second = training.attempts
    assert second.checkpoint == first.checkpoint
    assert second.record.steps == 2


def test_the_base_model_is_not_measured_again(training: Training) -> None:
    def measured(attempt: Attempt) -> RuntimeError:
        attempt.record.held_out = [a_point(0), a_point(2)]
        attempt.record.validation = [a_point(0), a_point(1), a_point(2)]
        return out_of_memory(attempt)

    training.does = [measured]
    training.go()

    record = training.attempts[1].record
    assert record.held_out == [a_point(0)]
    assert record.validation == [a_point(0)]


def test_what_a_checkpoint_measured_counts_more(training: Training) -> None:
    def measured(attempt: Attempt) -> RuntimeError:
        points = [a_point(0), a_point(2)]
        a_checkpoint(attempt.folder, 2, held_out=points, validation=points)
        return out_of_memory(attempt)

    training.does = [measured]
    training.go()

    record = training.attempts[1].record
    assert [point.step for point in record.held_out] == [0, 2]
    assert [point.step for point in record.validation] == [0, 2]


def test_the_smallest_plan_that_does_not_fit_ends_it(training: Training) -> None:
    training.does = [out_of_memory] * 3

    with pytest.raises(HardwareError, match="out of memory with micro-batch 1 x 8"):
        training.go()

    assert len(training.attempts) == 3
    assert not is_running(training.work / "mine")


def test_another_failure_is_not_tried_again_and_leaves_no_model(training: Training) -> None:
    training.does = [lambda attempt: RuntimeError("a bug")]
    live.keep("key", "half-trained")  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="a bug"):
        training.go()

    assert len(training.attempts) == 1
    assert live.find("key") is None
    assert not is_running(training.work / "mine")


def test_a_sound_training_keeps_its_model(training: Training) -> None:
    live.keep("key", "trained")  # type: ignore[arg-type]

    training.go()

    assert live.find("key") == "trained"
    live.release()
