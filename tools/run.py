#!/bin/sh
""":"
exec "$(dirname -- "$(readlink -f -- "$0")")/../.venv/bin/python" "$0" "$@"

The command of this project: fine-tune, on request or on a schedule, and look after the results.

poetry run python tools/run.py --finetune
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works too where the project itself is not installed


_GROUPS = {
    "Train": "finetune data config set resume dry_run verbose no_cache gpus target",
    "Data and configuration": "init model inspect_data explain",
    "After the training": "compare chat ask ask_file answers of serve host port reproduce dashboard disk",
    "Registry": "models promote rollback pull",
    "Retrain by the clock": "schedule name schedules run_scheduled force unschedule",
    "SageMaker": "attach detach jobs stop clean deploy undeploy",
}
_EXAMPLES = """\
  run.py --finetune                                    the embedded model and data
  run.py --finetune --config my.yaml --dry-run         what my.yaml would do, and whether it fits
  run.py --finetune --data my.jsonl                    the same model, on your rows
  run.py --inspect-data my.jsonl                       what would be trained of this file
  run.py --compare RUN RUN                             both on one page
  run.py --ask "What does itertools.chain do?"         an answer of the newest run
  run.py --finetune --config my.yaml --schedule "0 3 * * 1"
"""


class _GroupedCommand(click.Command):
    """Its help has the options by what they are for."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block for each group; what is in none comes last."""
        records = {
            option.opts[-1].removeprefix("--").replace("-", "_"): option.get_help_record(ctx)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
        }
        for title, names in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [record for name in names.split() if (record := records.pop(name))]
                )
        with formatter.section("Other"):
            formatter.write_dl([record for record in records.values() if record])
        with formatter.section("Examples"):
            formatter.write(_EXAMPLES)


@click.command(
    cls=_GroupedCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--finetune", is_flag=True, help="Fine-tune a LoRA adapter, start to finish.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT / "configs" / "finetuning.yaml",
    help="Configuration file.  [default: configs/finetuning.yaml]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the configuration, e.g. train.learning_rate=1e-4. Repeatable.",
)
@click.option(
    "--data",
    metavar="SOURCE",
    help="With --finetune: train on this file, folder, URL or Hub data set in place of the"
    " configured ones; a tenth of it is held out. With --init: the data that it looks at.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a commented configuration, from a look at --data; never overwrites.",
)
@click.option(
    "--model", metavar="ID", help="With --init: its base model.  [default: the embedded model]"
)
@click.option(
    "--resume",
    type=click.Choice(["required", "if-possible"]),
    is_flag=False,
    flag_value="required",
    help="Continue the interrupted run of this configuration; =if-possible: or start anew.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the plan, its cost and what is configured; touch nothing.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="With --dry-run: print the whole configuration too."
)
@click.option("--no-cache", is_flag=True, help="Run every step again, even if nothing changed.")
@click.option(
    "--target",
    type=click.Choice(["local", "sagemaker"]),
    default="local",
    help="Where to train: on this host, or in a SageMaker job.  [default: local]",
)
@click.option(
    "--gpus",
    metavar="N|auto",
    default="auto",
    help="GPUs of this host that share each training step; auto: all of them.  [default: auto]",
)
@click.option("--attach", metavar="JOB", help="Follow a SageMaker job that is there already.")
@click.option("--detach", is_flag=True, help="On Ctrl-C, leave the SageMaker job running.")
@click.option(
    "--schedule", metavar="CRON", help='With --finetune: do it by this clock, e.g. "0 3 * * 1".'
)
@click.option("--name", metavar="NAME", help="With --schedule: the schedule's name.")
@click.option("--schedules", is_flag=True, help="List schedules: next and last run, outcome.")
@click.option("--unschedule", metavar="NAME", help="Remove a schedule.")
@click.option("--run-scheduled", metavar="NAME", help="Run a schedule now.")
@click.option("--force", is_flag=True, help="With --run-scheduled: even if nothing changed.")
@click.option("--run-name", hidden=True)  # given by --run-scheduled to the run that it starts
@click.option("--dashboard", is_flag=True, help="Open the ZenML dashboard on the newest run.")
@click.option("--jobs", is_flag=True, help="List the SageMaker jobs: state, cost, how to follow.")
@click.option(
    "--stop",
    metavar="[JOB]",
    is_flag=False,
    flag_value="",
    help="Stop a SageMaker job; with --dashboard: ZenML's local server.",
)
@click.option(
    "--clean",
    type=int,
    metavar="[DAYS]",
    is_flag=False,
    flag_value=30,
    help="Remove from S3 what SageMaker jobs of so many days ago left, but for production's."
    "  [default: 30]",
)
@click.option(
    "--reproduce",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="MANIFEST",
    help="Run again what a manifest.json says, and tell what came out otherwise.",
)
@click.option(
    "--inspect-data",
    metavar="[SOURCE]",
    is_flag=False,
    flag_value="",
    help="Show what would be trained: the configured data, or another source.",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Write a page of the runs that follow: settings, figures, curves and answers side by side.",
)
@click.argument("runs", nargs=-1, metavar="[RUN RUN ...]")
@click.option(
    "--chat",
    metavar="[RUN]",
    is_flag=False,
    flag_value="",
    help="Talk to the newest run's model, or to that of a run's name or folder.",
)
@click.option("--ask", metavar="QUESTION", help="Print that model's answer to one question.")
@click.option(
    "--ask-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer each row of a file; needs --answers.",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --ask-file: the JSON lines that it writes.",
)
@click.option(
    "--of",
    metavar="RUN",
    default="",
    help="With --ask and --ask-file: whose answers; with --deploy: which version.  [default: the"
    " newest run's; of --deploy: production]",
)
@click.option(
    "--serve",
    metavar="[VERSION]",
    is_flag=False,
    flag_value="",
    help="Serve the production version, another, or a run's folder to OpenAI clients, until Ctrl-C.",
)
@click.option(
    "--host", default="127.0.0.1", help="With --serve: address to listen on.  [default: 127.0.0.1]"
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    help="With --serve: port; 0 takes a free one.  [default: 8000]",
)
@click.option(
    "--deploy",
    type=click.Choice(["sagemaker"]),
    help="Put the production version, or that of --of, behind the configured endpoint, which is paid"
    " for by the hour until --undeploy.",
)
@click.option(
    "--undeploy",
    metavar="[ENDPOINT]",
    is_flag=False,
    flag_value="",
    help="Remove the configured SageMaker endpoint, or another of this project's.",
)
@click.option(
    "--explain", metavar="KEY", help="Print what a key or section of the configuration takes."
)
@click.option("--models", is_flag=True, help="List registered adapters: stage and figures.")
@click.option("--promote", metavar="VERSION", help="Make a registered adapter the production one.")
@click.option(
    "--pull",
    nargs=2,
    metavar="VERSION DIR",
    help="Write a registered version's files, or those of `production`, into a new folder.",
)
@click.option("--rollback", is_flag=True, help="Put the former production adapter back.")
@click.option(
    "--disk", is_flag=True, help="Show what takes how much room, and what would be removed."
)
def main(**options: Any) -> None:
    """Fine-tune LoRA adapters through a ZenML pipeline."""
    from llm_engineering.errors import FinetuningError
    from llm_engineering.signals import end_as_by_ctrl_c, signal_of

    action = _action(options)
    if options["data"] and options["init"] is None:
        from llm_engineering.configuration.load import own_data

        options["overrides"] = tuple(own_data(options["data"], options["overrides"]))
    end_as_by_ctrl_c()
    try:
        if _needs_store(action, options):
            _require_store()
        action(options)
    except FinetuningError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interrupt:
        click.secho("interrupted", fg="yellow", err=True)
        sys.exit(128 + signal_of(interrupt))


def _needs_store(action: Any, options: dict[str, Any]) -> bool:
    """A look, or the end of a paid job, must not fail for ZenML's sake."""
    if action is _serve:
        return not Path(options["serve"] or "production").is_dir()
    if (
        action in (_init, _explain, _jobs, _stop, _chat, _ask, _ask_file, _undeploy)
        or options["inspect_data"] is not None
    ):
        return False
    return not (action is _finetune and options["dry_run"])


def _require_store() -> None:
    from llm_engineering.lineage.store import require_store

    note = require_store()
    if note:
        click.secho(f"note: {note}", fg="yellow", err=True)


def _finetune(options: dict[str, Any]) -> None:
    from llm_engineering.commands import finetune

    finetune.run(
        options["config_path"],
        options["overrides"],
        resume=options["resume"] or "never",
        dry_run=options["dry_run"],
        verbose=options["verbose"],
        use_cache=not options["no_cache"],
        target=options["target"],
        gpus=options["gpus"],
        attach=options["attach"],
        detach=options["detach"],
        name=options["run_name"],
    )


def _schedule(options: dict[str, Any]) -> None:
    from llm_engineering.commands import schedule

    schedule.add(
        options["schedule"],
        options["name"],
        options["config_path"],
        options["overrides"],
        target=options["target"],
    )


def _schedules(options: dict[str, Any]) -> None:
    from llm_engineering.commands import schedule

    schedule.show()


def _unschedule(options: dict[str, Any]) -> None:
    from llm_engineering.commands import schedule

    schedule.remove(options["unschedule"])


def _run_scheduled(options: dict[str, Any]) -> None:
    from llm_engineering.commands import schedule

    schedule.run_now(options["run_scheduled"], force=options["force"])


def _dashboard(options: dict[str, Any]) -> None:
    from llm_engineering.commands import dashboard

    dashboard.start() if options["stop"] is None else dashboard.stop()


def _jobs(options: dict[str, Any]) -> None:
    from llm_engineering.commands import jobs

    jobs.show(options["config_path"], options["overrides"])


def _stop(options: dict[str, Any]) -> None:
    from llm_engineering.commands import jobs

    jobs.stop(options["stop"], options["config_path"], options["overrides"])


def _clean(options: dict[str, Any]) -> None:
    from llm_engineering.commands import jobs

    jobs.clean(
        options["clean"],
        options["config_path"],
        options["overrides"],
        dry_run=options["dry_run"],
    )


def _reproduce(options: dict[str, Any]) -> None:
    from llm_engineering.commands import reproduce

    reproduce.run(options["reproduce"])


def _inspect_data(options: dict[str, Any]) -> None:
    from llm_engineering.commands import inspect_data

    source = options["inspect_data"] or None
    inspect_data.run(options["config_path"], options["overrides"], source)


def _chat(options: dict[str, Any]) -> None:
    from llm_engineering.commands import chat

    chat.run(options["chat"], options["config_path"], options["overrides"])


def _ask(options: dict[str, Any]) -> None:
    from llm_engineering.commands import ask

    ask.ask(options["ask"], options["of"], options["config_path"], options["overrides"])


def _ask_file(options: dict[str, Any]) -> None:
    from llm_engineering.commands import ask

    if options["answers"] is None:
        raise click.UsageError("--ask-file needs --answers FILE, which it writes")
    ask.ask_file(
        options["ask_file"],
        options["answers"],
        options["of"],
        options["config_path"],
        options["overrides"],
    )


def _serve(options: dict[str, Any]) -> None:
    from llm_engineering.commands import serve

    serve.run(
        options["serve"],
        options["host"],
        options["port"],
        options["config_path"],
        options["overrides"],
        dry_run=options["dry_run"],
    )


def _deploy(options: dict[str, Any]) -> None:
    from llm_engineering.commands import deploy

    deploy.deploy(
        options["of"], options["config_path"], options["overrides"], dry_run=options["dry_run"]
    )


def _undeploy(options: dict[str, Any]) -> None:
    from llm_engineering.commands import deploy

    deploy.undeploy(options["undeploy"], options["config_path"], options["overrides"])


def _compare(options: dict[str, Any]) -> None:
    from llm_engineering.commands import compare

    compare.run(options["runs"], options["config_path"], options["overrides"])


def _init(options: dict[str, Any]) -> None:
    from llm_engineering.commands import init

    if options["data"] is None:
        raise click.UsageError("--init needs --data SOURCE, which it looks at")
    init.run(options["init"], options["data"], options["model"])


def _explain(options: dict[str, Any]) -> None:
    from llm_engineering.commands import explain

    explain.show(options["explain"])


def _models(options: dict[str, Any]) -> None:
    from llm_engineering.commands import models

    models.show()


def _promote(options: dict[str, Any]) -> None:
    from llm_engineering.commands import models

    models.promote(options["promote"], options["config_path"], options["overrides"])


def _rollback(options: dict[str, Any]) -> None:
    from llm_engineering.commands import models

    models.rollback(options["config_path"], options["overrides"])


def _disk(options: dict[str, Any]) -> None:
    from llm_engineering.commands import disk

    disk.show(options["config_path"], options["overrides"])


def _pull(options: dict[str, Any]) -> None:
    from llm_engineering.commands import pull

    version, folder = options["pull"]
    pull.run(version, Path(folder), options["config_path"], options["overrides"])


_ACTIONS = {
    "finetune": _finetune,
    "schedules": _schedules,
    "unschedule": _unschedule,
    "run_scheduled": _run_scheduled,
    "dashboard": _dashboard,
    "jobs": _jobs,
    "stop": _stop,
    "clean": _clean,
    "inspect_data": _inspect_data,
    "reproduce": _reproduce,
    "compare": _compare,
    "chat": _chat,
    "ask": _ask,
    "ask_file": _ask_file,
    "serve": _serve,
    "deploy": _deploy,
    "undeploy": _undeploy,
    "init": _init,
    "explain": _explain,
    "models": _models,
    "promote": _promote,
    "rollback": _rollback,
    "disk": _disk,
    "pull": _pull,
}
# An option that means nothing without its action, or one of several, is a mistake, not a silent
# nothing.
_BELONGS_TO = {
    "schedule": ("finetune",),
    "name": ("schedule",),
    "data": ("finetune", "init"),
    "model": ("init",),
    "run_name": ("finetune",),
    "resume": ("finetune",),
    "dry_run": ("finetune", "clean", "serve", "deploy"),
    "verbose": ("dry_run",),
    "no_cache": ("finetune",),
    "target": ("finetune",),
    "gpus": ("finetune",),
    "attach": ("finetune",),
    "detach": ("finetune",),
    "force": ("run_scheduled",),
    "answers": ("ask_file",),
    "of": ("ask", "ask_file", "deploy"),
    "host": ("serve",),
    "port": ("serve",),
}
# What a schedule's runs decide for themselves, every time.
_NOT_SCHEDULED = ("resume", "dry_run", "verbose", "no_cache", "gpus", "attach", "detach")
_UNSAID = {"target": "local", "gpus": "auto", "host": "127.0.0.1", "port": 8000}


def _action(options: dict[str, Any]) -> Any:
    chosen = [name for name in _ACTIONS if options[name] is not None and options[name] is not False]
    if options["stop"] == "":  # without a job, it is of the dashboard
        if not options["dashboard"]:
            raise click.UsageError("--stop goes with --dashboard; or give it a SageMaker job")
        chosen.remove("stop")
    said = [name for name, value in options.items() if value and value != _UNSAID.get(name)]
    for option, owners in _BELONGS_TO.items():
        if option in said and not {*chosen, *said} & {*owners}:
            raise click.UsageError(f"{_flag(option)} goes with {' or '.join(map(_flag, owners))}")
    if options["runs"] and not options["compare"]:
        raise click.UsageError(f"{options['runs'][0]} stands alone: runs are named after --compare")
    if options["schedule"]:
        for option in _NOT_SCHEDULED:
            if option in said:
                raise click.UsageError(f"{_flag(option)} does not go with --schedule")
    if not chosen:
        raise click.UsageError("say what to do, for example --finetune")
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(map(_flag, chosen))} are two commands; give one")
    return _schedule if options["schedule"] else _ACTIONS[chosen[0]]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


if __name__ == "__main__":
    main()
