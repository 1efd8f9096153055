"""Launching a training job: submit once, follow it, bring its results home."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.model.base_model import is_hub_model
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.sagemaker import follow as following
from llm_engineering.sagemaker.attempts import as_attempt, attempts_at, describe, numbered
from llm_engineering.sagemaker.aws import Aws, error_code, passing_trouble
from llm_engineering.sagemaker.checks import types_with_quota
from llm_engineering.sagemaker.cost import ceiling_text
from llm_engineering.sagemaker.follow import NoCapacityError, Pace, follow, wait_for_end
from llm_engineering.sagemaker.identity import (
    SHOWN,
    TAG,
    JobIdentity,
    job_identity,
)
from llm_engineering.sagemaker.image import TrainingImage, pin_image
from llm_engineering.sagemaker.job_states import (
    Decision,
    Fetch,
    Follow,
    Refuse,
    Submit,
    Wait,
    decide,
    decide_attached,
    instance_of,
)
from llm_engineering.sagemaker.near_jobs import near_jobs
from llm_engineering.sagemaker.request import job_name
from llm_engineering.sagemaker.results import console_link, fetch_results
from llm_engineering.sagemaker.submission import NameTakenError, Submission, requirements
from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

_HIGHEST_ATTEMPT = 99_999
"""So many digits a name leaves room for."""
_LONGEST_CAPACITY_PAUSE_S = 900.0


class Launch(BaseModel):
    """What a remote train step needs beside what a local one does."""

    config: FinetuningConfig
    code: str = Field(description="Digest of the source that computes, part of the job's identity.")
    configuration: str = Field("", description="Digest of the configuration, a tag of the job.")
    command: list[str] = Field(
        [], description="The command line up to its flags, for what is to be typed next."
    )
    attach: str | None = Field(None, description="Follow this job instead of submitting one.")
    detach: bool = Field(False, description="On Ctrl-C, leave the job running.")
    fresh: bool = Field(False, description="Train again even if an equal job has completed.")
    poll_seconds: float = Field(5.0, gt=0, description="Between two looks at the job.")
    patience_seconds: float = Field(
        3600.0, gt=0, description="How long an expired login or a lost network is borne."
    )
    capacity_pause_seconds: float = Field(
        60.0, ge=0, description="Before the second round of instance types; doubled after each."
    )

    @property
    def settings(self) -> SagemakerSettings:
        """The configuration's ``sagemaker`` section."""
        return sagemaker_settings(self.config)

    @property
    def pace(self) -> Pace:
        """How often AWS is asked, and how long failures are borne."""
        return Pace(poll_s=self.poll_seconds, patience_s=self.patience_seconds)

    def typed(self, *flags: str) -> str:
        """A command line that does what ``flags`` say with this configuration."""
        return shlex.join([*(self.command or ["tools/run.py"]), *flags])

    @property
    def again(self) -> str:
        """The same command again."""
        fresh = ["--no-cache"] if self.fresh else []
        return self.typed("--finetune", "--target", "sagemaker", *fresh)


def sagemaker_settings(config: FinetuningConfig) -> SagemakerSettings:
    """The configuration's ``sagemaker`` section.

    Raises:
        LaunchError: There is none.
    """
    if config.sagemaker is None:
        raise LaunchError(
            "sagemaker: the configuration has no such section; --target sagemaker needs "
            "instance_types, role and bucket (docs/sagemaker/README.md)"
        )
    return config.sagemaker


class SubmittedJob(BaseModel):
    """A job that exists, told before anything is waited for."""

    name: str
    arn: str
    console: str
    instance_type: str
    reattached: bool


class LauncherEndedError(SystemExit):
    """The launching process was asked to end from outside; its job goes on."""


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
        lora: The recipe that the launch described on the meta device.
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
        launcher = _Launcher(aws, launch, identity, submission, on_submitted)
        with _ending_leaves_the_job():
            try:
                job = launcher.attached() if launch.attach else launcher.completed()
                return launcher.bring_home(job, lora, folder)
            except LauncherEndedError:
                logger.warning("this process is asked to end; %s", launcher.state)
                raise


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


def name_of(config: FinetuningConfig, digest: str, attempt: int = 1) -> str:
    """The name of a training's job: the same for everybody who trains it.

    The run's name and folders are not in it, so that two launchers cannot submit it under two.
    """
    prefix = sagemaker_settings(config).job_prefix
    model = Path(config.model.id).name if is_hub_model(config.model) else ""
    # Cut as the longest name must be, so that all attempts' names begin alike.
    longest = job_name(f"{prefix}-{model}", config.train.objective, digest, _HIGHEST_ATTEMPT)
    return numbered(longest.removesuffix(f"-{_HIGHEST_ATTEMPT}"), attempt)


@dataclass
class _Launcher:
    """Carries out what ``job_states`` decides, until a job has completed."""

    aws: Aws
    launch: Launch
    identity: JobIdentity
    submission: Submission
    on_submitted: Callable[[SubmittedJob], None] | None
    state: str = "nothing was submitted"
    """What becomes of the job if this process ends now."""

    def attached(self) -> dict[str, Any]:
        """The description of the job of ``--attach``, once it has completed."""
        name = self.launch.attach or ""
        job = describe(self.aws, name)
        if job is not None:
            self._require_same_training(job)
        attempt = None if job is None else as_attempt(job, self._shown)
        match decide_attached(attempt, name):
            case Refuse(reason):
                raise LaunchError(reason)
            case Follow():
                return self._follow(name, reattached=True)
            case _:
                return self._known(name, reattached=True)

    def completed(self) -> dict[str, Any]:
        """The description of a completed job of this training, found or submitted and followed."""
        settings = self.launch.settings
        rounds = 1 + settings.capacity_retries
        # On demand the service itself goes down the list; on spot it does not, so it is done here.
        types = settings.instance_types
        choices = [[each] for each in types] if settings.spot.enabled else [types]
        lost = 0
        while True:
            try:
                match self._decision():
                    case Refuse(reason):
                        raise LaunchError(reason)
                    case Wait(name):
                        self._wait(name)
                    case Fetch(name):
                        return self._known(name, reattached=True)
                    case Follow(name):
                        return self._follow(name, reattached=True)
                    case Submit(number) if not self.submission.is_prepared:
                        if number == 1:
                            for near in near_jobs(self.aws, settings, self.identity):
                                logger.warning("%s", near)
                        types = self._types_with_quota()
                        choices = [[each] for each in types] if settings.spot.enabled else [types]
                        self.submission.prepare()  # takes its time: then look again
                    case Submit(number, chain):
                        name = name_of(self.launch.config, self.identity.digest, number)
                        return self._submit(name, choices[lost % len(choices)], chain or name)
            except NameTakenError as taken:
                logger.info("%s: another launcher was quicker", taken)
            except NoCapacityError as error:
                lost += 1
                if lost == len(choices) * rounds:
                    raise NoCapacityError(
                        f"no capacity for any of {', '.join(types)} in {self.aws.region}, tried "
                        f"{rounds} time(s) (sagemaker.capacity_retries); nothing was paid: run the "
                        "same command again later, or add other types or another region"
                    ) from error
                logger.warning("%s", error)
                if lost % len(choices) == 0:
                    self._pause(lost // len(choices))

    def bring_home(
        self, job: dict[str, Any], lora: LoraRecipe, folder: Path
    ) -> tuple[AdapterFolder, TrainingRecord]:
        """Fetch what a completed job made."""
        self.state = (
            f"job {job['TrainingJobName']} has completed, and nothing more is paid\n"
            f"  fetch its results:  {self.launch.again}"
        )
        try:
            return fetch_results(
                self.aws, job, lora, self.launch.settings, folder, pace=self.launch.pace
            )
        except AwsUnavailableError as error:
            raise AwsUnavailableError(
                f"the results cannot be fetched now: {error}; {self.state}"
            ) from None

    def _decision(self) -> Decision:
        first = name_of(self.launch.config, self.identity.digest)
        attempts = attempts_at(self.aws, first, self._shown)
        return decide(attempts, first_chain=first, fresh=self.launch.fresh)

    @property
    def _shown(self) -> str:
        return self.identity.digest[:SHOWN]

    def _wait(self, name: str) -> None:
        try:
            wait_for_end(self.aws, name, show=_show, pace=self.launch.pace)
        except AwsUnavailableError as error:
            raise AwsUnavailableError(
                f"job {name} is being stopped, and cannot be watched: {error}; nothing was "
                f"submitted\n  go on:  {self.launch.again}"
            ) from None

    def _pause(self, rounds: int) -> None:
        pause_s = min(
            self.launch.capacity_pause_seconds * 2 ** (rounds - 1), _LONGEST_CAPACITY_PAUSE_S
        )
        logger.info("no capacity: the next round begins in %.0f s", pause_s)
        time.sleep(pause_s)

    def _types_with_quota(self) -> list[str]:
        """The configured types but those that the account has no quota for, where it can be seen."""
        try:
            return types_with_quota(self.aws, self.launch.settings)[0]
        except LaunchError:
            raise
        except Exception as error:  # only spares a refusal; check_account has told of it
            logger.debug("quotas: %s", error)
            return self.launch.settings.instance_types

    def _submit(self, name: str, instance_types: list[str], chain: str) -> dict[str, Any]:
        self.state = self._goes_on(name)
        try:
            self.submission.submit(name, instance_types, chain)
        except KeyboardInterrupt:  # it may have been created in that moment
            self._interrupted(name)
            raise
        return self._follow(name, reattached=False)

    def _known(self, name: str, *, reattached: bool) -> dict[str, Any]:
        job = describe(self.aws, name)
        if job is None:
            raise LaunchError(f"job {name} is not there any more: {self.launch.again} looks again")
        submitted = SubmittedJob(
            name=name,
            arn=job["TrainingJobArn"],
            console=console_link(name, self.aws.region),
            instance_type=instance_of(job),
            reattached=reattached,
        )
        what = "following" if reattached else "submitted"
        logger.info("%s job %s\n%s", what, name, submitted.console)
        if self.on_submitted is not None:
            try:
                self.on_submitted(submitted)
            except Exception as error:  # the job is paid for: what is told of it can wait
                logger.warning("job %s could not be recorded: %s", name, error)
        return job

    def _follow(self, name: str, *, reattached: bool) -> dict[str, Any]:
        """Tell of a job, and follow it to its end."""
        self.state = self._goes_on(name)
        try:
            self._known(name, reattached=reattached)
            return follow(self.aws, name, show=_show, pace=self.launch.pace)
        except KeyboardInterrupt:
            self._interrupted(name)
            raise
        except (NoCapacityError, following.ServiceFailedError, following.JobWaitedTooLongError):
            self.state = "nothing is running"
            raise
        except AwsUnavailableError as error:
            raise AwsUnavailableError(f"{error}. {self.state}") from None
        except LaunchError:
            raise
        except Exception as error:
            if getattr(error, "response", None) is None:
                raise
            raise LaunchError(
                f"job {name} can be followed no more: {error}. {self.state}"
            ) from None

    def _interrupted(self, name: str) -> None:
        """On Ctrl-C: stop the job, or say that it goes on, and how to go on with it."""
        if self.launch.detach:
            logger.warning("%s", self._goes_on(name))
            return
        try:
            following.stop(self.aws, name)
        except Exception as error:
            trouble = passing_trouble(error) or str(error)
            logger.error(
                "NOT stopped (%s: %s); %s", error_code(error), trouble, self._goes_on(name)
            )
            return
        logger.warning(
            "stopping: job %s; its checkpoints are kept\n"
            "  watch it end:                %s\n"
            "  go on from its checkpoints:  %s",
            name,
            self._attach(name),
            self.launch.again,
        )

    def _goes_on(self, name: str) -> str:
        """That a job goes on, what it costs at most, and what can be done about it."""
        return (
            f"job {name} goes on, and costs at most {ceiling_text(self.launch.settings)}\n"
            f"  follow it again:  {self._attach(name)}\n"
            f"  stop it:          {self.launch.typed('--stop', name)}"
        )

    def _attach(self, name: str) -> str:
        return self.launch.typed("--finetune", "--target", "sagemaker", "--attach", name)

    def _require_same_training(self, job: dict[str, Any]) -> None:
        name = job["TrainingJobName"]
        if self.identity.is_of(name):
            return
        differ = self.identity.differences(_tags(self.aws, job).get(TAG, ""))
        raise LaunchError(
            f"--attach {name}: that job trains something else than this configuration and data "
            f"({' and '.join(differ)} differ; its name would hold {self._shown}); use the "
            "configuration it was launched with"
        )


def _tags(aws: Aws, job: dict[str, Any]) -> dict[str, str]:
    try:
        tags = aws.client("sagemaker").list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    except Exception as error:  # only makes a message more precise
        logger.debug("no tags of %s: %s", job["TrainingJobName"], error)
        return {}
    return {tag["Key"]: tag["Value"] for tag in tags}


def _show(line: str) -> None:
    logger.info("%s", line)


@contextmanager
def _ending_leaves_the_job() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end this process in words: the job goes on.

    Only Ctrl-C stops a job: a host that shuts down, or a closed terminal, says nothing of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise LauncherEndedError(128 + number)

    former = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup wants it
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def redacted(request: dict[str, Any]) -> str:
    """A request as text, without the values of environment variables."""
    shown = json.loads(json.dumps(request, default=str))
    shown["Environment"] = dict.fromkeys(shown.get("Environment", {}), "...")
    return json.dumps(shown, indent=2)
