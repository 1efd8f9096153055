"""The command of this project: fine-tune, and look at what came of it.

poetry run python tools/run.py --finetune
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works too where the project itself is not installed


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
@click.option("--resume", is_flag=True, help="Continue the interrupted run of this configuration.")
@click.option(
    "--dry-run", is_flag=True, help="Print the resolved configuration and the plan; touch nothing."
)
@click.option("--no-cache", is_flag=True, help="Run every step again, even if nothing changed.")
@click.option(
    "--target",
    type=click.Choice(["local", "sagemaker"]),
    default="local",
    help="Where to train: on this host, or in a SageMaker job.  [default: local]",
)
@click.option("--attach", metavar="JOB", help="Follow a SageMaker job that is there already.")
@click.option("--detach", is_flag=True, help="On Ctrl-C, leave the SageMaker job running.")
def main(
    finetune: bool,
    config_path: Path,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    no_cache: bool,
    target: str,
    attach: str | None,
    detach: bool,
) -> None:
    """Fine-tune LoRA adapters through a ZenML pipeline."""
    if not finetune:
        raise click.UsageError("say what to do, for example --finetune")

    from llm_engineering.errors import FinetuningError

    try:
        from llm_engineering.commands import finetune as command

        command.run(
            config_path,
            overrides,
            resume=resume,
            dry_run=dry_run,
            use_cache=not no_cache,
            target=target,
            attach=attach,
            detach=detach,
        )
    except FinetuningError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        hint = "; continue with --resume" if target == "local" else ""
        click.secho(f"interrupted{hint}", fg="yellow", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
