"""The training image: which one, and the digest that its tag stands for."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from llm_engineering.configuration.sagemaker import PINNED_PYTHON, SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError, SetupError
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied, passing_trouble

PYTORCH_IMAGE = "2.9.0"
"""Version of the pinned PyTorch training image; it brings torch, CUDA, boto3 and AWS's own tools."""
_ECR = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+/"
    r"(?P<repository>[^:@]+)(?::(?P<tag>[^:@]+)|@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class TrainingImage:
    """The image of a job."""

    uri: str  # with @sha256 where the digest is known
    tag: str | None = None  # the URI by tag that was resolved
    warning: str | None = None  # why the digest is not known

    @property
    def identity(self) -> str:
        """What of the image decides a job's result: its digest, else its URI.

        By its digest an image is the same in another region and in a mirror of one's own.
        """
        return self.uri.partition("@")[2] or self.uri


def image_uri(settings: SagemakerSettings, region: str) -> str:
    """The configured image, else AWS's PyTorch training image of the pinned version, by tag.

    Asks nobody: the SDK knows the account that holds the images of each region.

    Raises:
        LaunchError: The SDK knows none for this region or instance type.
        SetupError: The SDK is not installed, and no image is named.
    """
    if settings.image is not None:
        return settings.image
    if importlib.util.find_spec("sagemaker") is None:
        raise SetupError(
            "sagemaker.image: without the SageMaker SDK the address of AWS's image is not known: "
            "name one, or run `make setup-sagemaker`"
        )
    from sagemaker.core import image_uris

    try:
        return str(
            image_uris.retrieve(
                "pytorch",
                region=region,
                version=PYTORCH_IMAGE,
                py_version=f"py{PINNED_PYTHON.replace('.', '')}",
                instance_type=settings.instance_types[0],
                image_scope="training",
            )
        )
    except ValueError as error:
        raise LaunchError(f"sagemaker.image: no pinned image ({error}); name one") from None


def pin_image(aws: Aws, settings: SagemakerSettings) -> TrainingImage:
    """The job's image by the digest that its tag stands for now.

    A tag is moved when AWS patches an image, and then stands for another training: to go on in the
    image that a job began in, name that by its digest.

    Raises:
        LaunchError: The repository has no such tag, or is another region's.
        AwsUnavailableError: ECR cannot be asked now; a guess could pay for a training twice.
    """
    uri = image_uri(settings, aws.region)
    found = _ECR.fullmatch(uri)
    if found is None:
        return TrainingImage(uri, warning=f"sagemaker.image: {uri} is not in ECR; its digest is "
                             "not known, and the image may change between two jobs")  # fmt: skip
    if found["digest"]:
        return TrainingImage(uri)
    if found["region"] != aws.region:
        raise LaunchError(
            f"sagemaker.image: {uri} is in {found['region']}, the job would run in {aws.region}, and "
            "AWS takes an image of the job's own region only; name one there"
        )
    ecr = aws.client("ecr")
    tag = found["tag"] or "latest"
    try:
        answer = ecr.batch_get_image(
            registryId=found["registry"],
            repositoryName=found["repository"],
            imageIds=[{"imageTag": tag}],
        )
    except Exception as error:  # whatever the client raises
        trouble = passing_trouble(error)
        if trouble is not None:
            raise AwsUnavailableError(
                f"the digest of {uri} cannot be looked up: {trouble} ({error_code(error)}); nothing "
                "was submitted: run the same command again"
            ) from None
        if is_denied(error):
            why = "not permitted (ecr:BatchGetImage)"
        elif error_code(error) == "RepositoryNotFoundException":
            raise LaunchError(
                f"sagemaker.image: there is no repository {found['repository']} in account "
                f"{found['registry']}, {found['region']}; correct sagemaker.image"
            ) from None
        else:
            why = f"{error_code(error)}"
        return TrainingImage(
            uri,
            warning=f"the digest of {uri} cannot be looked up: {why}; going on with its tag, which "
            "may stand for another image in another job, and a launcher that can look it up pays for "
            "this training again",
        )
    if not answer["images"]:
        raise LaunchError(
            f"sagemaker.image: the repository {found['repository']} has no tag {tag}; correct "
            "sagemaker.image"
        )
    digest = answer["images"][0]["imageId"]["imageDigest"]
    return TrainingImage(f"{uri.partition(':')[0]}@{digest}", tag=uri)
