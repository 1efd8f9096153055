"""``--finetune``: check, in order of cost, then run the pipeline and say what came of it."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from llm_engineering.commands.command_line import command_line
from llm_engineering.commands.interruption import (
    emptied_store,
    full_disk,
    interrupted,
    is_full_disk,
    stopped,
)
from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config, to_yaml
from llm_engineering.configuration.load import without_schedule
from llm_engineering.errors import (
    ConfigError,
    DataError,
    FinetuningError,
    ModelError,
    TrainingError,
    TrainingStoppedError,
)
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.outputs import run_name, work_folder
from llm_engineering.planning.learning_rate import choose_learning_rate
from llm_engineering.planning.step_size import step_warnings

if TYPE_CHECKING:
    from llm_engineering.registry.decision import Decision
    from llm_engineering.sagemaker.launch_order import Launch
    from llm_engineering.training.run import Resume

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]

STEPS = {
    "look_at_inputs": "what the cache must notice of data, model, code and device",
    "prepare_data": "read, check, split, tokenize and audit the rows",
    "load_model": "base model into memory",
    "inject_lora": "adapters into the projections",
    "train": "held-out loss, training, held-out loss",
    "evaluate": "answers before and after, and their scores",
    "save_model": "adapter, metrics, manifest, report; a version in the registry",
    "promote": "production's new version, if it passes every check",
}

_SCORE_FIGURES = ("before", "after", "change", "change_low", "change_high")


def run(
    config_path: Path,
    overrides: Sequence[str],
    *,
    resume: Resume = "never",
    dry_run: bool = False,
    verbose: bool = False,
    use_cache: bool = True,
    target: str = "local",
    gpus: str = "auto",
    attach: str | None = None,
    detach: bool = False,
    name: str | None = None,
) -> None:
    """Fine-tune as a configuration says, here or in a SageMaker job.

    Args:
        config_path: The configuration file.
        overrides: Values of --set.
        resume: Whether to continue an interrupted, otherwise equal run.
        dry_run: Only print what would be done.
        verbose: With the whole configuration.
        use_cache: Whether ZenML may skip steps whose inputs are unchanged.
        target: "local" or "sagemaker".
        gpus: GPUs of this host that share each training step: a number, or "auto" for all.
        attach: Name of a SageMaker job to follow.
        detach: Leave the SageMaker job running on Ctrl-C.
        name: The run's name, in place of the configuration's.

    Raises:
        FinetuningError: Anything that is the user's to mend; nothing half-finished is left.
    """
    config = load_config(config_path, overrides)
    try:
        chosen = choose_learning_rate(config)
    except ModelError as reason:
        if not dry_run:
            raise
        rate = f"auto: not known ({reason})"
    else:
        config = chosen.in_place_of_auto(config) if chosen else config
        rate = str(chosen or f"{config.train.peak_learning_rate:g}")
    name = name or run_name(config, datetime.now())
    if target == "local" and (attach or detach):
        raise ConfigError("--attach and --detach go with --target sagemaker")
    if target == "sagemaker" and gpus != "auto":
        raise ConfigError(
            f"--gpus {gpus} is for local runs: a job trains on all GPUs of its "
            "sagemaker.instance_types and sagemaker.instance_count"
        )
    if target == "sagemaker" and resume == "required":
        raise ConfigError(
            "--resume is for local runs: a job goes on from its checkpoints when the same command "
            "is given again"
        )
    if dry_run:
        print(_plan(config, config_path, name, target, gpus, rate, verbose=verbose))
        return
    set_up_terminal()
    if chosen:
        logger.info("train.learning_rate: %s", rate)

    from llm_engineering.lineage.stack import require_stack, runs_here, trains_here
    from llm_engineering.training_stack import leave_unsloth_out

    here = runs_here()
    if here:
        from llm_engineering.model.evaluation.benchmark_tasks import require_benchmarks
        from llm_engineering.scoring.require import require_scorers

        require_scorers(config.evaluate.answers)  # before anything is read, or paid for
        require_benchmarks(config.evaluate.benchmarks)
    if target == "sagemaker" and config.evaluate.benchmarks:
        raise ConfigError(
            f"evaluate.benchmarks ({', '.join(config.evaluate.benchmarks)}): a SageMaker job does not "
            "install lm-evaluation-harness; leave them out, or train on a host of your own"
        )
    for note in require_stack(config):
        click.secho(f"note: {note}", fg="yellow", err=True)
    trained_here = target == "local" and trains_here(config)
    launch = None
    if target == "sagemaker":
        leave_unsloth_out()  # nothing is trained here, and PyTorch may not be installed
        launched = _check_aws(config)
    elif trained_here:
        _check_host(config, gpus, resume=resume)
    else:
        _check_elsewhere(config, gpus)
    if here:
        _check_inputs(config, trains=trained_here, launches=target == "sagemaker")

    from zenml.utils import source_utils

    from llm_engineering.lineage.killed_runs import close_killed_runs, marked_as_running
    from llm_engineering.lineage.run_order import RunOrder

    if target == "sagemaker":
        launch = _launch(
            launched,
            attach,
            detach,
            fresh=not use_cache,
            command=command_line(config_path, overrides),
        )
    name = _free_name(
        name,
        Path(config.run.output_dir),
        numbered=config.run.name is None or target == "sagemaker",
        is_job=target == "sagemaker",
    )
    work = work_folder(config.run.output_dir)
    close_killed_runs(work)
    source_utils.set_custom_source_root(str(ROOT))
    for handler in logging.getLogger().handlers:
        handler.addFilter(_NoTraceback())
    from pipelines.finetuning import finetuning

    pipeline = finetuning.with_options(
        run_name=name,
        enable_cache=None if use_cache else False,
        tags=["finetuning", Path(config.model.id).name, target],
        extra=RunOrder(resume=resume, gpus=gpus, launch=launch).extra,
    )
    try:
        # Elsewhere steps go on without this process, and nobody's death here ends them.
        with marked_as_running(work, name) if here else nullcontext():
            pipeline(config=config)
    except KeyboardInterrupt as interrupt:
        if not trained_here:
            raise  # the launch, or the stack, has said what becomes of it
        raise interrupted(interrupt, config, name) from None
    except Exception as error:
        cause = _users_error(error) or (None if trained_here else _failed_elsewhere(name))
        if isinstance(cause, TrainingStoppedError):
            raise stopped(cause, config) from None
        if cause is None:
            cause = full_disk(error, config, name) or emptied_store(error)
        if cause is None:
            raise
        raise cause from None
    _report(config, name, _by_the_clock(config_path, overrides))


def _check_host(config: FinetuningConfig, gpus: str, *, resume: Resume) -> None:
    """Check what this host can do, where it is the one that trains."""
    from llm_engineering.distributed.share import choose_ranks, share_of_step
    from llm_engineering.model.finetuning.checkpoints import require_interrupted
    from llm_engineering.model.finetuning.trackers import require_trackers
    from llm_engineering.model.finetuning.trained_shape import trained_shape
    from llm_engineering.planning.device_plans import require_memory
    from llm_engineering.planning.disk import require_disk
    from llm_engineering.planning.hardware import require_hardware
    from llm_engineering.training_stack import require_training_stack

    require_training_stack()
    require_hardware(config)
    require_trackers(config.train.trackers)
    ranks = choose_ranks(gpus)
    share_of_step(config.train, ranks)
    shape = trained_shape(config.model, config.lora)
    require_memory(config, shape, ranks)
    require_disk(config, shape)
    if resume == "required":
        require_interrupted(work_folder(config.run.output_dir))


def _check_elsewhere(config: FinetuningConfig, gpus: str) -> None:
    """Check what can be known here of a training on another host: this one's hardware says nothing."""
    from llm_engineering.distributed.share import share_of_step

    if gpus != "auto":
        raise ConfigError(
            f"--gpus {gpus} is for training on this host: the active ZenML stack trains elsewhere, on "
            "as many GPUs as zenml.resources.gpu_count says"
        )
    share_of_step(config.train, max(1, config.zenml.resources.gpu_count))


def _check_inputs(config: FinetuningConfig, *, trains: bool, launches: bool) -> None:
    """Look at data, model and starting adapter, and at what exports need, before a run begins."""
    from llm_engineering.training_stack import has_pytorch, require_training_stack

    if not launches:
        require_training_stack()
    if trains or launches:
        from llm_engineering.export.requirements import require_exports

        require_exports(config)
    if has_pytorch():
        from llm_engineering.model.finetuning.preflight import check_adapter

        check_adapter(config)
    elif launches:
        from llm_engineering.model.finetuning.described import check_launched_adapter

        check_launched_adapter(config.model, config.lora)
    if config.train.start_from is not None:
        from llm_engineering.model.finetuning.adapter_folder import require_same_shape
        from llm_engineering.registry.starting_adapter import starting_adapter

        require_same_shape(starting_adapter(config.train.start_from), config)
    from llm_engineering.lineage.fingerprints import take_fingerprints
    from llm_engineering.registry.task import require_same_task

    take_fingerprints(config)
    require_same_task(config)


def _check_aws(config: FinetuningConfig) -> FinetuningConfig:
    """Check what can be checked before anything is paid for.

    Returns:
        The configuration, with AWS's list prices where it has none: a job's cost is told by them.
    """
    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.checks import check_account, check_locally
    from llm_engineering.sagemaker.cost import ceiling_text
    from llm_engineering.sagemaker.launch_order import sagemaker_settings
    from llm_engineering.sagemaker.prices import with_list_prices

    settings = sagemaker_settings(config)
    check_locally(config, settings, to_yaml(config))
    aws = Aws(settings)
    for warning in check_account(aws, settings):
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    settings = with_list_prices(aws, settings)
    print(f"cost ceiling: {ceiling_text(settings)}")
    return config.model_copy(update={"sagemaker": settings})


def _launch(
    config: FinetuningConfig,
    attach: str | None,
    detach: bool,
    *,
    fresh: bool,
    command: list[str],
) -> Launch:
    from llm_engineering.lineage.fingerprints import source_digest, take_fingerprints
    from llm_engineering.sagemaker.launch_order import Launch, sagemaker_settings
    from llm_engineering.sagemaker.project_jobs import configuration_of

    settings, fingerprints = sagemaker_settings(config), take_fingerprints(config)
    return Launch(
        config=config,
        code=source_digest(),
        configuration=configuration_of(
            config,
            settings,
            data=fingerprints.data,
            model=fingerprints.model,
            start=fingerprints.start,
            code=source_digest(),
        ),
        command=command,
        attach=attach,
        detach=detach,
        fresh=fresh,
    )


def _free_name(name: str, outputs: Path, *, numbered: bool, is_job: bool) -> str:
    """The run's name, or the next one of it: a job is followed in a new run of ZenML each time, and
    another run may have begun in this very second.

    Raises:
        ConfigError: It is taken, and not ``numbered``.
    """
    from zenml.client import Client

    def is_taken(candidate: str) -> bool:
        return bool(Client().list_pipeline_runs(name=candidate, size=1).total) or (
            (outputs / candidate).exists() or (work_folder(outputs) / candidate).exists()
        )

    if not is_taken(name):
        return name
    if not numbered:
        raise ConfigError(f"run.name: ZenML has a run {name} already; choose another name")
    free = next(each for n in itertools.count(2) if not is_taken(each := f"{name}-{n}"))
    if not is_job:
        return free
    click.secho(
        f"note: run.name: ZenML has a run {name} already, which did not finish; this one is {free}",
        fg="yellow",
        err=True,
    )
    return free


def _plan(
    config: FinetuningConfig,
    config_path: Path,
    name: str,
    target: str,
    gpus: str,
    rate: str,
    *,
    verbose: bool,
) -> str:
    """What would be done, whether it fits and what it costs; then the configuration."""
    output = Path(config.run.output_dir) / name
    lines = ["# objective"]
    lines += [f"  {_objective(config)}; learning rate {rate}", *_step(config), ""]
    lines += ["# data, not read here", *_sources(config), "", *_scores(config), "# steps"]
    lines += [f"  {step:<14} {what}" for step, what in STEPS.items()]
    lines += [
        "",
        "# would write",
        f"  {output}/adapter/        LoRA weights, tokenizer, chat template, model card",
        *([f"  {output}/merged/         the model, 16 bit"] if config.export.merged_16bit else []),
        *([f"  {output}/gguf/           {config.export.gguf}"] if config.export.gguf else []),
        f"  {output}/metrics.json",
        f"  {output}/manifest.json",
        f"  {output}/report.html",
        f"  {Path(config.run.output_dir) / 'latest'} -> {name}",
        "",
    ]
    if target == "sagemaker":
        from llm_engineering.sagemaker.launch_order import sagemaker_settings
        from llm_engineering.sagemaker.plan import launch_plan

        # Nobody is asked, the Hub neither: what it has given before is on this disk.
        os.environ["HF_HUB_OFFLINE"] = "1"

        lines += [launch_plan(config, sagemaker_settings(config)), ""]
    from llm_engineering.commands.adapter_plan import adapter_plan
    from llm_engineering.commands.memory_plan import memory_plan

    lines += [
        *adapter_plan(config),
        "",
        *memory_plan(config, target, gpus),
        "",
        *_settings(config, config_path, verbose=verbose),
        "",
        "dry run: nothing was loaded or written",
    ]
    return "\n".join(lines)


def _settings(config: FinetuningConfig, config_path: Path, *, verbose: bool) -> list[str]:
    """The whole configuration, or what differs from the defaults."""
    if verbose:
        return [f"# {config_path}, resolved", to_yaml(config).rstrip()]
    # What is set to its default is not worth a line; what was filled in for auto is.
    values = config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()
    return [f"# {config_path}: what differs from the defaults (-v: all of it)", text]


def _sources(config: FinetuningConfig) -> Iterator[str]:
    """Each source, and of files whether they are there; nobody is asked about others."""
    from llm_engineering.data.read.files import find_files
    from llm_engineering.data.read.sources import is_file, sources_of

    for key, source, asked in sources_of(config.data):
        if "://" in source or not is_file(source):
            yield f"  {key}: {source}"
            continue
        try:
            files = find_files(source, split=asked.split, default_split=asked.default_split)
        except DataError as error:
            yield f"  {key}: a run would stop here: {error}"
        else:
            size = sum(file.size for file in files)
            yield f"  {key}: {source}, {len(files)} file{'s' * (len(files) > 1)} of {size:,} bytes"


def _scores(config: FinetuningConfig) -> Iterator[str]:
    """What base model and adapter will answer, and what that asks of others."""
    answers, benchmarks = config.evaluate.answers, config.evaluate.benchmarks
    if answers is not None:
        yield "# answers"
        yield (
            f"  {answers.rows} held-out rows, at most {answers.max_new_tokens} tokens each, before and "
            f"after; scored by {', '.join(one.name for one in answers.scorers)}"
        )
        if answers.judge is not None:
            yield (
                f"  questions, references and answers go to {answers.judge.endpoint}, in at most "
                f"{answers.judge.max_calls} requests"
            )
        yield ""
    if benchmarks:
        yield from ("# benchmarks", f"  {', '.join(benchmarks)}, before and after", "")


def _objective(config: FinetuningConfig) -> str:
    """What is learned, and against what, in a line."""
    train = config.train
    start = f"the adapter {train.start_from}" if train.start_from else "a fresh adapter"
    objective = OBJECTIVES[train.objective]
    what = objective.title + (f" (beta {train.beta:g})" if objective.is_preference else "")
    reference = ""
    if objective.has_reference_model:
        reference = (
            ", which is the reference model too"
            if train.start_from
            else "; the reference model is the base model"
        )
    return f"{what}, starting from {start}{reference}"


def _step(config: FinetuningConfig) -> list[str]:
    """What goes into an optimizer step, as far as it is known before the rows are read."""
    train = config.train
    rows = train.rows_in_step
    text = f"  {rows} documents a step"
    if train.packing:
        text = (
            f"  {rows} packed rows a step, {rows * config.model.max_seq_length:,} tokens; how many "
            "documents that is, training says once the rows are read"
        )
    return [text, *(f"  warning: {w}" for w in step_warnings(rows, train.max_steps))]


class _NoTraceback(logging.Filter):
    """Drops the traceback of an error that is the user's to mend: its message says enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and (
            _users_error(error) or is_full_disk(error) or emptied_store(error)
        ):
            record.exc_info = None
            record.exc_text = None
        return True


def _users_error(error: BaseException | None) -> FinetuningError | None:
    """The error that is the user's to mend, where the orchestrator wrapped it in its own."""
    while error is not None:
        if isinstance(error, FinetuningError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _failed_elsewhere(name: str) -> FinetuningError | None:
    from llm_engineering.lineage.failed_step import failure_of

    return failure_of(name)


def _report(config: FinetuningConfig, name: str, command: list[str]) -> None:
    """Say what came of a run, from its artifacts: they are there wherever its steps ran."""
    from zenml.client import Client
    from zenml.utils.dashboard_utils import get_run_url

    from llm_engineering.registry.version_files import write_version
    from llm_engineering.registry.versions import find_version, model_name

    run = Client().get_pipeline_run(name)
    link = get_run_url(run)
    if not run.status.is_finished:
        print(f"\nsubmitted      {name}; the active ZenML stack runs it without this command")
        print(f"follow it      {link or f'zenml pipeline runs list --name {name}'}")
        print(f"afterwards     tools/run.py --pull {name} FOLDER")
        return
    if not run.status.is_successful:
        raise _failed_elsewhere(name) or TrainingError(
            f"{name} ended as {run.status.value}, and ZenML does not say why; see its steps' logs"
        )
    folder = Path(config.run.output_dir) / name
    version = find_version(model_name(config), name)
    if not folder.exists():
        write_version(version, folder)
    metrics: dict[str, Any] = run.steps["save_model"].outputs["metrics"][0].load()
    decision = run.steps["promote"].outputs["promotion"][0].load()
    before, after = metrics["held_out_loss_before"], metrics["held_out_loss_after"]
    cached = [step for step, one in run.steps.items() if str(one.status) == "cached"]
    print(f"\nheld-out loss  {before:.3f} -> {after:.3f}  ({after / before - 1:+.1%})")
    if "reward_accuracy_after" in metrics:
        accuracy = [metrics[f"reward_accuracy_{when}"] for when in ("before", "after")]
        margin = [metrics[f"reward_margin_{when}"] for when in ("before", "after")]
        print(f"rewards        accuracy {accuracy[0]:.1%} -> {accuracy[1]:.1%}", end="")
        print(f", margin {margin[0]:.3f} -> {margin[1]:.3f}")
    for score in (
        name[6:-7] for name in metrics if name.startswith("score_") and name.endswith("_before")
    ):
        told = {part: metrics[f"score_{score}_{part}"] for part in _SCORE_FIGURES}
        print(
            f"{score:<13}  {told['before']:.3f} -> {told['after']:.3f}  ({told['change']:+.3f}, 95 % "
            f"interval {told['change_low']:+.3f} to {told['change_high']:+.3f})"
        )
    print(f"adapter        {folder}/adapter")
    if (folder / "merged").is_dir():
        print(f"merged model   {folder}/merged")
    print(f"report         {folder}/report.html")
    if link:
        print(f"in ZenML       {link}")
    outcome = "promoted" if decision.promoted else "not promoted"
    print(f"production     {outcome}: {decision.reason}")
    if cached:
        print(f"from cache     {', '.join(cached)}  (--no-cache runs them again)")
    print("\n".join(["", *_next_commands(config, name, command, decision)]))


def _by_the_clock(config_path: Path, overrides: Sequence[str]) -> list[str]:
    """This command as a schedule's: without a name, which each of its runs needs of its own."""
    path = config_path.relative_to(ROOT) if config_path.is_relative_to(ROOT) else config_path
    words = ["tools/run.py", "--finetune", "--config", str(path)]
    for override in without_schedule(overrides):
        if override.partition("=")[0].strip() != "run.name":
            words += ["--set", override]
    return [*words, "--schedule", "0 3 * * 1"]


def _next_commands(
    config: FinetuningConfig, name: str, command: list[str], decision: Decision
) -> list[str]:
    """The three commands that help most now, as they can be typed.

    Args:
        config: The run's.
        name: The run.
        command: That which makes it again by the clock, in words.
        decision: Whether it is production; if not, the run that it was held against may say why.
    """

    def named(which: str) -> str:
        elsewhere = config.run.output_dir != "outputs"
        return shlex.quote(str(Path(config.run.output_dir) / which) if elsewhere else which)

    run, other = named(name), decision.production
    last = (
        f"by the clock   {shlex.join(command)}"
        if decision.promoted
        else f"side by side   tools/run.py --compare {named(other) if other else 'OTHER_RUN'} {run}"
    )
    return [
        f"talk to it     tools/run.py --chat {run}",
        "its versions   tools/run.py --models",
        last,
    ]
