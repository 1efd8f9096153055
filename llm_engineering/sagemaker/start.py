"""The first thing that runs in a job's container: unpack the source, install packages, become the job.

Travels beside the source and runs before any package of ours is there, so the standard library must
do (boto3 is the image's own). It ends by ``exec``: the job has this process's id, and the service's
SIGTERM. What fails here is written where the service looks for a job's FailureReason.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

ML = Path("/opt/ml")
SOURCE = "source.tar.gz"
REQUIREMENTS = "requirements.txt"
WHEELHOUSE = "wheelhouse"
"""Name of the input channel with all wheels, where there is one."""
CODEARTIFACT = "CA_REPOSITORY_ARN"
"""The variable by which AWS's own training toolkits name a CodeArtifact repository."""
REMOVED = ("flash-attn", "flash-attn-3", "flash-attn-4")
"""Packages of the image that transformers 5 takes up on sight and then cannot import; unsloth and
PyTorch have attention kernels of their own."""
_MAX_FAILURE = 1024


class StartError(Exception):
    """The job's packages cannot be had; says which and why."""


def main(ml: Path = ML) -> None:
    """Prepare the container and become the job."""
    print("Starting training script", flush=True)
    # As process 1 of the container this is deaf to SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = ml / "code"
    try:
        unpack(ml / "input" / "data" / "code" / SOURCE, code)
        remove(REMOVED)
        before = installed()
        install(code / REQUIREMENTS, ml / "input" / "data" / WHEELHOUSE)
        tell_changes(before, installed())
    except Exception as error:
        failure = ml / "output" / "failure"
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(f"{error}"[:_MAX_FAILURE], encoding="utf-8")
        raise
    os.chdir(code)
    os.execv(sys.executable, [sys.executable, "-m", "llm_engineering.sagemaker.job"])  # noqa: S606


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the source, anew at each start."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def install(requirements: Path, wheelhouse: Path) -> None:
    """Install exactly what the lock lists, each file checked against the lock's digests.

    From the wheelhouse alone where there is one, else from CodeArtifact where the job names a
    repository, else from pip's own index.

    Raises:
        StartError: pip could not; says its last line.
    """
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--root-user-action", "ignore"]
    command += ["--progress-bar", "off", "--quiet", "--requirement", str(requirements)]
    environment = dict(os.environ)
    where = "pip's index"
    if wheelhouse.is_dir():
        command += ["--no-index", "--find-links", str(wheelhouse)]
        where = "sagemaker.packages.wheelhouse"
    elif os.environ.get(CODEARTIFACT):
        # In the environment, which no log shows: it holds a token.
        environment["PIP_INDEX_URL"] = codeartifact_index(os.environ[CODEARTIFACT])
        where = "sagemaker.packages.codeartifact"
    count = sum(1 for line in requirements.read_text(encoding="utf-8").splitlines() if "==" in line)
    print(f"installing {count} packages of the lock from {where}", flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(part for part in (done.stdout, done.stderr) if part).strip()
        said = re.sub(r"://[^/@\s]+@", "://...@", said)
        print(said, flush=True)
        lines = [line for line in said.splitlines() if line.startswith("ERROR")] or [said]
        raise StartError(f"the job's packages cannot be installed from {where}: {lines[-1]}")


def codeartifact_index(arn: str) -> str:
    """The address of a CodeArtifact repository, with a token of the job's own role.

    Raises:
        StartError: The role may not, or there is no such repository.
    """
    import boto3

    _, _, _, region, owner, resource = arn.split(":", 5)
    _, domain, repository = resource.split("/")
    client = boto3.client("codeartifact", region_name=region)
    try:
        token = client.get_authorization_token(domain=domain, domainOwner=owner)
        place = client.get_repository_endpoint(
            domain=domain, domainOwner=owner, repository=repository, format="pypi"
        )
    except Exception as error:
        raise StartError(
            f"sagemaker.packages.codeartifact: the job cannot log in to {arn} ({error}); give its "
            "role the statements of docs/sagemaker/job-role-options.json"
        ) from None
    scheme, _, address = place["repositoryEndpoint"].rstrip("/").partition("://")
    return f"{scheme}://aws:{token['authorizationToken']}@{address}/simple/"


def remove(names: tuple[str, ...]) -> None:
    """Take packages of the image out of the way, and say so."""
    there = sorted(set(names) & installed().keys())
    if not there:
        return
    command = [sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet"]
    subprocess.run([*command, "--root-user-action", "ignore", *there], check=True)
    print(f"removed from the image: {', '.join(there)} (transformers cannot use it)", flush=True)


def installed() -> dict[str, str]:
    """Version of each installed package, by its normalised name."""
    importlib.invalidate_caches()
    return {
        re.sub(r"[-_.]+", "-", each.name).lower(): each.version
        for each in importlib.metadata.distributions()
        if each.name
    }


def tell_changes(before: dict[str, str], after: dict[str, str]) -> None:
    """Say which of the image's own packages were replaced: what was built against them may break."""
    changed = [
        f"{name} {before[name]} -> {after[name]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    if changed:
        print(f"replaced in the image: {', '.join(changed)}", flush=True)
    broken = [line for name in changed for line in dependants(name.split(" ", 1)[0])]
    for line in sorted(set(broken)):
        print(f"no longer fits: {line}", flush=True)


def dependants(name: str) -> list[str]:
    """Installed packages whose stated requirement on ``name`` its installed version breaks."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    lines = []
    for each in importlib.metadata.distributions():
        for text in each.requires or []:
            requirement = Requirement(text)
            if re.sub(r"[-_.]+", "-", requirement.name).lower() != name:
                continue
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = importlib.metadata.version(name)
            if not requirement.specifier.contains(version, prereleases=True):
                lines.append(f"{each.name} {each.version} wants {requirement}, has {version}")
    return lines


if __name__ == "__main__":
    main()
