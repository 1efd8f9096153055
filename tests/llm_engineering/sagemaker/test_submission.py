"""What is put into S3 for a job, and what a refusal says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from boto3.exceptions import S3UploadFailedError
from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker import submission as submitting
from llm_engineering.sagemaker.identity import JobIdentity
from llm_engineering.sagemaker.image import TrainingImage
from llm_engineering.sagemaker.submission import NameTakenError, Submission, folder_digest


class Production:
    """A production version that travels with the configuration."""

    def write(self, folder):
        folder.mkdir(parents=True)
        (folder / "adapter.txt").write_text("of production")


@pytest.fixture
def service():
    service = MemoryService()
    service.upload_file = lambda path, bucket, key, ExtraArgs=None: service.put(key)
    return service


@pytest.fixture
def make(service, tmp_path, monkeypatch):
    config = FinetuningConfig.model_validate(
        {
            "model": {"id": "owner/name"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge"],
                "role": "arn:aws:iam::123456789012:role/x",
                "bucket": "bucket",
                "region": "us-east-1",
                "prefix": "ft",
            },
        }
    )
    monkeypatch.setattr(submitting, "stage", lambda *args: SimpleNamespace(digest="s"))
    monkeypatch.setattr(submitting, "pack_source", lambda *args: tmp_path)
    monkeypatch.setattr(submitting, "upload_source", lambda *args: "s3://bucket/ft/code/s/")
    monkeypatch.setattr(Submission, "_check_memory", lambda self: None)
    data = tmp_path / "data"
    data.mkdir()
    (data / "summary.json").write_text("{}")
    made = []

    def make(production=None, run="run-1"):
        folder = tmp_path / f"staged-{len(made)}"
        made.append(folder)
        return Submission(
            aws=MemoryAws(config.sagemaker, service),
            config=config,
            settings=config.sagemaker,
            lora=SimpleNamespace(
                model=SimpleNamespace(
                    id="m", revision=None, digest="m", weight_digests={"model.safetensors": "w"}
                )
            ),
            dataset=SimpleNamespace(folder=data, summary=SimpleNamespace(digest="d")),
            run=run,
            folder=folder,
            identity=JobIdentity({"data": "1"}),
            configuration="c",
            image=TrainingImage("an/image"),
            production=production,
        )

    return make


def below(service, uri):
    return {k for k in service.objects if k.startswith(uri.removeprefix("s3://bucket/"))}


def test_an_earlier_jobs_production_version_is_not_found_by_a_later_one(service, make):
    """The configuration's folder was the same for both, and nothing in it was ever removed."""
    first, second = make(Production()), make()
    first.prepare()
    second.prepare()
    assert any("production" in key for key in below(service, first._inputs.config))
    assert not any("production" in key for key in below(service, second._inputs.config))


def test_the_same_inputs_are_put_in_the_same_place(service, make):
    first, second = make(), make()
    first.prepare()
    before = set(service.objects)
    second.prepare()
    assert set(service.objects) == before


def test_a_folders_digest_is_of_names_and_contents(tmp_path):
    def folder(name, files):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return folder_digest(tmp_path / name)

    assert folder("a", {"x": "1", "y/z": "2"}) == folder("b", {"y/z": "2", "x": "1"})
    assert folder("c", {"x": "1"}) != folder("d", {"x": "2"}) != folder("e", {"w": "2"})


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("AccessDenied", LaunchError, "allow s3:PutObject"),
        ("ExpiredToken", AwsUnavailableError, "credentials have expired"),
    ],
)
def test_inputs_that_s3_does_not_take_are_one_sentence(service, make, code, kind, says):
    def refuse(*args, **options):
        try:
            raise client_error(code, status=403)
        except Exception as error:
            raise S3UploadFailedError(str(error)) from error

    service.upload_file = refuse
    with pytest.raises(kind, match=says) as error:
        make().prepare()
    assert str(error.value).startswith("s3://bucket/ft: ")
    assert "othing was submitted" in str(error.value)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("ResourceInUse", NameTakenError, "is there already"),
        ("ResourceLimitExceeded", LaunchError, "Raise that quota in Service Quotas"),
        ("AccessDeniedException", LaunchError, r"AWS refuses it \(AccessDeniedException\)"),
        ("ThrottlingException", AwsUnavailableError, "it is not known whether it was submitted"),
    ],
)
def test_what_a_refusal_means(service, make, monkeypatch, code, kind, says):
    monkeypatch.setattr(Submission, "_request", lambda *args: {"TrainingJobName": "j"})
    service.always["create_training_job"] = client_error(code)
    with pytest.raises(kind, match=says):
        make().submit("j", ["ml.g5.2xlarge"], "j")


def test_the_converter_travels_where_a_gguf_is_exported(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "llm_engineering").mkdir(parents=True)
    (root / "llm_engineering" / "a.py").write_text("")
    converter = root / ".gguf-converter" / "convert_hf_to_gguf.py"
    (converter.parent / "conversion" / "__pycache__").mkdir(parents=True)
    for path in (converter, converter.parent / "conversion" / "llama.py"):
        path.write_text("# converts")
    (converter.parent / "conversion" / "__pycache__" / "x.pyc").write_bytes(b"\xff")
    (converter.parent / "quantiser").mkdir()
    (converter.parent / "quantiser" / "libllama.so").write_bytes(b"\xff")
    monkeypatch.setattr(submitting, "ROOT", root)
    monkeypatch.setattr(submitting, "CONVERTER", converter)
    monkeypatch.setattr(submitting, "requirements", lambda settings: "a==1\n")
    plain, exporting = (
        SimpleNamespace(export=SimpleNamespace(gguf=None)),
        SimpleNamespace(export=SimpleNamespace(gguf="f16")),
    )
    assert set(submitting.stage(plain, None, tmp_path / "plain").files) == {
        "llm_engineering/a.py",
        "requirements.txt",
    }
    assert set(submitting.stage(exporting, None, tmp_path / "exporting").files) == {
        ".gguf-converter/conversion/llama.py",
        ".gguf-converter/convert_hf_to_gguf.py",
        "llm_engineering/a.py",
        "requirements.txt",
    }
