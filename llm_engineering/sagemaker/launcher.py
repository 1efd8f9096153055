"""Carrying out what ``job_states`` decides: submit, follow, wait, fetch; and what is said of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.sagemaker import follow as following
from llm_engineering.sagemaker.attempts import as_attempt, attempts_at, describe
from llm_engineering.sagemaker.aws import Aws, error_code, passing_trouble
from llm_engineering.sagemaker.checks import types_with_quota
from llm_engineering.sagemaker.cost import ceiling_text
from llm_engineering.sagemaker.follow import NoCapacityError, follow, wait_for_end
from llm_engineering.sagemaker.identity import SHOWN, TAG, JobIdentity
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
from llm_engineering.sagemaker.launch_order import Launch, SubmittedJob, name_of
from llm_engineering.sagemaker.near_jobs import near_jobs
from llm_engineering.sagemaker.results import console_link, fetch_results
from llm_engineering.sagemaker.submission import NameTakenError, Submission

logger = logging.getLogger(__name__)

_LONGEST_CAPACITY_PAUSE_S = 900.0


@dataclass
class Launcher:
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
                        # The first job of a training has none to lose; one telling a launch is enough.
                        if chain is not None and number > 1 and lost == 0:
                            self._tell_lost_checkpoints(chain)
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

    def _tell_lost_checkpoints(self, chain: str) -> None:
        """Say so where there is nothing to go on from: a lifecycle rule removes old checkpoints."""
        settings = self.launch.settings
        prefix = f"{settings.prefix}/checkpoints/{chain}/"
        try:
            pages = self.aws.client("s3").get_paginator("list_objects_v2")
            found = any(
                page.get("Contents")
                for page in pages.paginate(Bucket=settings.bucket, Prefix=prefix)
            )
        except Exception as error:  # it only tells more
            logger.debug("checkpoints: %s", error)
            return
        if not found:
            logger.warning(
                "no checkpoint is in s3://%s/%s: an earlier job saved none, or they were removed (by "
                "--clean, or a lifecycle rule); this job begins from the first step",
                settings.bucket,
                prefix,
            )

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
