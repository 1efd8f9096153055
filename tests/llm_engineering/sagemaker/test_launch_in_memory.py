"""What the launcher does and says, against a service of statuses: no container, no socket."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from functools import partial

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from botocore.exceptions import EndpointConnectionError, UnauthorizedSSOTokenError
from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker import follow as following
from llm_engineering.sagemaker import launch as launching
from llm_engineering.sagemaker import launcher as carrying_out
from llm_engineering.sagemaker.ended_from_outside import LauncherEndedError
from llm_engineering.sagemaker.follow import JobFailedError, NoCapacityError, ServiceFailedError
from llm_engineering.sagemaker.identity import JobIdentity
from llm_engineering.sagemaker.image import TrainingImage
from llm_engineering.sagemaker.launch import train_in_job
from llm_engineering.sagemaker.launch_order import Launch, name_of
from llm_engineering.sagemaker.submission import Submission

IDENTITY = JobIdentity({"data": "1", "settings": "2"})
COMMAND = ["python", "/a folder/run.py", "--config", "/my configs/job.yaml", "--set", "run.seed=1"]
POLL = 0.001
SPOT = {"enabled": True, "max_wait_seconds": 100_000}


def make_config(**sagemaker) -> FinetuningConfig:
    return FinetuningConfig.model_validate(
        {
            "model": {"id": "owner/name"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
                "role": "arn:aws:iam::123456789012:role/x",
                "bucket": "bucket",
                "region": "us-east-1",
                "max_run_seconds": 7200,
                "price_per_hour": {"ml.g5.2xlarge": 1.5, "ml.g6.2xlarge": 1.2},
                **sagemaker,
            },
        }
    )


class Prepared(Submission):
    """Without the uploads: only the request counts here."""

    def prepare(self):
        self._inputs = object()
        self.aws.service.calls["prepare"] += 1

    def _request(self, name, instance_types, chain):
        spot = self.settings.spot.enabled
        return {
            "TrainingJobName": name,
            "ResourceConfig": {
                "InstanceCount": 1,
                **(
                    {"InstanceType": instance_types[0]}
                    if len(instance_types) == 1
                    else {"InstancePreferences": [{"InstanceType": t} for t in instance_types]}
                ),
            },
            "CheckpointConfig": {"S3Uri": f"s3://bucket/checkpoints/{chain}"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 7200},
            "EnableManagedSpotTraining": spot,
        }


@pytest.fixture
def service(monkeypatch):
    """The service; every job completes at the third look unless a test has it otherwise."""
    service = MemoryService()
    looks = {}

    def complete(job):
        name = job["TrainingJobName"]
        looks[name] = looks.get(name, 0) + 1
        if looks[name] == 2 and job["TrainingJobStatus"] == "InProgress":
            service.train(name)
        elif looks[name] >= 4 and job["TrainingJobStatus"] == "InProgress":
            service.move(name, "Completed")

    service.on_describe = complete
    monkeypatch.setattr(launching, "Aws", lambda settings: MemoryAws(settings, service))
    monkeypatch.setattr(launching, "Submission", Prepared)
    monkeypatch.setattr(launching, "identity_at", lambda *args: IDENTITY)
    monkeypatch.setattr(launching, "pin_image", lambda aws, settings: TrainingImage("an/image"))
    monkeypatch.setattr(
        carrying_out, "types_with_quota", lambda aws, settings: (settings.instance_types, [])
    )
    monkeypatch.setattr(
        carrying_out, "fetch_results", lambda aws, job, *args, **kw: job["TrainingJobName"]
    )
    return service


def go(service, config=None, told=None, **options):
    config = config or make_config()
    launch = Launch(
        config=config,
        code="c",
        command=COMMAND,
        poll_seconds=POLL,
        **{"patience_seconds": 0.2, "capacity_pause_seconds": 0.0, **options},
    )
    tell = None if told is None else told.append
    return train_in_job(launch, None, None, run="run-1", folder=None, on_submitted=tell)


def name(number=1):
    return name_of(make_config(), IDENTITY.digest, number)


def fail(service, reason):
    def ends(job):
        if job["TrainingJobStatus"] == "InProgress":
            service.move(job["TrainingJobName"], "Failed", FailureReason=reason)

    service.on_describe = ends


# --- names -----------------------------------------------------------------------------------------


def test_a_name_holds_neither_the_runs_name_nor_a_folder():
    config = make_config()
    named = config.model_copy(update={"run": config.run.model_copy(update={"name": "mine"})})
    assert name_of(named, IDENTITY.digest) == name()
    here, there = (
        config.model_copy(update={"model": config.model.model_copy(update={"id": folder})})
        for folder in ("/home/me/llama", "./models/Llama-3")
    )
    assert name_of(here, IDENTITY.digest) == name_of(there, IDENTITY.digest)
    assert name() == f"finetuning-name-sft-{IDENTITY.digest[:12]}"
    assert name_of(make_config(job_prefix="team-a"), IDENTITY.digest).startswith("team-a-")


def test_all_attempts_names_begin_alike_however_long_they_are():
    config = make_config(job_prefix="x" * 20)
    long = config.model_copy(
        update={"model": config.model.model_copy(update={"id": f"owner/{'m' * 80}"})}
    )
    first = name_of(long, IDENTITY.digest)
    assert name_of(long, IDENTITY.digest, 12345) == f"{first}-12345"
    assert len(f"{first}-12345") <= 63


# --- one job at a time -----------------------------------------------------------------------------


def test_a_job_that_is_being_stopped_is_waited_for_and_gone_on_from(service, caplog):
    service.create_training_job(
        TrainingJobName=name(),
        ResourceConfig={"InstanceType": "ml.g5.2xlarge"},
        CheckpointConfig={"S3Uri": f"s3://bucket/checkpoints/{name()}"},
    )
    service.stop_training_job(TrainingJobName=name())
    looks, complete = [], service.on_describe

    def ends_late(job):
        if job["TrainingJobName"] != name():
            return complete(job)
        assert list(service.jobs) == [name()] or job["TrainingJobStatus"] == "Stopped", (
            "a second job was submitted while the first was stopping"
        )
        looks.append(job)
        if len(looks) == 5:
            service.move(name(), "Stopped")

    service.on_describe = ends_late
    with caplog.at_level("INFO"):
        assert go(service) == name(2)
    assert service.jobs[name(2)]["CheckpointConfig"]["S3Uri"].endswith(f"/{name()}")
    assert "waiting for its end" in caplog.text


def test_a_launcher_that_was_quicker_is_joined(service):
    """Between the look and the request, another process submits the same attempt."""
    real = service.create_training_job

    def create(**request):
        service.create_training_job = real
        real(**dict(request))
        return real(**request)

    service.create_training_job = create
    told = []
    assert go(service, told=told) == name()
    assert list(service.jobs) == [name()]
    assert told[-1].reattached


def test_it_looks_again_after_the_uploads(service, monkeypatch):
    """They take minutes, in which somebody may have launched, and even finished, the same."""

    def slow_upload(self):
        self._inputs = object()
        service.create_training_job(**Prepared._request(self, name(), ["ml.g5.2xlarge"], name()))
        service.move(name(), "Completed")

    monkeypatch.setattr(Prepared, "prepare", slow_upload)
    assert go(service) == name()
    assert list(service.jobs) == [name()]


def test_no_cache_begins_a_chain_of_its_own_and_goes_on_from_that(service):
    assert go(service) == name()
    service.on_describe = lambda job: None
    fail(service, "AlgorithmError: x")
    with pytest.raises(JobFailedError):
        go(service, fresh=True)
    with pytest.raises(JobFailedError):
        go(service, fresh=True)
    chains = [job["CheckpointConfig"]["S3Uri"].rpartition("/")[2] for job in service.jobs.values()]
    assert chains == [name(), name(2), name(2)]


def test_a_job_that_differs_by_what_others_change_is_spoken_of_before_money(service, caplog):
    other = JobIdentity({**IDENTITY.parts, "image": "ffff"})
    service.create_training_job(
        TrainingJobName=name_of(make_config(), other.digest),
        ResourceConfig={"InstanceType": "ml.g5.2xlarge"},
        AlgorithmSpecification={"TrainingImage": "an/image@sha256:0"},
        Tags=[{"Key": "identity", "Value": other.tag}],
    )
    service.train(name_of(make_config(), other.digest))
    service.move(name_of(make_config(), other.digest), "Stopped")
    assert go(service) == name()
    assert "is this training but for its image" in caplog.text


# --- capacity --------------------------------------------------------------------------------------


def test_without_capacity_the_types_are_gone_through_with_a_pause_between_rounds(
    service, monkeypatch, caplog
):
    fail(service, "CapacityError: none")
    pauses = []
    monkeypatch.setattr(carrying_out.time, "sleep", pauses.append)
    with pytest.raises(NoCapacityError, match=r"tried 3 time\(s\).*run the same command again"):
        go(service, make_config(capacity_retries=2, spot=SPOT), capacity_pause_seconds=60.0)
    types = [job["ResourceConfig"]["InstanceType"] for job in service.jobs.values()]
    assert types == ["ml.g5.2xlarge", "ml.g6.2xlarge"] * 3
    assert [p for p in pauses if p >= 1] == [60.0, 120.0]
    assert service.calls["prepare"] == 1, "the inputs were put into S3 once"
    assert "this job begins from the first step" not in caplog.text, "none of them began"


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_checkpoints_that_are_gone_are_told_before_a_job_goes_on_from_nothing(
    service, caplog, has_checkpoints
):
    complete = service.on_describe

    def stop(job):
        if job["TrainingJobName"] == name():
            service.move(name(), "Stopped")

    service.on_describe = stop
    with pytest.raises(LaunchError, match="was stopped"):
        go(service)
    assert "this job begins from the first step" not in caplog.text, "the first has none to lose"
    service.on_describe = complete
    if has_checkpoints:
        service.put(f"llm-engineering-finetuning/checkpoints/{name()}/checkpoint-2/x")
    assert go(service) == name(2)
    assert ("this job begins from the first step" in caplog.text) is not has_checkpoints


def test_fifteen_launches_without_capacity_are_followed_by_one_that_trains(service):
    complete = service.on_describe
    fail(service, "CapacityError: none")
    for _ in range(15):
        with pytest.raises(NoCapacityError):
            go(service, make_config(spot=SPOT))
    assert len(service.jobs) == 60
    service.on_describe = complete
    assert go(service) == name(61)


def test_on_demand_the_service_goes_through_the_types_itself(service):
    fail(service, "CapacityError: none")
    with pytest.raises(NoCapacityError):
        go(service, make_config(capacity_retries=1))
    assert len(service.jobs) == 2
    for job in service.jobs.values():
        types = [each["InstanceType"] for each in job["ResourceConfig"]["InstancePreferences"]]
        assert types == ["ml.g5.2xlarge", "ml.g6.2xlarge"]


def test_capacity_lost_by_a_job_that_was_joined_goes_on_to_the_next_type(service):
    service.create_training_job(
        TrainingJobName=name(), ResourceConfig={"InstanceType": "ml.g5.2xlarge"}
    )
    complete = service.on_describe

    def lose(job):
        if job["TrainingJobName"] != name():
            return complete(job)
        if job["TrainingJobStatus"] == "InProgress" and service.calls["describe_training_job"] > 3:
            service.move(name(), "Failed", FailureReason="CapacityError: none")

    service.on_describe = lose
    assert go(service, make_config(spot=SPOT)) == name(2)
    assert service.jobs[name(2)]["ResourceConfig"]["InstanceType"] == "ml.g6.2xlarge"


# --- what time may cure ----------------------------------------------------------------------------


def test_an_error_of_the_service_may_be_tried_again(service):
    from llm_engineering.scheduling.attempt import may_be_cured

    fail(service, "InternalServerError: We encountered an internal error. Please try again.")
    with pytest.raises(ServiceFailedError, match="by an error of the service") as error:
        go(service)
    assert may_be_cured(error.value.exit_code)
    assert not may_be_cured(JobFailedError.exit_code)
    assert may_be_cured(NoCapacityError.exit_code)
    assert may_be_cured(AwsUnavailableError.exit_code)


LOGIN = UnauthorizedSSOTokenError()
NETWORK = EndpointConnectionError(endpoint_url="https://api.sagemaker.us-east-1.amazonaws.com/")
TROUBLES = {
    "login": (LOGIN, "AWS credentials have expired: renew them"),
    "token": (client_error("ExpiredTokenException"), "AWS credentials have expired: renew them"),
    "network": (NETWORK, "AWS cannot be reached"),
    "service": (client_error("InternalFailure", status=500), "AWS answers with errors of its own"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("call", ["describe_training_job", "describe_log_streams"])
def test_following_outlives_trouble_and_says_so_once(service, caplog, trouble, call):
    error, sentence = TROUBLES[trouble]
    told = []

    def then_fails(job):
        told.append(job)
        service.failures[call] = [error] * 3

    launch = Launch(config=make_config(), code="c", command=COMMAND, poll_seconds=POLL)
    with caplog.at_level("INFO"):
        made = train_in_job(launch, None, None, run="r", folder=None, on_submitted=then_fails)
    assert made == name()
    assert caplog.text.count(sentence) == 1
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("trouble", TROUBLES)
def test_where_it_lasts_it_ends_in_one_sentence_that_works_as_typed(service, trouble):
    error, sentence = TROUBLES[trouble]

    def then_fails(job):
        service.always["describe_training_job"] = error

    launch = Launch(
        config=make_config(), code="c", command=COMMAND, poll_seconds=POLL, patience_seconds=0.02
    )
    with pytest.raises(AwsUnavailableError) as raised:
        train_in_job(launch, None, None, run="r", folder=None, on_submitted=then_fails)
    said = str(raised.value)
    assert said.startswith(sentence)
    assert f"job {name()} goes on, and costs at most 3.00 USD" in said
    attach, stop = (
        shlex.split(line.partition(":")[2]) for line in said.splitlines() if "/a folder/" in line
    )
    assert attach == [*COMMAND, "--finetune", "--target", "sagemaker", "--attach", name()]
    assert stop == [*COMMAND, "--stop", name()]


def test_an_unclear_answer_to_the_request_says_what_the_same_command_does(service):
    service.always["create_training_job"] = NETWORK
    with pytest.raises(AwsUnavailableError, match="it is not known whether it was submitted"):
        go(service)


def test_an_expired_login_before_anything_is_sent_does_not_blame_permissions(service, monkeypatch):
    monkeypatch.setattr("llm_engineering.sagemaker.attempts.LOOK_UP_PATIENCE_S", 0.0)
    service.always["list_training_jobs"] = client_error("ExpiredTokenException")
    with pytest.raises(AwsUnavailableError, match="credentials have expired") as error:
        go(service)
    assert "allow sagemaker" not in str(error.value)


def test_a_record_in_zenml_that_fails_does_not_lose_the_job(service, caplog):
    def no_server(job):
        raise OSError("connection refused")

    launch = Launch(config=make_config(), code="c", poll_seconds=POLL)
    assert train_in_job(launch, None, None, run="r", folder=None, on_submitted=no_server) == name()
    assert "could not be recorded" in caplog.text


# --- the end of the launcher -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_leaves_the_job_and_says_so(service, caplog, request, number):
    # Tests that run under nohup have a hangup ignored, which the launcher respects.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    before = signal.getsignal(number)
    launch = Launch(config=make_config(), code="c", command=COMMAND, poll_seconds=POLL)
    with pytest.raises(LauncherEndedError) as ended:
        train_in_job(
            launch, None, None, run="r", folder=None,
            on_submitted=lambda job: os.kill(os.getpid(), number),
        )  # fmt: skip
    assert ended.value.code == 128 + number
    assert service.jobs[name()]["TrainingJobStatus"] == "InProgress"
    assert service.calls["stop_training_job"] == 0
    assert f"job {name()} goes on, and costs at most 3.00 USD" in caplog.text
    assert f"--attach {name()}" in caplog.text
    assert signal.getsignal(number) == before


def test_under_nohup_a_hangup_ends_nothing(service):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    launch = Launch(config=make_config(), code="c", poll_seconds=POLL)

    def hang_up(job):
        os.kill(os.getpid(), signal.SIGHUP)

    try:
        made = train_in_job(launch, None, None, run="r", folder=None, on_submitted=hang_up)
    finally:
        signal.signal(signal.SIGHUP, former)
    assert made == name()


def test_a_signal_before_the_request_says_that_nothing_was_submitted(service, caplog, monkeypatch):
    monkeypatch.setattr(Prepared, "prepare", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(LauncherEndedError):
        go(service)
    assert "nothing was submitted" in caplog.text
    assert service.jobs == {}


def interrupt(service):
    def ctrl_c(job):
        raise KeyboardInterrupt

    launch = Launch(config=make_config(), code="c", command=COMMAND, poll_seconds=POLL)
    with pytest.raises(KeyboardInterrupt):
        train_in_job(launch, None, None, run="r", folder=None, on_submitted=ctrl_c)


def test_ctrl_c_stops_the_job_and_both_hints_work_as_typed(service, caplog):
    interrupt(service)
    assert service.jobs[name()]["TrainingJobStatus"] == "Stopping"
    attach, again = (
        shlex.split(line.partition(":")[2])
        for line in caplog.text.splitlines()
        if line.startswith("  ")
    )
    assert attach == [*COMMAND, "--finetune", "--target", "sagemaker", "--attach", name()]
    assert again == [*COMMAND, "--finetune", "--target", "sagemaker"]


def test_ctrl_c_that_cannot_stop_the_job_says_that_it_goes_on(service, caplog):
    service.always["stop_training_job"] = client_error("ExpiredTokenException")
    interrupt(service)
    assert "NOT stopped" in caplog.text
    assert f"job {name()} goes on, and costs at most" in caplog.text


def test_signals_are_left_alone_outside_the_main_thread(service):
    made = []
    thread = threading.Thread(target=lambda: made.append(go(service)))
    thread.start()
    thread.join(30)
    assert made == [name()]


# --- attaching -------------------------------------------------------------------------------------


def test_a_job_of_another_training_is_refused_and_the_difference_named(service):
    other = JobIdentity({"data": "another", "settings": "2"})
    theirs = name_of(make_config(), other.digest)
    service.create_training_job(
        TrainingJobName=theirs,
        ResourceConfig={"InstanceType": "ml.g5.2xlarge"},
        Tags=[{"Key": "identity", "Value": other.tag}],
    )
    with pytest.raises(LaunchError, match=r"trains something else .* \(data differ;"):
        go(service, attach=theirs)


def test_a_job_that_is_not_there_is_refused(service):
    with pytest.raises(LaunchError, match="--attach nowhere: there is no such job"):
        go(service, attach="nowhere")


def test_a_stopped_job_is_not_attached_to_but_gone_on_from(service):
    service.create_training_job(
        TrainingJobName=name(), ResourceConfig={"InstanceType": "ml.g5.2xlarge"}
    )
    service.move(name(), "Stopped")
    with pytest.raises(LaunchError, match="the same command goes on from its checkpoints"):
        go(service, attach=name())


# --- pending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spot", [None, SPOT])
def test_waiting_for_capacity_is_ended_by_the_service_alone(service, spot, monkeypatch):
    """By MaxPendingTimeInSeconds, and on spot by MaxWaitTimeInSeconds: never by this process."""
    clock = [0.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: clock[0])

    def wait(job):
        clock[0] += 3600
        if service.calls["describe_training_job"] > 60:
            service.move(job["TrainingJobName"], "Completed")
        elif job["TrainingJobStatus"] == "InProgress":
            service.move(job["TrainingJobName"], "InProgress", "Pending")

    service.on_describe = wait
    assert go(service, make_config(**({"spot": spot} if spot else {}))) == name()
    assert service.calls["stop_training_job"] == 0
