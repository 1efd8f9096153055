"""What runs inside the SageMaker training job: the same functions as a local run, in a row.

``start.py`` becomes this process by ``exec``, so that the service's SIGTERM reaches it. Reads one configuration file and the prepared data from input channels, writes
checkpoints to a folder that the service keeps in S3, and leaves results in the model folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.distributed.placement import Placement
from llm_engineering.errors import FinetuningError, LaunchError
from llm_engineering.outputs import unproven
from llm_engineering.sagemaker.cluster_network import cluster_environment
from llm_engineering.sagemaker.serving_layout import ServedFrom, arrange

if TYPE_CHECKING:
    from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
JOB_FILE = "job.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
PRODUCTION = "production"
START = "start"
RECORDS = "records"
CONFIG, DATASET, CODE, BASE_MODEL = "config", "dataset", "code", "base_model"
"""Names of the input channels."""
HUB_CACHE = "/opt/ml/huggingface"
"""HF_HOME of a job: on the instance's large volume, which ends with each start of the job."""
MAX_FAILURE_CHARACTERS = 1024
"""The service keeps so many characters of the failure file (CreateTrainingJob reference)."""


class JobOrder(BaseModel):
    """What the launcher tells the job beside the configuration."""

    run: str
    region: str
    secrets: dict[str, str]
    has_base_model: bool
    served: ServedFrom
    weights: dict[str, str] = {}
    """SHA-256 of the base model's weight files by name, as the launcher knew them."""


@dataclass(frozen=True)
class JobFolders:
    """The folders that the service and this job agree on."""

    root: Path = Path("/opt/ml")

    def channel(self, name: str) -> Path:
        """An input channel: "config", "dataset" or "base_model"."""
        return self.root / "input" / "data" / name

    @property
    def checkpoints(self) -> Path:
        """Kept in S3 by the service, and back here after an interruption."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """What becomes model.tar.gz."""
        return self.root / "model"

    @property
    def failure(self) -> Path:
        """What becomes the job's FailureReason."""
        return self.root / "output" / "failure"


def main() -> None:
    """Run the job; on an error, say the useful thing first where the service looks for it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    folders = JobFolders()
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        logger.info("SIGTERM: saving a checkpoint and stopping")
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    try:
        run(folders, stop)
    except BaseException as error:
        write_failure(folders.failure, error)
        raise


def run(folders: JobFolders, stop: threading.Event) -> None:
    """Load, inject, train, evaluate, save.

    Raises:
        FinetuningError: As the same functions in a local run.
    """
    started = time.time()
    config = read_config(folders.channel(CONFIG))
    order = JobOrder.model_validate_json((folders.channel(CONFIG) / JOB_FILE).read_bytes())
    read_secrets(order)

    from llm_engineering.data.dataset import PreparedDataset
    from llm_engineering.model.base_model import relocate
    from llm_engineering.registry.starting_adapter import starting_adapter
    from llm_engineering.training.complete import train_completely

    if order.has_base_model:
        relocate(config.model.id, folders.channel(BASE_MODEL))
    output = folders.root / "finetuning"
    here = config.run.model_copy(update={"output_dir": str(output)})
    start_from = config.train.start_from
    try:
        made = train_completely(
            config.model_copy(update={"run": here}),
            PreparedDataset.read(folders.channel(DATASET)),
            run=order.run,
            started=started,
            work=folders.checkpoints,
            name="job",
            placement=read_placement(folders),
            start=starting_adapter(start_from) if start_from else None,
            production=read_production(folders),
            resume="if-possible",
            require=lambda lora: require_same_weights(order, lora.model.weight_digests),
            stop=stop,
        )
    except BaseException:
        leave_unproven(output, order.run, folders.checkpoints)
        raise
    if made is None:
        return
    records = {
        "lora": made.lora,
        "training_record": made.record,
        "evaluation": made.evaluation,
    }
    # The checkpoints stay: what the service deletes here it deletes in S3, and the model is not
    # uploaded yet. A lifecycle rule, or --clean, removes them once they are old.
    leave_results(made.saved.folder, records, folders.model, order.served, config)


def require_same_weights(order: JobOrder, found: dict[str, str]) -> None:
    """Check that this is the base model that the launcher described, before anything is trained.

    Raises:
        LaunchError: A weight file differs, is missing, or is one more.
    """
    differ = sorted(name for name, _ in order.weights.items() ^ found.items())
    if order.weights and differ:
        raise LaunchError(
            f"model.id: {', '.join(dict.fromkeys(differ))} of the base model are not those that the "
            "launcher saw; give sagemaker.base_model the same files, or pin model.revision"
        )


def read_placement(folders: JobFolders) -> Placement:
    """One rank for each GPU of each of the job's instances, as the service tells of them."""
    import torch

    path = folders.root / "input" / "config" / "resourceconfig.json"
    cluster = json.loads(path.read_text(encoding="utf-8"))
    hosts = sorted(cluster["hosts"])
    if len(hosts) > 1:
        variables = cluster_environment(
            cluster.get("current_instance_type", ""), cluster.get("network_interface_name", "eth0")
        )
        for name, value in variables.items():
            os.environ.setdefault(name, value)  # sagemaker.environment has the last word
        logger.info("between instances: %s", ", ".join(f"{k}={v}" for k, v in variables.items()))
    return Placement(
        ranks_per_host=max(1, torch.cuda.device_count()),
        hosts=tuple(hosts),
        host=hosts.index(cluster["current_host"]),
    )


def read_production(folders: JobFolders) -> ProductionAdapter | None:
    """The production version that came with the configuration, if one did."""
    from llm_engineering.training.production import ProductionAdapter

    folder = folders.channel(CONFIG) / PRODUCTION
    return ProductionAdapter.read(folder) if folder.is_dir() else None


def read_config(channel: Path) -> FinetuningConfig:
    """The configuration of a job's channel, with template and adapter that came beside it."""
    template, start = channel / CHAT_TEMPLATE_FILE, channel / START
    overrides = [f"model.chat_template={template}"] if template.is_file() else []
    overrides += [f"train.start_from={start}"] if start.is_dir() else []
    return load_config(channel / CONFIG_FILE, overrides)


def leave_results(
    saved: Path,
    records: dict[str, BaseModel],
    model: Path,
    served: ServedFrom,
    config: FinetuningConfig,
) -> None:
    """Put the run's output, its records and an inventory into the model folder, ready to be served.

    The digest of the inventory is the last line of the job's log: see ``anchor``.
    """
    from llm_engineering.sagemaker.anchor import anchor_line
    from llm_engineering.sagemaker.model_archive import write_inventory

    model.mkdir(parents=True, exist_ok=True)
    for path in sorted(saved.iterdir()):
        shutil.move(str(path), model / path.name)
    (model / RECORDS).mkdir()
    for name, record in records.items():
        text = record.model_dump_json(indent=1)
        (model / RECORDS / f"{name}.json").write_text(text, encoding="utf-8")
    arrange(model, served, config)
    logger.info("%s", anchor_line(write_inventory(model)))


def leave_unproven(output: Path, run: str, checkpoints: Path) -> None:
    """Put a run whose exports failed beside the checkpoints: a failed job's model folder is lost."""
    kept = unproven(output / run)
    if kept.is_dir():
        shutil.move(kept, checkpoints / kept.name)
        logger.error("the adapter is in the job's checkpoints in S3, in %s/", kept.name)


def read_secrets(order: JobOrder) -> None:
    """Read the named secrets from Secrets Manager into this process's environment.

    Raises:
        LaunchError: One cannot be read; names the secret, never its value.
    """
    if not order.secrets:
        return
    import boto3

    client = boto3.client("secretsmanager", region_name=order.region)
    for variable, named in order.secrets.items():
        name, key = split_secret(named)
        try:
            text = client.get_secret_value(SecretId=name)["SecretString"]
        except Exception as error:  # whatever the client raises
            raise LaunchError(
                f"sagemaker.secrets.{variable}: the job cannot read the secret {name} "
                f"({type(error).__name__}); allow secretsmanager:GetSecretValue on it to the "
                "job's role"
            ) from None
        os.environ[variable] = secret_value(text, name, key, variable)


def split_secret(named: str) -> tuple[str, str | None]:
    """Name (or ARN) of a secret, and the key of the JSON in it if one is named: ``name:key``."""
    parts = named.split(":")
    ends = 7 if parts[0] == "arn" else 1  # arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
    return ":".join(parts[:ends]), ":".join(parts[ends:]) or None


def secret_value(text: str, name: str, key: str | None, variable: str) -> str:
    """What of a secret's text an environment variable gets.

    Raises:
        LaunchError: The secret is JSON and no key is named, or it has no such key.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    is_json = isinstance(values, dict)
    if key is None and not is_json:
        return text
    if is_json and key in values:
        return str(values[key])
    where = f"sagemaker.secrets.{variable}"
    if not is_json:
        raise LaunchError(f"{where}: the secret {name} is plain text and has no key {key!r}")
    has = ", ".join(sorted(values))
    raise LaunchError(
        f"{where}: the secret {name} has the keys {has}; name one of them, for example "
        f"{name}:{next(iter(values), 'key')}"
    )


def write_failure(path: Path, error: BaseException) -> None:
    """Write the error, the most useful text first, since only the beginning is kept."""
    kind = "" if isinstance(error, FinetuningError) else f"{type(error).__name__}: "
    trace = "".join(traceback.format_exception(error))[-MAX_FAILURE_CHARACTERS:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{kind}{error}\n\n{trace}"[:MAX_FAILURE_CHARACTERS], encoding="utf-8")


if __name__ == "__main__":
    main()
