"""An endpoint's life: made once, moved without a pause, removed whole; every end says what it costs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.endpoints import Endpoints, MemoryEndpoints
from sagemaker_service.memory import client_error

from llm_engineering.configuration.sagemaker import EndpointSettings, SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.endpoint import Costs, deploy, undeploy
from llm_engineering.sagemaker.endpoint_request import build_deployment
from llm_engineering.sagemaker.follow import Pace

NAME = "finetuning-helper"
COSTS = Costs(1.5, "run.py --undeploy finetuning-helper")
COSTING = r"costs 1\.50 USD an hour until it is removed: run\.py --undeploy finetuning-helper"
QUICK = Pace(poll_s=0.0, patience_s=0.0)
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="finetuning-jobs",
    region="us-east-1",
    endpoint=EndpointSettings(
        instance_type="ml.g5.2xlarge",
        image="763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:lmi",
    ),
)


class World:
    """An account in memory, whose bucket holds what was uploaded."""

    def __init__(self) -> None:
        self.uploaded: dict[str, list[str]] = {}
        self.lacks: list[str] = []
        self.service = Endpoints(
            keys=lambda uri: self.uploaded.get(uri, []), no_capacity=lambda: self.lacks
        )
        self.client = MemoryEndpoints(self.service)
        world = self

        class InMemory(Aws):
            def client(self, service: str) -> Any:
                return world.client

            def renew(self) -> None:
                pass

        self.aws = InMemory(SETTINGS)

    def deploy(self, version: str = "ab" * 32, files: tuple[str, ...] = ("serving.properties",)):
        wanted = build_deployment(SETTINGS, NAME, version, {"run": "one"})

        def upload() -> None:
            source = wanted.model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
            self.uploaded[source["S3Uri"]] = [source["S3Uri"] + file for file in files]

        return deploy(self.aws, wanted, COSTS, upload, QUICK)

    @property
    def endpoint(self) -> dict[str, Any]:
        return self.service.endpoints[NAME]


@pytest.fixture
def world() -> World:
    return World()


def test_an_endpoint_is_made_once(world: World) -> None:
    assert world.deploy()
    assert world.endpoint["EndpointStatus"] == "InService"
    assert not world.deploy()
    assert world.client.calls.count("CreateEndpoint") == 1
    (model,) = world.service.models.values()
    assert model["ExecutionRoleArn"] == SETTINGS.role
    assert {"Key": "run", "Value": "one"} in model["Tags"]


def test_another_version_takes_over_and_the_former_parts_go(world: World) -> None:
    world.deploy()
    former = world.endpoint["EndpointConfigName"]

    assert world.deploy("cd" * 32)

    assert world.endpoint["EndpointConfigName"] != former
    assert world.client.calls.count("CreateEndpoint") == 1
    assert former not in world.service.configs
    assert len(world.service.models) == 1


def test_an_update_that_fails_goes_back_and_says_what_runs(world: World) -> None:
    world.deploy()
    former = world.endpoint["EndpointConfigName"]
    with pytest.raises(LaunchError, match=rf"went back to {former}.*ping health.*{COSTING}"):
        world.deploy("cd" * 32, files=("config.json",))
    assert world.endpoint["EndpointConfigName"] == former
    assert list(world.service.configs) == [former]  # what failed is gone


def test_an_endpoint_that_fails_serves_nothing_and_is_removed_by_the_command_told(
    world: World,
) -> None:
    with pytest.raises(LaunchError, match=r"is Failed: .*ping.*remove it .*--undeploy finetuning"):
        world.deploy(files=("config.json",))
    with pytest.raises(LaunchError, match=r"is Failed \(.*does not update: remove it first"):
        world.deploy("cd" * 32)
    assert undeploy(world.aws, NAME, COSTS, QUICK)
    assert world.deploy("cd" * 32)


def test_no_capacity_may_pass(world: World) -> None:
    world.lacks = ["ml.g5.2xlarge"]
    with pytest.raises(AwsUnavailableError, match=r"InsufficientInstanceCapacity.*serves nothing"):
        world.deploy()


def test_undeploy_removes_all_three_and_says_whether_there_was_one(world: World) -> None:
    assert not undeploy(world.aws, NAME, COSTS, QUICK)
    world.deploy()
    assert undeploy(world.aws, NAME, COSTS, QUICK)
    assert not world.service.endpoints
    assert not world.service.configs
    assert not world.service.models


def test_an_endpoint_being_created_is_removed_once_aws_allows_it(world: World) -> None:
    world.service.looks = 3
    world.deploy()
    world.endpoint["EndpointStatus"] = "Updating"
    assert undeploy(world.aws, NAME, COSTS, QUICK)
    assert not world.service.endpoints


def test_an_endpoint_of_others_is_left_alone(world: World) -> None:
    world.deploy()
    world.service.tags[world.endpoint["EndpointArn"]] = {}
    for act in (
        lambda: world.deploy("cd" * 32),
        lambda: undeploy(world.aws, NAME, COSTS, QUICK),
    ):
        with pytest.raises(LaunchError, match=r"was not made by this project .*left as it is"):
            act()
    assert world.endpoint["EndpointStatus"] == "InService"


def test_one_that_is_moving_elsewhere_is_not_touched(world: World) -> None:
    world.deploy()
    world.endpoint["EndpointStatus"] = "SystemUpdating"
    world.service.looks = world.service._left[NAME] = 99
    with pytest.raises(LaunchError, match=rf"is SystemUpdating.*again later. It {COSTING}"):
        world.deploy("cd" * 32)


@pytest.mark.parametrize(
    ("operation", "error", "kind", "told"),
    [
        ("CreateModel", client_error("AccessDeniedException"), LaunchError,
         "allow sagemaker:CreateModel .DeployEndpoints in docs.*; nothing runs"),
        ("CreateEndpoint", client_error("ResourceLimitExceeded", "limit 0"), LaunchError,
         "limit 0; ask for more .*for endpoint usage.*; nothing runs"),
        ("CreateEndpoint", client_error("ExpiredTokenException"), AwsUnavailableError,
         "have expired: renew them .*; nothing runs"),
        ("DescribeEndpoint", client_error("AccessDeniedException"), LaunchError,
         f"nothing was sent; if finetuning-helper runs already, it {COSTING}"),
    ],
)  # fmt: skip
def test_what_aws_refuses_says_that_nothing_runs(
    operation: str, error: Exception, kind: type[Exception], told: str, world: World
) -> None:
    world.client.failures[operation] = [error]
    with pytest.raises(kind, match=told):
        world.deploy()
    assert not world.service.endpoints


def test_a_refused_configuration_leaves_no_model(world: World) -> None:
    world.client.failures["CreateEndpointConfig"] = [client_error("AccessDeniedException")]
    with pytest.raises(LaunchError, match="allow sagemaker:CreateEndpointConfig"):
        world.deploy()
    assert not world.service.models


def test_a_refused_update_says_what_runs_on(world: World) -> None:
    world.deploy()
    world.client.failures["UpdateEndpoint"] = [client_error("ThrottlingException")]
    with pytest.raises(AwsUnavailableError, match=f"serves what it did; it {COSTING}"):
        world.deploy("cd" * 32)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), client_error("ExpiredTokenException")])
def test_whoever_stops_waiting_is_told_that_it_goes_on_and_costs(
    ending: BaseException, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.client.failures["DescribeEndpoint"] = []

    def ends(name: str) -> None:
        world.client.failures["DescribeEndpoint"] = [ending] * 50

    create = world.service._create
    world.service._create = lambda call: (create(call), ends(NAME))[0]  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING), pytest.raises((KeyboardInterrupt, LaunchError)) as told:
        world.deploy()
    assert "finetuning-helper goes on. It costs 1.50 USD" in caplog.text + str(told.value)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), client_error("ExpiredTokenException")])
def test_whoever_stops_waiting_for_a_removal_is_told_that_it_may_cost_on(
    ending: BaseException, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.deploy()
    delete = world.service._delete

    def ends(call: Any) -> dict[str, Any]:
        world.client.failures["DescribeEndpoint"] = [ending] * 50
        return delete(call)

    world.service._delete = ends  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING), pytest.raises((KeyboardInterrupt, LaunchError)) as told:
        undeploy(world.aws, NAME, COSTS, QUICK)
    assert "gone is not known: if not, it costs 1.50 USD" in caplog.text + str(told.value)


def test_a_refused_removal_says_that_it_still_costs(world: World) -> None:
    world.deploy()
    world.client.failures["DeleteEndpoint"] = [client_error("AccessDeniedException")]
    with pytest.raises(LaunchError, match=f"allow sagemaker:DeleteEndpoint.*{COSTING}"):
        undeploy(world.aws, NAME, COSTS, QUICK)


def test_the_same_command_goes_on_after_it_was_killed_between_the_parts(world: World) -> None:
    world.client.failures["CreateEndpoint"] = [client_error("InternalFailure", status=500)]
    with pytest.raises(AwsUnavailableError, match=f"not known: if so, endpoint .*{COSTING}"):
        world.deploy()
    assert world.deploy()
    assert len(world.service.models) == 1
