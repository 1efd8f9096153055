"""What every command that uses ZenML does first: quiet libraries, and a ZenML that answers."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys

import click

from llm_engineering.errors import SetupError


def set_up_terminal() -> None:
    """Quieten the libraries, before ZenML and the Hub's are imported: they read this once.

    Raises:
        SetupError: ZenML is not installed.
    """
    if importlib.util.find_spec("zenml") is None:
        raise SetupError("ZenML is not installed: run `make setup`")
    os.environ.setdefault("ZENML_ANALYTICS_OPT_IN", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not sys.stderr.isatty():  # a log file wants no colours, boxes or bars
        os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
        os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Generation warns of what unsloth adds to the arguments of every call.
    for noisy in (
        "httpx", "datasets", "torchao", "torch.utils._pytree", "transformers.generation",
    ):  # fmt: skip
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("zenml.orchestrators.step_run_utils").addFilter(_no_advert)

    from llm_engineering.lineage.local_server import leave_dead_server

    left = leave_dead_server()
    if left:
        message = f"note: ZenML's local server at {left} has ended; going on without it"
        click.secho(message, fg="yellow", err=True)


def _no_advert(record: logging.LogRecord) -> bool:
    """Drops ZenML's invitation to its paid product, which comes with every model version."""
    return "ZenML Pro" not in record.getMessage()
