"""One rank of a training: loads, injects and trains by the functions of a process that is alone.

Started by torch.distributed's elastic agent (launch.py) as
``python -m llm_engineering.training.rank ORDER``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, Field

from llm_engineering.distributed import world
from llm_engineering.distributed.fsdp import FsdpBackend
from llm_engineering.errors import LoraError
from llm_engineering.model.finetuning.backend import use_backend
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.training.attempt import Attempt
from llm_engineering.training.failure import Failure
from llm_engineering.training.messages import (
    ADDRESS,
    Link,
    LinkHandler,
    RemoteDisplay,
    SilentDisplay,
)

logger = logging.getLogger(__name__)

RECORD = "record.json"
# Ranks wait for each other only at exchanges, and the agent ends them all when one has ended: this
# bounds nothing but a wait for a slow disk.
_TIMEOUT = timedelta(hours=2)


class RankOrder(BaseModel):
    """What every rank is told."""

    attempt: Attempt
    folder: Path = Field(description="Receives failures and the record.")
    relocated: dict[str, Path] = Field(description="Where base models lie on this host.")
    production: Path | None = Field(description="Folder of the production version to measure.")


def main() -> None:
    """Train as one rank; leave word of an error."""
    order = RankOrder.model_validate_json(Path(sys.argv[1]).read_bytes())
    link = Link(os.environ[ADDRESS])
    try:
        _join()
        _run(order, link)
    except BaseException as error:
        Failure.of(int(os.environ["RANK"]), error).write(order.folder)
        raise
    _leave()


def _join() -> None:
    """Enter the process group, with this rank's own GPU."""
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=_TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=_TIMEOUT)
    if world.is_sharded():
        use_backend(FsdpBackend())


def _leave() -> None:
    """End the process group, and with it a rank that has nothing more to say.

    Seen once in some thirty trainings: an interpreter that ended under the group's threads aborted, and
    a training that had succeeded was told to have failed.
    """
    import gc

    import torch.distributed as dist

    from llm_engineering.model import live

    first = world.is_first()
    live.release()
    gc.collect()  # what is left of the trainer still knows the group
    dist.destroy_process_group()
    if not first:  # the first has trackers to close on its way out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _run(order: RankOrder, link: Link) -> None:
    from llm_engineering.data.dataset import PreparedDataset
    from llm_engineering.model.base_model import relocate
    from llm_engineering.training.evaluate import measure
    from llm_engineering.training.here import train_here
    from llm_engineering.training.production import ProductionAdapter, measure_production

    for model, folder in order.relocated.items():
        relocate(model, folder)
    attempt = world.as_the_first_says(order.attempt)  # hosts have planned each for itself
    display: Display = SilentDisplay()
    if world.is_first():
        logging.basicConfig(level=logging.INFO, handlers=[LinkHandler(link)])
        logging.getLogger("accelerate").setLevel(logging.WARNING)  # four lines a checkpoint
        display = RemoteDisplay(link, attempt.record)
    adapter = train_here(attempt, display, stop=link.stop)
    if not world.is_first() and not world.is_sharded():
        return
    dataset, record = PreparedDataset.read(attempt.dataset), attempt.record
    evaluation = measure(attempt.lora, adapter, dataset, record, attempt.evaluate)
    if order.production is not None:
        production = ProductionAdapter.read(order.production)
        logger.info("evaluating the production version %s on this run's rows", production.version)
        try:
            record.production = measure_production(
                attempt.lora,
                adapter,
                production,
                dataset,
                record,
                attempt.evaluate,
            )
        except LoraError as reason:  # the gate refuses to compare with it, and says so
            logger.warning("production cannot be measured on shared weights: %s", reason)
    record.evaluation = evaluation
    if world.is_first():
        (order.folder / RECORD).write_text(record.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches the ranks too; the process that started them passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
