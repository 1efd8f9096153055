"""The fixtures: ``sagemaker_service`` is what a test asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sagemaker_service.client import Service, start
from sagemaker_service.container import namespace_problem

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sagemaker_job_python() -> Path:
    """The interpreter that jobs run with; override it for another environment."""
    return Path(sys.executable)


@pytest.fixture(scope="session")
def sagemaker_job_hidden() -> Sequence[Path]:
    """Folders that are empty for a job (its interpreter's environment stays): the checkout."""
    return (CHECKOUT,)


@pytest.fixture(scope="session")
def sagemaker_image_environment() -> Mapping[str, str]:
    """Variables that the "image" sets, beyond those of the Deep Learning Containers.

    As many threads as here, where tests limit them: by them sums are split, and the bits with them.
    """
    return {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}


@pytest.fixture(scope="session")
def sagemaker_server(
    tmp_path_factory: pytest.TempPathFactory,
    sagemaker_job_python: Path,
    sagemaker_job_hidden: Sequence[Path],
    sagemaker_image_environment: Mapping[str, str],
) -> Iterator[Service]:
    """The server's process, one for the session; skips where no container can be made."""
    problem = namespace_problem()
    if problem is not None:
        pytest.skip(f"the simulated service needs Linux namespaces: {problem}")
    service = start(
        tmp_path_factory.mktemp("sagemaker"),
        python=sagemaker_job_python,
        hide=sagemaker_job_hidden,
        image_environment=sagemaker_image_environment,
    )
    yield service
    service.stop()


@pytest.fixture
def sagemaker_service(
    sagemaker_server: Service, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """An empty service without faults, with a bucket and a role; this process's AWS_ variables
    lead to it, and so do those of the processes it starts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in sagemaker_server.environment.items():
        monkeypatch.setenv(name, value)
    # boto3 keeps a default session, with the settings that it was made under.
    import boto3

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    sagemaker_server.reset()
    yield sagemaker_server
    sagemaker_server.set_faults()
