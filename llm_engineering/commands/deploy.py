"""``--deploy sagemaker`` and ``--undeploy``: a trained version behind a SageMaker endpoint."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.commands.command_line import command_line, typed
from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.errors import LaunchError, SecretError
from llm_engineering.registry.versions import model_name

if TYPE_CHECKING:
    from llm_engineering.commands.trained_version import TrainedVersion
    from llm_engineering.configuration.sagemaker import SagemakerSettings
    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.endpoint import Costs
    from llm_engineering.sagemaker.endpoint_request import Deployment


@dataclass(frozen=True)
class _Staged:
    """What would be sent."""

    version: TrainedVersion
    settings: SagemakerSettings
    deployment: Deployment
    folder: Path
    layout: str
    adapter: str
    """Its name in requests."""


def deploy(
    where: str, config_path: Path, overrides: Sequence[str], *, dry_run: bool = False
) -> None:
    """Put a version behind the configured endpoint, and wait until it serves.

    Args:
        where: As of ``trained_version``; empty: the production version.
        config_path: Says which model, and has ``sagemaker.endpoint``.
        overrides: Of its keys.
        dry_run: Print what would be sent; ask nobody.

    Raises:
        LaunchError: It does not serve; says what runs and costs.
        RegistryError: There is no such version.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()
    line = command_line(config_path, overrides)
    with _staged(where, config) as staged:
        from llm_engineering.sagemaker.aws import Aws

        aws = Aws(staged.settings)
        name = staged.deployment.name
        stop = typed(line, "--undeploy", name)
        if dry_run:
            _print_plan(staged, _costs(staged.settings, stop, None))
            return
        costs = _costs(staged.settings, stop, aws)

        from llm_engineering.sagemaker.checks import check_deployer
        from llm_engineering.sagemaker.endpoint import deploy as deploy_endpoint
        from llm_engineering.sagemaker.endpoint_files import upload_files
        from llm_engineering.sagemaker.follow import Pace

        for warning in check_deployer(aws, staged.settings):
            print(f"warning: {warning}")
        changed = deploy_endpoint(
            aws,
            staged.deployment,
            costs,
            lambda: upload_files(aws, staged.version.run, staged.settings, staged.folder),
            Pace(),
        )
        print(f"endpoint {name} {'serves' if changed else 'serves already'} {staged.version.text}")
        print(f"it {costs.text()}")
        print(f"to try it: {_try(staged, aws.region)}")


def undeploy(name: str, config_path: Path, overrides: Sequence[str]) -> None:
    """Remove an endpoint with its configuration and model.

    Args:
        name: Of the endpoint; empty: the configured one.
        config_path: Says where.
        overrides: Of its keys.

    Raises:
        LaunchError: It may not be removed; says that it still costs.
    """
    config = load_config(config_path, overrides)
    set_up_terminal()

    from llm_engineering.sagemaker.aws import Aws
    from llm_engineering.sagemaker.endpoint import undeploy as undeploy_endpoint
    from llm_engineering.sagemaker.endpoint_request import endpoint_name
    from llm_engineering.sagemaker.follow import Pace
    from llm_engineering.sagemaker.launch_order import sagemaker_settings

    settings = sagemaker_settings(config)
    name = name or endpoint_name(settings, model_name(config))
    aws = Aws(settings)
    stop = typed(command_line(config_path, overrides), "--undeploy", name)
    there = undeploy_endpoint(aws, name, _costs(settings, stop, aws), Pace())
    if not there:
        print(f"there is no endpoint {name} in {aws.region}: nothing runs, and nothing is paid")
        return
    print(f"endpoint {name} is gone, with its configuration and model: nothing more is paid for it")
    where = f"s3://{settings.bucket}/{settings.prefix}/endpoints/"
    print(f"its files stay in {where} and may be deployed again")


@contextmanager
def _staged(where: str, config: FinetuningConfig) -> Iterator[_Staged]:
    from llm_engineering.commands.trained_version import trained_version
    from llm_engineering.sagemaker.endpoint_files import stage_files
    from llm_engineering.sagemaker.endpoint_request import (
        build_deployment,
        endpoint_name,
        endpoint_settings,
    )
    from llm_engineering.sagemaker.launch_order import sagemaker_settings
    from llm_engineering.talk.finished_run import own_configuration

    settings = sagemaker_settings(config)
    for variable, value in endpoint_settings(settings).environment.items():
        _require_no_secret(variable, value)
    with trained_version(where, config) as version, tempfile.TemporaryDirectory() as temporary:
        trained = own_configuration(version.run)
        if trained is None:
            raise LaunchError(
                f"{version.run.folder}: has no manifest beside it, so nobody vouches for it; deploy "
                "a run of this project"
            )
        folder = Path(temporary) / "files"
        # Of the configuration, whatever the version's run was named by: --undeploy asks it too.
        model = model_name(config)
        digest, layout = stage_files(version.run, trained, settings, _plain(model), folder)
        name = endpoint_name(settings, model)
        tags = {"run": version.run.name}
        deployment = build_deployment(settings, name, digest, tags)
        yield _Staged(version, settings, deployment, folder, layout, _plain(model))


def _require_no_secret(variable: str, value: str) -> None:
    from llm_engineering.sagemaker.secret_scan import require_no_secrets

    try:
        require_no_secrets(f"sagemaker.endpoint.environment.{variable}", f"{variable}={value}")
    except SecretError as error:
        raise SecretError(
            f"{str(error).splitlines()[0]}\nan endpoint has no other way to a secret: copy a gated base model to S3 "
            "(sagemaker.base_model)"
        ) from None


def _plain(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.") or "adapter"


def _costs(settings: SagemakerSettings, stop: str, aws: Aws | None) -> Costs:
    from llm_engineering.sagemaker.endpoint import Costs
    from llm_engineering.sagemaker.prices import list_price

    asked = settings.endpoint
    if asked is None:
        return Costs(None, stop)
    price = asked.price_per_hour
    if price is None and aws is not None:
        price = list_price(aws, asked.instance_type, "Hosting")
    return Costs(None if price is None else price * asked.instance_count, stop)


def _print_plan(staged: _Staged, costs: Costs) -> None:
    from llm_engineering.sagemaker.request import redacted

    wanted = staged.deployment
    print(f"# {staged.version.text}")
    for operation, request in (
        ("CreateModel", wanted.model),
        ("CreateEndpointConfig", wanted.config),
        ("CreateEndpoint, or UpdateEndpoint where it serves already", wanted.endpoint),
    ):
        print(f"\n# {operation}")
        print(redacted(request))
    files = sorted(path for path in staged.folder.rglob("*") if path.is_file())
    print(f"\n# files: {len(files)}, {sum(path.stat().st_size for path in files):,} bytes")
    for path in files:
        print(f"  {path.stat().st_size:>11,}  {path.relative_to(staged.folder).as_posix()}")
    print(f"\n# the container makes of it: {staged.layout}")
    print(f"# it {costs.text()}")


def _try(staged: _Staged, region: str) -> str:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "What is a list?"}]}
    if (staged.folder / "adapters").is_dir():
        body |= {"adapters": [staged.adapter]}
    return (
        f"aws sagemaker-runtime invoke-endpoint --region {region} --endpoint-name "
        f"{staged.deployment.name} --content-type application/json --cli-binary-format "
        f"raw-in-base64-out --body '{json.dumps(body)}' /dev/stdout"
    )
