"""What is done with a training's jobs: state by state, and through random lives of the service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from botocore.exceptions import ClientError
from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.attempts import attempts_at, number_of, numbered
from llm_engineering.sagemaker.job_states import (
    Attempt,
    Ending,
    Fetch,
    Follow,
    Refuse,
    Submit,
    Wait,
    decide,
    decide_attached,
    ending_of,
    instance_of,
)

DIGEST = "0123456789ab"
FIRST = f"finetuning-{DIGEST}"
FRESH = numbered(FIRST, 2)
IN_A_STATE = {
    "running": ("InProgress", None),
    "stopping": ("Stopping", None),
    "completed": ("Completed", Ending.COMPLETED),
    "failed": ("Failed", Ending.FAILED),
    "no capacity": ("Failed", Ending.NO_CAPACITY),
    "broken": ("Failed", Ending.SERVICE_FAILED),
    "stopped": ("Stopped", Ending.STOPPED),
    "too long": ("Stopped", Ending.RAN_TOO_LONG),
    "deleting": ("Deleting", Ending.DELETED),
    "new to us": ("Hibernating", None),
}
UNFINISHED = ("failed", "no capacity", "broken", "stopped", "too long")


def jobs(*states: str, chains: tuple[str, ...] = ()) -> list[Attempt]:
    return [
        Attempt(numbered(FIRST, n), n, *IN_A_STATE[state], chain)
        for n, (state, chain) in enumerate(
            zip(states, (*chains, *[FIRST] * len(states)), strict=False), 1
        )
    ]


def decision(attempts, fresh=False):
    return decide(attempts, first_chain=FIRST, fresh=fresh)


@pytest.mark.parametrize("fresh", [False, True])
def test_without_a_job_the_first_is_submitted(fresh):
    assert decision([], fresh) == Submit(1, None if fresh else FIRST)


@pytest.mark.parametrize("before", [(), *[(state,) for state in (*UNFINISHED, "completed")]])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_live_one_is_never_joined_by_another(before, fresh):
    newest = numbered(FIRST, len(before) + 1)
    assert decision(jobs(*before, "running"), fresh) == Follow(newest)
    assert decision(jobs(*before, "stopping"), fresh) == Wait(newest)
    assert isinstance(decision(jobs(*before, "new to us"), fresh), Refuse)
    # whatever came after it
    assert decision(jobs(*before, "stopping", "failed"), fresh) == Wait(newest)
    assert decision(jobs(*before, "running", "completed"), fresh) == Follow(newest)


@pytest.mark.parametrize("state", UNFINISHED)
def test_what_did_not_complete_is_gone_on_from(state):
    assert decision(jobs(state)) == Submit(2, FIRST)
    assert decision(jobs("failed", "stopped", state)) == Submit(4, FIRST)
    # one that was to train anew goes on from its own
    assert decision(jobs("completed", state, chains=(FIRST, FRESH)), fresh=True) == Submit(3, FRESH)
    assert decision(jobs("stopped", state, chains=(FIRST, FRESH))) == Submit(3, FRESH)


def test_what_has_completed_is_fetched_and_not_paid_again():
    assert decision(jobs("completed")) == Fetch(FIRST)
    assert decision(jobs("failed", "completed")) == Fetch(numbered(FIRST, 2))
    assert decision(jobs("completed", "stopped", chains=(FIRST, FRESH))) == Fetch(FIRST)
    assert decision(jobs("completed", "completed")) == Fetch(numbered(FIRST, 2)), "the newest"


def test_training_anew_begins_a_chain_of_its_own():
    assert decision(jobs("completed"), fresh=True) == Submit(2, None)
    assert decision(jobs("stopped"), fresh=True) == Submit(2, None)


def test_a_deleted_record_is_passed_over_and_its_number_too():
    assert decision(jobs("deleting")) == Submit(2, FIRST)
    assert decision(jobs("stopped", "deleting")) == Submit(3, FIRST)


def test_capacity_and_the_services_errors_never_lock_a_training_out():
    for state in ("no capacity", "broken", "stopped", "too long"):
        assert decision(jobs(*[state] * 200)) == Submit(201, FIRST)


def test_twenty_failures_of_its_own_are_looked_into_and_do_not_lock_out_either():
    assert decision(jobs(*["failed"] * 19)) == Submit(20, FIRST)
    refused = decision(jobs(*["failed"] * 20))
    assert isinstance(refused, Refuse)
    assert "20 jobs of this training have failed" in refused.reason
    assert "--no-cache" in refused.reason
    assert decision(jobs(*["failed"] * 20), fresh=True) == Submit(21, None)
    fresh = jobs("completed", *["failed"] * 20, chains=(FIRST, *[FRESH] * 20))
    assert decision(fresh, fresh=True) == Submit(22, None)


@pytest.mark.parametrize("state", IN_A_STATE)
def test_attaching_never_submits(state):
    (attempt,) = jobs(state)
    expected = {"running": Follow(FIRST), "stopping": Follow(FIRST), "completed": Fetch(FIRST)}
    got = decide_attached(attempt, FIRST)
    assert got == expected[state] if state in expected else isinstance(got, Refuse)


def test_attaching_to_nothing():
    refused = decide_attached(None, "j")
    assert isinstance(refused, Refuse)
    assert refused.reason == "--attach j: there is no such job"


NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.mark.parametrize(
    ("job", "ending"),
    [
        ({"TrainingJobStatus": "InProgress"}, None),
        ({"TrainingJobStatus": "Stopping"}, None),
        ({"TrainingJobStatus": "Hibernating"}, None),
        ({"TrainingJobStatus": "Completed"}, Ending.COMPLETED),
        ({"TrainingJobStatus": "Deleting"}, Ending.DELETED),
        ({"TrainingJobStatus": "Failed"}, Ending.FAILED),
        ({"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: x"}, Ending.FAILED),
        ({"TrainingJobStatus": "Failed", "FailureReason": "ClientError: x"}, Ending.FAILED),
        ({"TrainingJobStatus": "Failed", "FailureReason": "CapacityError: x"}, Ending.NO_CAPACITY),
        (
            {"TrainingJobStatus": "Failed", "FailureReason": "InternalServerError: We encountered"},
            Ending.SERVICE_FAILED,
        ),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, Ending.STOPPED),
        (
            {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"},
            Ending.RAN_TOO_LONG,
        ),
        (
            {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded"},
            Ending.WAITED_TOO_LONG,
        ),
    ],
)
def test_how_a_job_ended(job, ending):
    assert ending_of(job) is ending


@pytest.mark.parametrize(
    ("seconds", "started", "ending"),
    [
        (7300, False, Ending.WAITED_TOO_LONG),
        (60, False, Ending.STOPPED),
        (7300, True, Ending.STOPPED),
    ],
)
def test_the_services_own_end_of_waiting_is_told_from_a_stop(seconds, started, ending):
    job = {
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "Stopped",
        "StoppingCondition": {"MaxPendingTimeInSeconds": 7200},
        "CreationTime": NOW,
        "TrainingEndTime": NOW + timedelta(seconds=seconds),
        **({"TrainingStartTime": NOW} if started else {}),
    }
    assert ending_of(job) is ending


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"InstanceType": "ml.g5.2xlarge"}, "ml.g5.2xlarge"),
        ({"InstancePreferences": [{"InstanceType": "a"}, {"InstanceType": "b"}]}, "a, b"),
        (
            {"InstancePreferences": [{"InstanceType": "a"}], "SelectedInstanceType": "a"},
            "a",
        ),
    ],
)
def test_the_instance_type_is_the_one_it_got(resources, expected):
    assert instance_of({"ResourceConfig": resources}) == expected


@pytest.mark.parametrize("number", [1, 2, 40])
def test_numbers_are_read_back_from_names(number):
    assert number_of(numbered(FIRST, number), DIGEST) == number


# --- random lives ----------------------------------------------------------------------------------

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
)


class Lives(RuleBasedStateMachine):
    """Launchers that look and act at different times, users who stop, a service that fails.

    ``saved`` is what S3 holds of each chain, in steps. A launcher's look and its act are two rules:
    anything may happen between them, but for the removal of a job's record.
    """

    @initialize()
    def begin(self):
        self.service = MemoryService()
        self.aws = MemoryAws(SETTINGS, self.service)
        self.decided = {}
        self.saved = {}
        self.trained = {}

    @staticmethod
    def chain(job):
        return job["CheckpointConfig"]["S3Uri"].rpartition("/")[2]

    @rule(fresh=st.booleans())
    def launch(self, fresh):
        """A launcher that is quick: nothing happens between its look and its act."""
        self.submit(*self.looked(fresh))

    @rule(launcher=st.sampled_from("ab"), fresh=st.booleans())
    def look(self, launcher, fresh):
        """Also after a kill: what was decided before is forgotten."""
        self.decided[launcher] = self.looked(fresh)

    @precondition(lambda self: self.decided)
    @rule(data=st.data())
    def act(self, data):
        launcher = data.draw(st.sampled_from(sorted(self.decided)))
        self.submit(*self.decided.pop(launcher))

    def looked(self, fresh):
        attempts = attempts_at(self.aws, FIRST, DIGEST)
        return decide(attempts, first_chain=FIRST, fresh=fresh), fresh

    def submit(self, decided, fresh):
        if not isinstance(decided, Submit):
            return
        name = numbered(FIRST, decided.number)
        chain = decided.chain or name
        before = sorted(self.service.jobs.values(), key=self.number)
        try:
            self.service.create_training_job(
                TrainingJobName=name,
                CheckpointConfig={"S3Uri": f"s3://bucket/checkpoints/{chain}"},
            )
        except ClientError:
            assert name in self.service.jobs, "another launcher has submitted it"
            return
        self.trained[name] = self.saved.get(chain, 0)
        if not fresh:
            endings = [ending_of(job) for job in before]
            assert Ending.COMPLETED not in endings, "what has completed was paid for again"
        unfinished = before and ending_of(before[-1]) is not Ending.COMPLETED
        if unfinished and (not fresh or self.chain(before[-1]) != FIRST):
            saved = self.saved.get(self.chain(before[-1]), 0)
            assert self.trained[name] == saved, "a checkpoint was lost"

    @staticmethod
    def number(job):
        return number_of(job["TrainingJobName"], DIGEST)

    @precondition(lambda self: self.service.live())
    @rule()
    def stop(self):
        self.service.stop_training_job(TrainingJobName=self.service.live()[0]["TrainingJobName"])

    @precondition(lambda self: self.service.live())
    @rule(
        steps=st.integers(0, 9),
        saves=st.booleans(),
        how=st.sampled_from(
            ["goes on", "completes", "stops", "ran too long", "AlgorithmError", "CapacityError",
             "InternalServerError"]
        ),
    )  # fmt: skip
    def time_passes(self, steps, saves, how):
        job = self.service.live()[0]
        name = job["TrainingJobName"]
        self.trained[name] += steps
        if saves or job["TrainingJobStatus"] == "Stopping":
            self.saved[self.chain(job)] = self.trained[name]
        if how == "completes":
            self.service.move(name, "Completed")
            self.saved.pop(self.chain(job), None)
        elif how == "stops":
            self.service.move(name, "Stopped")
        elif how == "ran too long":
            self.service.move(name, "Stopped", "MaxRuntimeExceeded")
        elif how != "goes on":
            self.service.move(name, "Failed", FailureReason=f"{how}: so it is")

    @rule(listing=st.sampled_from(["permitted", "denied", "late"]))
    def listing_changes(self, listing):
        self.service.always.pop("list_training_jobs", None)
        if listing == "denied":
            self.service.always["list_training_jobs"] = client_error("AccessDeniedException")
        newest = list(self.service.jobs)[-1:]
        self.service.hidden_from_list = set(newest) if listing == "late" else set()

    @precondition(lambda self: not self.decided)
    @rule(data=st.data())
    def a_record_is_deleted(self, data):
        """Of an ended job, and not the newest: with it its chain and its completion are forgotten."""
        ended = [
            job["TrainingJobName"]
            for job in list(self.service.jobs.values())[:-1]
            if ending_of(job) not in (None, Ending.COMPLETED)
        ]
        if ended:
            del self.service.jobs[data.draw(st.sampled_from(ended))]

    @invariant()
    def never_two_alive(self):
        if hasattr(self, "service"):
            live = [job["TrainingJobName"] for job in self.service.live()]
            assert len(live) <= 1, f"{live} train at once"


def test_no_life_of_the_service_doubles_a_job_or_loses_a_checkpoint():
    run_state_machine_as_test(
        Lives,
        settings=hypothesis_settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            # Making a failing life shorter takes minutes: add Phase.shrink to read one.
            phases=(Phase.generate,),
        ),
    )
