"""What a launch would send and could cost at most, worked out here without asking AWS."""

from __future__ import annotations

import tempfile
from pathlib import Path

from llm_engineering.configuration import FinetuningConfig, to_yaml
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.checks import check_locally, gpu_instances
from llm_engineering.sagemaker.cost import ceiling_text
from llm_engineering.sagemaker.image import TrainingImage, image_uri
from llm_engineering.sagemaker.launch_order import name_of
from llm_engineering.sagemaker.request import JobInputs, build_request, redacted
from llm_engineering.sagemaker.serving_layout import ServedFrom, layout_text
from llm_engineering.sagemaker.submission import served_name, stage

_NO_DIGEST = "0" * 64


def launch_plan(config: FinetuningConfig, settings: SagemakerSettings) -> str:
    """The redacted request, the source that would travel, and the cost ceiling, as text.

    Raises:
        FinetuningError: Whatever can be known to be wrong without AWS.
    """
    check_locally(config, settings, to_yaml(config))
    aws = Aws(settings)
    home = f"s3://{settings.bucket}/{settings.prefix}"
    name = name_of(config, _NO_DIGEST)
    sent = f"{home}/models/{_NO_DIGEST}/" if Path(config.model.id).is_dir() else None
    base_model = settings.base_model or sent
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        source = Path(folder)
        listing = stage(config, settings, source)
        spot = settings.spot.enabled
        request = build_request(
            settings,
            name=name,
            instance_types=settings.instance_types[:1] if spot else settings.instance_types,
            image=TrainingImage(image_uri(settings, aws.region)),
            inputs=JobInputs(
                config=f"{home}/jobs/{name}/config/",
                dataset=f"{home}/data/{_NO_DIGEST}/",
                base_model=base_model,
                code=f"{home}/code/{listing.digest}/",
            ),
            tags={"pipeline": "finetuning", "run": "...", "commit": "..."},
            checkpoints=name,
        )
    served = ServedFrom(name=served_name(config), base=base_model or config.model.id)
    instances = [
        f"  {each.name:<18} {each.gpus} x {each.gpu}, {each.gpu_memory_gib:g} GiB each"
        for each in gpu_instances(settings)
    ]
    return "\n".join(
        [
            "# request (the zeros stand for digests of the prepared data and the model; a launch sends the "
            "image by its digest)",
            redacted(request),
            "",
            f"# source: {len(listing.files)} files, {listing.total_bytes:,} bytes",
            *(f"  {size:>9,}  {path}" for path, size in sorted(listing.files.items())),
            "",
            "# instance types, in order of preference",
            *instances,
            "",
            f"# cost ceiling: {ceiling_text(settings)}",
            f"# model.tar.gz for serving: {layout_text(config, served)}",
            *(
                [f"# registered in the model package group {settings.model_package.group}"]
                if settings.model_package
                else []
            ),
        ]
    )
