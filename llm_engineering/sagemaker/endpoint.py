"""An endpoint's life: made, followed until it serves, moved to another version, removed.

An endpoint is paid for by the hour until somebody removes it, whatever becomes of this process. So
every end of what is here says whether one runs, what it costs, and the command that ends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker.aws import (
    BROKEN,
    OUT_OF_REACH,
    Aws,
    error_code,
    is_denied,
    passing_trouble,
)
from llm_engineering.sagemaker.endpoint_request import OWNER, TAG, Deployment
from llm_engineering.sagemaker.follow import Pace

logger = logging.getLogger(__name__)

MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
SERVING = "InService"
_STATEMENT = "(DeployEndpoints in docs/sagemaker/launcher-options.json)"
_CAPACITY = ("capacity", "InsufficientInstanceCapacity")


@dataclass(frozen=True)
class Costs:
    """What an endpoint costs and how it is ended, for every sentence that says that one runs."""

    usd_per_hour: float | None
    """Of all its instances; None: not known."""
    stop: str
    """The command that removes it."""

    def text(self) -> str:
        """Words that follow the endpoint's name."""
        price = "unknown" if self.usd_per_hour is None else f"{self.usd_per_hour:,.2f}"
        return f"costs {price} USD an hour until it is removed: {self.stop}"


def deploy(
    aws: Aws,
    wanted: Deployment,
    costs: Costs,
    upload: Callable[[], None],
    pace: Pace,
) -> bool:
    """Make the endpoint, or move it to what is wanted, and wait until it serves that.

    Args:
        aws: A session.
        wanted: Its requests.
        costs: For what is told.
        upload: Puts the container's files into S3; called once the endpoint may be changed.
        pace: How often AWS is asked, and how long failures are borne.

    Returns:
        Whether anything was changed.

    Raises:
        LaunchError: It does not serve what is wanted; says what it does instead.
        AwsUnavailableError: As that, where the same command may succeed later.
        KeyboardInterrupt: It was given up waiting; the endpoint goes on, which is told.
    """
    former = _describe(
        aws,
        wanted.name,
        pace,
        f"nothing was sent; if {wanted.name} runs already, it {costs.text()}",
    )
    if former is not None:
        _require_own(aws, former, costs)
        status, serves = former["EndpointStatus"], former["EndpointConfigName"]
        if serves == wanted.part and status == SERVING:
            return False
        if serves == wanted.part and status in MOVING:
            logger.info("%s is %s already", wanted.name, status)
            try:
                _follow(aws, wanted, costs, pace)
            except KeyboardInterrupt:
                logger.warning("no longer waiting: %s goes on. It %s", wanted.name, costs.text())
                raise
            return True
        if status in MOVING:
            raise LaunchError(
                f"endpoint {wanted.name} is {status} to {serves}, and AWS changes it no further "
                f"meanwhile: give the same command again later. It {costs.text()}"
            )
        if status != SERVING:
            reason = former.get("FailureReason", "AWS gives no reason")
            raise LaunchError(
                f"endpoint {wanted.name} is {status} ({reason}), which AWS does not update: remove it "
                f"first, by {costs.stop}"
            )
    state = "nothing runs" if former is None else f"{wanted.name} serves what it did; it "
    standing = state if former is None else state + costs.text()
    upload()
    _create(aws, "create_model", wanted.model, standing)
    try:
        _create(aws, "create_endpoint_config", wanted.config, standing)
    except AwsUnavailableError:
        raise  # the same command goes on
    except LaunchError:
        _remove_model(aws, wanted.part)
        raise
    unknown = f"whether AWS did it is not known: if so, endpoint {wanted.name} {costs.text()}"
    try:
        if former is None:
            _create(aws, "create_endpoint", wanted.endpoint, standing, unknown)
            logger.info("creating endpoint %s: from now on it %s", wanted.name, costs.text())
        else:
            names = ("EndpointName", "EndpointConfigName")
            request = {name: wanted.endpoint[name] for name in names}
            _create(aws, "update_endpoint", request, standing, unknown)
            logger.info("moving endpoint %s to %s without a pause", wanted.name, wanted.part)
        _follow(aws, wanted, costs, pace)
    except KeyboardInterrupt:
        logger.warning("no longer waiting: endpoint %s goes on. It %s", wanted.name, costs.text())
        raise
    if former is not None:
        _remove_parts(aws, former["EndpointConfigName"])
    return True


def undeploy(aws: Aws, name: str, costs: Costs, pace: Pace) -> bool:
    """Remove an endpoint with its configuration and model, and wait until it is gone.

    Returns:
        Whether there was one.

    Raises:
        LaunchError: It is another's, or may not be removed; says that it still costs.
        AwsUnavailableError: AWS cannot be asked now.
    """
    unknown = f"whether endpoint {name} is gone is not known: if not, it {costs.text()}"
    found = _describe(aws, name, pace, unknown)
    if found is None:
        return False
    _require_own(aws, found, costs)
    try:
        while found is not None and found["EndpointStatus"] in MOVING:
            if found["EndpointStatus"] == "Deleting":
                break
            logger.info("%s is %s: AWS removes it after that", name, found["EndpointStatus"])
            time.sleep(pace.poll_s)
            found = _describe(aws, name, pace, unknown)
        if found is None:
            return True
        if found["EndpointStatus"] != "Deleting":
            _call(aws, "delete_endpoint", {"EndpointName": name}, f"endpoint {name} {costs.text()}")
        while _describe(aws, name, pace, unknown) is not None:
            time.sleep(pace.poll_s)
    except KeyboardInterrupt:
        logger.warning("given up waiting: %s", unknown)
        raise
    _remove_parts(aws, found["EndpointConfigName"])
    return True


def _follow(aws: Aws, wanted: Deployment, costs: Costs, pace: Pace) -> None:
    """Wait until the endpoint serves what is wanted."""
    told = ""
    goes_on = f"endpoint {wanted.name} goes on. It {costs.text()}"
    while True:
        found = _describe(aws, wanted.name, pace, goes_on)
        if found is None:
            raise LaunchError(f"endpoint {wanted.name} was removed meanwhile; nothing runs")
        status = str(found["EndpointStatus"])
        if status != told:
            told = status
            logger.info("%s: %s", wanted.name, status)
        if status not in MOVING:
            break
        time.sleep(pace.poll_s)
    if status == SERVING and found["EndpointConfigName"] == wanted.part:
        return
    reason = str(found.get("FailureReason", "AWS gives no reason"))
    kind = AwsUnavailableError if any(one in reason for one in _CAPACITY) else LaunchError
    if status == SERVING:
        _remove_parts(aws, wanted.part)
        raise kind(
            f"endpoint {wanted.name} went back to {found['EndpointConfigName']}, which it serves on: "
            f"{reason}. It {costs.text()}"
        )
    raise kind(
        f"endpoint {wanted.name} is {status}: {reason}. The container's log is /aws/sagemaker/"
        f"Endpoints/{wanted.name} in CloudWatch. It serves nothing; remove it before it is deployed "
        f"again: {costs.stop}"
    )


def _describe(aws: Aws, name: str, pace: Pace, standing: str) -> Mapping[str, Any] | None:
    """The endpoint as AWS tells it; None: there is none. ``standing``: as of ``_call``."""
    try:
        return dict(
            aws.surviving(
                lambda: aws.client("sagemaker").describe_endpoint(EndpointName=name),
                patience_s=pace.patience_s,
                pause_s=pace.poll_s,
            )
        )
    except AwsUnavailableError as error:
        raise AwsUnavailableError(f"{error}; {standing}") from None
    except Exception as error:
        if error_code(error) == "ValidationException" and "Could not find" in str(error):
            return None
        raise _refusal(error, "DescribeEndpoint", standing) from None


def _require_own(aws: Aws, endpoint: Mapping[str, Any], costs: Costs) -> None:
    """Leave alone what somebody else has made under that name."""
    arn = endpoint["EndpointArn"]
    answer = _call(aws, "list_tags", {"ResourceArn": arn}, f"{arn} was left as it is")
    if {tag["Key"]: tag["Value"] for tag in answer["Tags"]}.get(TAG) != OWNER:
        raise LaunchError(
            f"endpoint {endpoint['EndpointName']} is {endpoint['EndpointStatus']} and was not made by "
            f"this project (it has no tag {TAG}={OWNER}); it was left as it is: choose another "
            "sagemaker.endpoint.name"
        )


def _create(
    aws: Aws, operation: str, request: dict[str, Any], standing: str, unknown: str = ""
) -> None:
    """Make a part, unless the same is there: its name is a digest of what it holds."""
    try:
        _call(aws, operation, request, standing, unknown)
    except LaunchError as error:
        if "already existing" not in str(error):
            raise


def _remove_model(aws: Aws, name: str) -> None:
    try:
        aws.client("sagemaker").delete_model(ModelName=name)
    except Exception as error:
        logger.warning("model %s is left, which costs nothing (%s)", name, error_code(error))


def _remove_parts(aws: Aws, config: str) -> None:
    """Remove an endpoint configuration and its models, which cost nothing; told where it fails."""
    client = aws.client("sagemaker")
    try:
        found = client.describe_endpoint_config(EndpointConfigName=config)
        client.delete_endpoint_config(EndpointConfigName=config)
        for variant in found["ProductionVariants"]:
            client.delete_model(ModelName=variant["ModelName"])
    except Exception as error:
        logger.warning(
            "%s: its endpoint configuration or model is left, which costs nothing (%s)",
            config,
            error_code(error),
        )


def _call(
    aws: Aws, operation: str, request: dict[str, Any], standing: str, unknown: str = ""
) -> dict[str, Any]:
    """Ask AWS; ``standing`` says how things are if it refuses, ``unknown`` if no answer came."""
    try:
        return dict(getattr(aws.client("sagemaker"), operation)(**request))
    except Exception as error:
        name = "".join(part.capitalize() for part in operation.split("_"))
        lost = passing_trouble(error) in (OUT_OF_REACH, BROKEN)
        raise _refusal(error, name, unknown if lost and unknown else standing) from None


def _refusal(error: Exception, operation: str, standing: str) -> LaunchError:
    trouble = passing_trouble(error)
    if trouble is not None:
        return AwsUnavailableError(f"{operation}: {trouble} ({error_code(error)}); {standing}")
    if is_denied(error):
        return LaunchError(f"{operation}: allow sagemaker:{operation} {_STATEMENT}; {standing}")
    if error_code(error) == "ResourceLimitExceeded":
        return LaunchError(
            f"{operation}: {error}; ask for more at Service Quotas, Amazon SageMaker, `TYPE for "
            f"endpoint usage`; {standing}"
        )
    return LaunchError(f"{operation}: AWS refuses it ({error_code(error)}): {error}; {standing}")
