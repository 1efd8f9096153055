"""``--jobs``, ``--stop JOB`` and ``--clean``: the project's SageMaker jobs, and what they left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llm_engineering.commands.command_line import command_line, typed
from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.errors import ConfigError, FinetuningError

if TYPE_CHECKING:
    from rich.table import Table

    from llm_engineering.configuration.sagemaker import SagemakerSettings
    from llm_engineering.sagemaker.project_jobs import ProjectJob

_SHOWN = 50


def show(config_path: Path, overrides: Sequence[str]) -> None:
    """Print the newest jobs: state, cost, which answers to the configuration, what may be typed.

    Raises:
        LaunchError: They may not be listed.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()

    from rich.console import Console

    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.launch_order import sagemaker_settings
    from llm_engineering.sagemaker.prices import with_list_prices
    from llm_engineering.sagemaker.project_jobs import project_jobs

    settings = sagemaker_settings(config)
    aws = Aws(settings)
    jobs = project_jobs(aws, with_list_prices(aws, settings), most=_SHOWN + 1)
    if not jobs:
        print(f"no jobs named {settings.job_prefix}-... with results in s3://{settings.bucket}")
        return
    configuration = _configuration(config, settings)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = 240
    console.print(_table(jobs[:_SHOWN], configuration))
    if len(jobs) > _SHOWN:
        print(f"older ones are left out: these are the newest {_SHOWN}")
    if any(job.cost_usd is None for job in jobs):
        print(
            "USD ?: neither sagemaker.price_per_hour nor AWS's list has that instance type's price"
        )
    line = command_line(config_path, overrides)
    train = typed(line, "--finetune", "--target", "sagemaker")
    for job in jobs[:_SHOWN]:
        if job.is_live:
            attach = f"{train} --attach {job.name}"
            other = "" if job.answers_to(configuration) else "  (with its own configuration)"
            print(f"{job.name}\n  follow:  {attach}{other}")
            print(f"  stop:    {typed(line, '--stop', job.name)}")
    if any(job.answers_to(configuration) for job in jobs):
        print(f"this configuration's: follow, fetch or go on with  {train}")


def stop(name: str, config_path: Path, overrides: Sequence[str]) -> None:
    """Ask for a job to be stopped, and say what that leaves.

    Raises:
        LaunchError: There is no such job, or it may not be stopped.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()

    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.launch_order import sagemaker_settings
    from llm_engineering.sagemaker.prices import with_list_prices
    from llm_engineering.sagemaker.project_jobs import stop_job

    settings = sagemaker_settings(config)
    aws = Aws(settings)
    job = stop_job(aws, with_list_prices(aws, settings), name)
    cost = "" if job.cost_usd is None else f"; it has cost about {job.cost_usd:,.2f} USD so far"
    if not job.is_live:
        print(f"{name} has ended already: {job.state}{cost}")
        return
    print(f"stopping {name}: it saves a checkpoint first, for two minutes at most{cost}")
    print("its checkpoints are kept; the command that launched it goes on from them")


def clean(days: int, config_path: Path, overrides: Sequence[str], *, dry_run: bool) -> None:
    """Remove from S3 what jobs that ended so many days ago left, but for production's.

    Raises:
        ConfigError: ``days`` is less than one.
        LaunchError: Something may not be listed or removed.
    """
    if days < 1:
        raise ConfigError(f"--clean {days}: give a number of days, at least 1")
    config = load_config(config_path, overrides)
    set_up_terminal()

    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.clean import find_leftovers, remove
    from llm_engineering.sagemaker.launch_order import sagemaker_settings
    from llm_engineering.sagemaker.project_jobs import project_jobs

    settings = sagemaker_settings(config)
    aws = Aws(settings)
    jobs = project_jobs(aws, settings)
    found = find_leftovers(
        aws,
        settings,
        jobs,
        days=days,
        production=_production_jobs(),
        own_runs={job.run for job in jobs if _is_own(job.run)},
    )
    for name, reason in found.kept.items():
        print(f"kept     {name}: {reason}")
    verb = "would remove" if dry_run else "removed"
    for folder in found.folders:
        if not dry_run:
            remove(aws, folder)
        print(f"{verb}  {folder.uri}  {folder.bytes / 2**20:,.1f} MiB, {len(folder.keys)} objects")
    if not found.folders:
        print(f"nothing that jobs of {days} days ago and more left")


def _production_jobs() -> set[str]:
    from llm_engineering.registry.production_jobs import production_jobs

    return production_jobs()


def _is_own(run: str) -> bool:
    from zenml.client import Client

    return bool(run) and bool(Client().list_pipeline_runs(name=run, size=1).total)


def _configuration(config: FinetuningConfig, settings: SagemakerSettings) -> str:
    from llm_engineering.lineage.fingerprints import source_digest, take_fingerprints
    from llm_engineering.sagemaker.project_jobs import configuration_of

    try:
        now = take_fingerprints(config)
    except FinetuningError as error:
        click.secho(
            f"warning: no job is marked as this configuration's: {error}", fg="yellow", err=True
        )
        return ""
    return configuration_of(
        config, settings, data=now.data, model=now.model, start=now.start, code=source_digest()
    )


def _table(jobs: Sequence[ProjectJob], configuration: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Job", overflow="fold")
    table.add_column("State")
    table.add_column("Run", overflow="fold")
    table.add_column("Instance")
    table.add_column("Submitted (UTC)")
    table.add_column("Billed", justify="right")
    table.add_column("USD", justify="right")
    table.add_column("This configuration")
    for job in jobs:
        table.add_row(
            job.name,
            job.state,
            job.run,
            job.instance,
            f"{job.created:%Y-%m-%d %H:%M}",
            f"{job.billable_seconds:,} s",
            "?" if job.cost_usd is None else f"{job.cost_usd:,.2f}",
            "yes" if configuration and job.answers_to(configuration) else "",
        )
    return table
