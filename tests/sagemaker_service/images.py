"""What ECR says of a training image: the digest that a tag stands for at present."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sagemaker_service.errors import ServiceError
from sagemaker_service.wire import ApiCall

MISSING_TAG = "not-there"


def batch_get_image(call: ApiCall, moved_tags: Mapping[str, str]) -> dict[str, Any]:
    """ECR's BatchGetImage: every tag is there but ``MISSING_TAG``, until a fault moves it."""
    asked = call.parameters
    repository = asked["repositoryName"]
    images, failures = [], []
    for each in asked["imageIds"]:
        tag = each.get("imageTag", "latest")
        if tag == MISSING_TAG:
            failures.append(
                {
                    "imageId": each,
                    "failureCode": "ImageNotFound",
                    "failureReason": "Requested image not found",
                }
            )
            continue
        content = moved_tags.get(f"{repository}:{tag}", f"{repository}:{tag}")
        digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
        images.append(
            {
                "registryId": asked.get("registryId", ""),
                "repositoryName": repository,
                "imageId": {"imageDigest": digest, "imageTag": tag},
                "imageManifest": "{}",
            }
        )
    if not images and not failures:
        raise ServiceError("InvalidParameterException", "imageIds is empty")
    return {"images": images, "failures": failures}
