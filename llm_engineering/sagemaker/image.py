"""The training image: which one, and the digest that its tag stands for."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    Asks nobody: the SDK knows the account that holds the images of each region. Its table is read
    and the SDK not imported, which takes seconds and needs 400 MB of other packages; the address is
    made as ``sagemaker.core.image_uris.retrieve`` makes it, which tests hold it against.

    Raises:
        LaunchError: The SDK knows none for this region.
        SetupError: The SDK is not installed, and no image is named.
    """
    if settings.image is not None:
        return settings.image
    version = _sdk_table()["training"]["versions"][PYTORCH_IMAGE]
    account = version["registries"].get(region)
    if account is None:
        raise LaunchError(
            f"sagemaker.image: AWS has no PyTorch {PYTORCH_IMAGE} training image in {region}; name "
            "one, or choose another sagemaker.region"
        )
    python = f"py{PINNED_PYTHON.replace('.', '')}"
    host = f"{account}.dkr.ecr.{region}.{_dns_suffix(region)}"
    return f"{host}/{version['repository']}:{PYTORCH_IMAGE}-gpu-{python}"


def _sdk_table() -> dict[str, Any]:
    """The SDK's table of PyTorch images."""
    found = importlib.util.find_spec("sagemaker")  # found, not run
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "core" / "image_uri_config" / "pytorch.json"
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    raise SetupError(
        "sagemaker.image: without the SageMaker SDK's table the address of AWS's image is not known: "
        "name one, or run `make setup-launcher`"
    )


def _dns_suffix(region: str) -> str:
    """What host names of a region end in: amazonaws.com, in China amazonaws.com.cn."""
    from botocore.loaders import Loader

    for partition in Loader().load_data("partitions")["partitions"]:
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return str(partition["outputs"]["dnsSuffix"])
    raise LaunchError(f"sagemaker.region: {region} is of no partition of AWS that botocore knows")


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
