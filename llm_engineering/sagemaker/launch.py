"""Launching a training job: submit once, follow it, bring its results home."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.ended_from_outside import (
    LauncherEndedError,
    ending_leaves_the_job,
)
from llm_engineering.sagemaker.identity import JobIdentity, job_identity
from llm_engineering.sagemaker.image import TrainingImage, pin_image
from llm_engineering.sagemaker.launch_order import Launch, SubmittedJob
from llm_engineering.sagemaker.launcher import Launcher
from llm_engineering.sagemaker.model_package import register_package, require_group
from llm_engineering.sagemaker.submission import Submission, requirements
from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)


def train_in_job(
    launch: Launch,
    lora: LoraRecipe,
    dataset: PreparedDataset,
    *,
    run: str,
    folder: Path,
    on_submitted: Callable[[SubmittedJob], None] | None = None,
    production: ProductionAdapter | None = None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Train in a SageMaker job, as ``train`` does here.

    The job's name is a digest of all that decides the result: an equal job that runs or has
    completed is followed or fetched, not paid for again; after one that did not complete a new
    attempt goes on from its checkpoints (``job_states`` has all cases).

    Args:
        launch: Configuration and options.
        lora: The recipe that the launch described.
        dataset: The prepared data.
        run: Name of the run, for tags.
        folder: Receives the job's results.
        on_submitted: Called once a job exists, before it is waited for.
        production: Evaluated in the job too, since only that host may be able to.

    Raises:
        LaunchError: Nothing was submitted, or the job did not complete; says which and why.
        AwsUnavailableError: As that, where the same command may succeed later.
    """
    aws = Aws(launch.settings)
    image = pin_image(aws, launch.settings)
    if image.warning:
        logger.warning("%s", image.warning)
    identity = identity_at(launch, lora, dataset, image)
    package = launch.settings.model_package
    if package is not None:
        require_group(aws, package)
    with tempfile.TemporaryDirectory(prefix="job-") as temporary:
        submission = Submission(
            aws=aws,
            config=launch.config,
            settings=launch.settings,
            lora=lora,
            dataset=dataset,
            run=run,
            folder=Path(temporary),
            identity=identity,
            configuration=launch.configuration,
            image=image,
            production=production,
        )
        launcher = Launcher(aws, launch, identity, submission, on_submitted)
        with ending_leaves_the_job():
            try:
                job = launcher.attached() if launch.attach else launcher.completed()
                made = launcher.bring_home(job, lora, folder)
            except LauncherEndedError:
                logger.warning("this process is asked to end; %s", launcher.state)
                raise
    if package is not None:
        adapter, record = made
        if record.job is not None:
            record.job.model_package = register_package(aws, package, record.job, adapter, run)
    return made


def identity_at(
    launch: Launch, lora: LoraRecipe, dataset: PreparedDataset, image: TrainingImage
) -> JobIdentity:
    """The identity of what is launched, in that image."""
    return job_identity(
        launch.config,
        lora,
        dataset,
        code=launch.code,
        image=image.identity,
        lock=requirements(launch.settings),
    )
