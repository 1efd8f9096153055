"""What runs first in a container: packages by the lock's digests, and then the job in its place."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_engineering.sagemaker import start
from llm_engineering.sagemaker.source_package import pack_source

pytestmark = pytest.mark.slow


def wheel(folder: Path, name: str, version: str, *requires: str) -> str:
    """Write a wheel of one empty module; returns its line of requirements, with its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} --hash=sha256:{digest}"


@pytest.fixture
def installing(tmp_path, monkeypatch):
    """Installs into a folder of the test's own, from wheels of the test's own."""
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "site"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv(start.CODEARTIFACT, raising=False)

    def run(*lines: str, wheelhouse: bool = True) -> Path:
        requirements = tmp_path / "requirements.txt"
        requirements.write_text("\n".join(lines) + "\n")
        start.install(requirements, tmp_path / ("wheels" if wheelhouse else "none"))
        return tmp_path / "site"

    return run


def test_the_wheelhouse_alone_is_asked_and_digests_count(installing, tmp_path, capsys):
    line = wheel(tmp_path / "wheels", "alpha", "1.0")
    assert (installing(line) / "alpha.py").read_text() == "version = '1.0'\n"
    assert "installing 1 packages of the lock from sagemaker.packages.wheelhouse" in (
        capsys.readouterr().out
    )


def test_a_file_that_the_lock_does_not_know_is_refused(installing, tmp_path):
    line = wheel(tmp_path / "wheels", "alpha", "1.0")
    with zipfile.ZipFile(tmp_path / "wheels" / "alpha-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("more.py", "")
    with pytest.raises(start.StartError, match=r"cannot be installed .*DO NOT MATCH THE HASHES"):
        installing(line)
    assert not (tmp_path / "site" / "alpha.py").exists()


def test_a_line_without_a_digest_is_refused(installing, tmp_path):
    wheel(tmp_path / "wheels", "alpha", "1.0")
    with pytest.raises(start.StartError, match=r"--require-hashes"):
        installing("alpha==1.0")


def test_what_a_wheelhouse_lacks_is_named_and_asked_of_no_index(installing, tmp_path, monkeypatch):
    wheel(tmp_path / "wheels", "alpha", "1.0")
    index = tmp_path / "simple"
    line = wheel(index / "beta", "beta", "2.0")
    (index / "beta" / "index.html").write_text('<a href="beta-2.0-py3-none-any.whl">beta</a>')
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    with pytest.raises(
        start.StartError, match=r"from sagemaker\.packages\.wheelhouse: ERROR: .*beta==2\.0"
    ):
        installing(line)
    assert (installing(line, wheelhouse=False) / "beta.py").exists()  # the index has it


class CodeArtifact:
    def get_authorization_token(self, **asked):
        self.asked = asked
        return {"authorizationToken": "t0ken-of-12-hours"}

    def get_repository_endpoint(self, *, repository, **asked):
        return {"repositoryEndpoint": f"https://domain-1.d.codeartifact.r.a.com/pypi/{repository}/"}


ARN = "arn:aws:codeartifact:eu-west-1:123456789012:repository/domain/repo"


@pytest.fixture
def codeartifact(monkeypatch):
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setattr(boto3, "client", lambda name, region_name: CodeArtifact())


def test_codeartifact_is_asked_as_the_sdk_asks_it(codeartifact):
    sdk = pytest.importorskip("sagemaker.core.utils.install_requirements")
    theirs = sdk._get_index_boto3("eu-west-1", "123456789012", "domain", "repo")
    assert start.codeartifact_index(ARN) == theirs


def test_no_log_shows_the_token_of_codeartifact(codeartifact, installing, monkeypatch, capsys):
    monkeypatch.setenv(start.CODEARTIFACT, ARN)

    def pip(command, env, **options):  # one that says the address that it was given
        assert "t0ken" not in " ".join(command)
        return SimpleNamespace(
            returncode=1,
            stdout="",
            stderr=f"WARNING: x\nERROR: cannot reach {env['PIP_INDEX_URL']}",
        )

    monkeypatch.setattr(start.subprocess, "run", pip)
    with pytest.raises(start.StartError, match=r"packages\.codeartifact: ERROR: cannot") as error:
        installing("alpha==1.0 --hash=sha256:" + "0" * 64, wheelhouse=False)
    out = capsys.readouterr().out
    assert "https://...@domain-1.d.codeartifact" in out
    assert "t0ken" not in out + str(error.value)


def test_a_role_that_may_not_log_in_is_told_what_to_give_it(monkeypatch):
    boto3 = pytest.importorskip("boto3")

    def refuse(**asked):
        raise RuntimeError("AccessDeniedException")

    fake = SimpleNamespace(get_authorization_token=refuse)
    monkeypatch.setattr(boto3, "client", lambda name, region_name: fake)
    with pytest.raises(start.StartError, match=r"AccessDeniedException.*job-role-options\.json"):
        start.codeartifact_index(ARN)


JOB = """
import importlib.metadata, os
names = {d.name for d in importlib.metadata.distributions()}
print("JOB", os.getpid(), os.getcwd(), importlib.metadata.version("alpha"), "flash_attn" in names)
"""


def test_the_container_is_prepared_and_becomes_the_job(tmp_path):
    venv.create(tmp_path / "image", with_pip=True)
    python = tmp_path / "image" / "bin" / "python"
    old = tmp_path / "old"
    lines = [wheel(old, "alpha", "1.0"), wheel(old, "flash_attn", "2.8")]
    wheel(old, "beta", "1.0", "alpha<2")
    quiet = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    quiet.pop("PIP_FIND_LINKS", None)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *old.iterdir()],
        check=True,
        env=quiet,
    )
    subprocess.run([python, "-m", "pip", "install", "--quiet", "packaging"], check=False, env=quiet)
    ml = tmp_path / "ml"
    code, source = ml / "input" / "data" / "code", tmp_path / "source"
    (source / "llm_engineering" / "sagemaker").mkdir(parents=True)
    (source / "llm_engineering" / "sagemaker" / "job.py").write_text(JOB)
    line = wheel(ml / "input" / "data" / "wheelhouse", "alpha", "2.0")
    (source / "requirements.txt").write_text(f"{line}\n")
    pack_source(source, code)

    command = (
        f"import sys; sys.path.insert(0, {str(code)!r}); import start; from pathlib import Path"
    )
    process = subprocess.Popen(
        [python, "-c", f"{command}; start.main(Path({str(ml)!r}))"],
        stdout=subprocess.PIPE,
        text=True,
        env=quiet,
    )
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert f"JOB {process.pid} {ml / 'code'} 2.0 False" in out
    assert "removed from the image: flash-attn" in out
    assert "replaced in the image: alpha 1.0 -> 2.0" in out
    assert not (ml / "output" / "failure").exists()
    assert lines


def test_what_fails_is_written_where_the_service_looks(tmp_path):
    ml, source = tmp_path / "ml", tmp_path / "source"
    source.mkdir()
    (source / "requirements.txt").write_text("beta==2.0 --hash=sha256:" + "0" * 64 + "\n")
    pack_source(source, ml / "input" / "data" / "code")
    (ml / "input" / "data" / "wheelhouse").mkdir()
    program = (
        "import sys; from pathlib import Path; from llm_engineering.sagemaker.start import main; "
        "main(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ml)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    failure = (ml / "output" / "failure").read_text()
    assert failure.startswith("the job's packages cannot be installed from sagemaker.packages.")
    assert "beta==2.0" in failure


def test_what_was_built_against_a_replaced_package_is_told(tmp_path, monkeypatch, capsys):
    info = tmp_path / "older-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: older\nVersion: 1.0\nRequires-Dist: packaging<1\n"
        "Requires-Dist: packaging>99; extra == 'other'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import packaging

    start.tell_changes({"packaging": "0.9"}, {"packaging": packaging.__version__})
    out = capsys.readouterr().out
    assert f"replaced in the image: packaging 0.9 -> {packaging.__version__}" in out
    assert f"no longer fits: older 1.0 wants packaging<1, has {packaging.__version__}" in out
    assert out.count("older 1.0") == 1
