"""What is refused, and what is only warned of, before anything is paid for."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration import to_yaml
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import ConfigError, LaunchError, SecretError, SetupError
from llm_engineering.export import gguf
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.checks import (
    check_account,
    check_locally,
    check_storage,
    cost_ceiling,
    job_dtype,
    types_with_quota,
)

CODEARTIFACT = "arn:aws:codeartifact:us-east-1:123456789012:repository/domain/repo"
ROLE = "arn:aws:iam::123456789012:role/FinetuningJobs"


def settings(**changes) -> SagemakerSettings:
    return SagemakerSettings.model_validate(
        {
            "instance_types": ["ml.g5.2xlarge"],
            "role": ROLE,
            "bucket": "finetuning-jobs",
            "region": "us-east-1",
            **changes,
        }
    )


def config(model=None, **changes) -> FinetuningConfig:
    return FinetuningConfig.model_validate(
        {
            "model": {"id": "owner/name", **(model or {})},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "sagemaker": settings(**changes).model_dump(),
        }
    )


def local(whole: FinetuningConfig) -> None:
    check_locally(whole, whole.sagemaker, to_yaml(whole))


# --- here ----------------------------------------------------------------------------------------


MLFLOW = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/team"


@pytest.mark.parametrize(
    ("trackers", "server", "message"),
    [
        (["wandb", "mlflow"], MLFLOW, r"train\.trackers: wandb cannot be logged to"),
        (["mlflow"], None, r"mlflow in a SageMaker job needs sagemaker\.mlflow"),
        ([], MLFLOW, r"sagemaker\.mlflow: nothing would be logged to it"),
    ],
)
def test_a_tracker_that_no_job_reaches_is_refused(trackers, server, message):
    whole = config(mlflow=server)
    train = whole.train.model_copy(update={"trackers": trackers})
    with pytest.raises(ConfigError, match=message):
        local(whole.model_copy(update={"train": train}))


def test_a_managed_mlflow_server_is_taken():
    whole = config(mlflow=MLFLOW)
    local(
        whole.model_copy(update={"train": whole.train.model_copy(update={"trackers": ["mlflow"]})})
    )
    with pytest.raises(ValueError, match="mlflow"):
        settings(mlflow="https://mlflow.example.com")
    with pytest.raises(ValueError, match="the job could not reach mlflow"):
        settings(
            mlflow=MLFLOW, network_isolation=True, packages={"wheelhouse": "s3://models/wheels"}
        )


def test_a_model_that_no_container_serves_is_not_to_be_registered():
    package = {"group": "finetuned", "image": "an/image"}
    local(config(model_package=package))
    whole = config(model_package=package)
    lora = whole.lora.model_copy(update={"use_dora": True})
    with pytest.raises(LaunchError, match=r"sagemaker\.model_package: vLLM takes no DoRA adapter"):
        local(whole.model_copy(update={"lora": lora}))


def test_a_type_without_a_gpu_is_refused():
    with pytest.raises(LaunchError, match=r"sagemaker\.instance_types: ml\.m5\.xlarge has no GPU"):
        local(config(instance_types=["ml.m5.xlarge"]))


@pytest.mark.parametrize(("instance", "has"), [("ml.g5.xlarge", False), ("ml.g6.xlarge", True)])
def test_fp8_on_a_gpu_that_has_none_is_refused(instance, has):
    asked = config(model={"quantisation": "fp8"}, instance_types=[instance])
    if has:
        return local(asked)
    with pytest.raises(
        LaunchError, match=r"ml\.g5\.xlarge \(A10G\) has no FP8; choose one with L4, "
    ):
        local(asked)


def test_bfloat16_on_a_gpu_that_has_none_is_refused():
    with pytest.raises(LaunchError, match=r"ml\.g4dn\.xlarge \(T4\) has no bfloat16"):
        local(config(model={"dtype": "bfloat16"}, instance_types=["ml.g4dn.xlarge"]))


def test_a_gpu_that_the_pinned_image_does_not_support_is_refused():
    with pytest.raises(LaunchError, match=r"ml\.p3\.2xlarge .* is not supported by CUDA 13"):
        local(config(instance_types=["ml.p3.2xlarge"]))
    local(config(instance_types=["ml.p3.2xlarge"], image="an/older:image"))


@pytest.mark.parametrize(
    ("types", "dtype", "expected"),
    [
        (["ml.g5.2xlarge"], "auto", "bfloat16"),
        (["ml.g5.2xlarge", "ml.g4dn.xlarge"], "auto", "float16"),
        (["ml.g5.2xlarge"], "float32", "float32"),
    ],
)
def test_the_jobs_dtype_is_one_that_all_its_types_have(types, dtype, expected):
    whole = config(model={"dtype": dtype}, instance_types=types)
    assert job_dtype(whole, whole.sagemaker) == expected


def test_a_secret_in_the_environment_or_the_configuration_is_refused():
    token = "hf_" + "aBcDeFgHiJ" * 3 + "kLmN"
    with pytest.raises(SecretError) as error:
        local(config(environment={"HF_TOKEN": token}))
    assert token not in str(error.value)
    with pytest.raises(SecretError):
        local(config(model={"id": f"https://user:{token}@host/x"}))
    local(config(secrets={"HF_TOKEN": "prod/hub-token"}))


def test_a_token_in_pips_index_is_refused_with_what_to_do_instead():
    url = "https://user:" + "s3cr3tT0k3nV4lu3" + "@pypi.example.com/simple"
    with pytest.raises(SecretError, match=r"sagemaker\.packages\.codeartifact"):
        local(config(environment={"PIP_INDEX_URL": url}))
    with pytest.raises(SecretError) as error:
        local(config(environment={"OTHER_URL": url}))
    assert "codeartifact" not in str(error.value)


def test_gguf_without_a_converter_to_travel_is_refused_before_anything_is_paid_for(
    tmp_path, monkeypatch
):
    export = {"merged_16bit": True, "gguf": "q8_0"}
    whole = config().model_copy(update={"export": config().export.model_copy(update=export)})
    monkeypatch.setattr(gguf, "CONVERTER", tmp_path / "convert_hf_to_gguf.py")
    with pytest.raises(SetupError, match=r"export\.gguf: llama\.cpp's converter is not here"):
        local(whole)
    gguf.CONVERTER.touch()
    local(whole)
    export["gguf"] = "q4_k_m"
    whole = config().model_copy(update={"export": config().export.model_copy(update=export)})
    with pytest.raises(LaunchError, match=r"q4_k_m: llama\.cpp's quantiser does not travel"):
        local(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"volume_gb": 2000}, r"volume_gb: 2000, but ml\.g5\.2xlarge has a local store of 450 GB"),
        ({"volume_gb": 450}, None),
        ({"volume_gb": 2000, "instance_types": ["ml.p3.2xlarge"], "image": "an/older:image"}, None),
        (
            {"volume_gb": 150, "instance_types": ["ml.g5.2xlarge", "ml.g4dn.xlarge"]},
            r"volume_gb: 150, but ml\.g4dn\.xlarge has a local store of 125 GB",
        ),
    ],
)
def test_a_volume_larger_than_the_local_store_is_refused(changes, message):
    if message is None:
        local(config(**changes))
        return
    with pytest.raises(LaunchError, match=message):
        local(config(**changes))


def test_a_disk_too_small_for_weights_and_merged_model_is_refused():
    small = settings(instance_types=["ml.g4dn.xlarge"])
    billion = 10**9
    assert check_storage(8 * billion, small, merged=True) == [
        "ml.g4dn.xlarge: about 48.0 of 125 GB of storage"
    ]
    with pytest.raises(
        LaunchError, match=r"has 125 GB of storage, the job needs about 192 GB with"
    ):
        check_storage(32 * billion, small, merged=True)
    check_storage(32 * billion, small, merged=False)
    with pytest.raises(LaunchError, match=r"raise sagemaker\.volume_gb"):
        check_storage(32 * billion, settings(instance_types=["ml.p3.2xlarge"]), merged=True)


def test_isolation_without_packages_model_or_secrets_is_refused():
    wheels = {"packages": {"wheelhouse": "s3://bucket/wheels"}, "network_isolation": True}
    with pytest.raises(ValueError, match=r"network_isolation: the job could install nothing"):
        settings(network_isolation=True)
    with pytest.raises(ValueError, match=r"could not read secrets \(HF_TOKEN\)"):
        settings(**wheels, secrets={"HF_TOKEN": "hub"})
    with pytest.raises(LaunchError, match=r"could not fetch owner/name from the Hub"):
        local(config(**wheels))
    local(config(**wheels, base_model="s3://bucket/model"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"price_per_hour": {"ml.g5.2xlarge": 1.5}, "max_run_seconds": 7200}, 3.0),
        (
            {
                "price_per_hour": {"ml.g5.2xlarge": 1.5, "ml.g6.2xlarge": 4.0},
                "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
                "max_run_seconds": 3600,
                "warm_pool_seconds": 1800,
            },
            6.0,
        ),
        (
            {
                "price_per_hour": {"ml.g5.2xlarge": 1.5},
                "max_run_seconds": 7200,
                "instance_count": 4,
            },
            12.0,
        ),
        (
            {
                "price_per_hour": {"ml.g5.2xlarge": 1.5},
                "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
            },
            None,
        ),
    ],
)
def test_cost_ceiling(changes, expected):
    assert cost_ceiling(settings(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spot": {"enabled": True}}, "spot.max_wait_seconds is required with spot.enabled"),
        (
            {"spot": {"enabled": True, "max_wait_seconds": 10}, "max_run_seconds": 20},
            r"spot.max_wait_seconds \(10\) must be at least max_run_seconds \(20\)",
        ),
        (
            {"spot": {"enabled": True, "max_wait_seconds": 90000}, "warm_pool_seconds": 60},
            "spot.enabled and warm_pool_seconds exclude each other",
        ),
        ({"instance_types": ["ml.g5.xlarge"] * 2}, "instance_types names ml.g5.xlarge twice"),
        ({"instance_types": [f"ml.g5.{n}xlarge" for n in range(6)]}, "at most 5 items"),
        ({"role": "arn:aws:iam::12:role/x"}, "should match pattern"),
        ({"bucket": "Upper_Case"}, "should match pattern"),
        ({"warm_pool_seconds": 21_601}, "less than or equal to 21600"),
        ({"environment": {"A": "x" * 513}}, "at most 512 characters"),
        ({"max_run_seconds": 0}, "greater than 0"),
        ({"prefix": "team//ft"}, r"'team//ft' has an empty part"),
        ({"prefix": "team/../ft"}, "has an empty part or a '.'"),
        ({"pending_timeout_seconds": 7_199}, "greater than or equal to 7200"),
        ({"internal_retries": 31}, "less than or equal to 30"),
        ({"kms_key": "not a key"}, "should match pattern"),
        (
            {"packages": {"wheelhouse": "s3://b-b/w", "codeartifact": CODEARTIFACT}},
            "codeartifact and wheelhouse exclude each other",
        ),
        ({"packages": {"wheelhouse": "s3://bucket//w"}}, "should match pattern"),
        ({"base_model": "bucket/model"}, "should match pattern"),
    ],
)
def test_limits_are_checked_here(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize("prefix", ["team/ft", "team/ft/", "team/ft//"])
def test_a_slash_at_the_prefixs_end_is_dropped(prefix):
    assert settings(prefix=prefix).prefix == "team/ft"


def test_spot_without_checkpoints_is_refused():
    with pytest.raises(ValueError, match=r"sagemaker\.spot\.enabled needs checkpoints"):
        FinetuningConfig.model_validate(
            {
                **config(spot={"enabled": True, "max_wait_seconds": 90000}).model_dump(),
                "train": {"checkpoint_every": None},
            }
        )


# --- asked of AWS --------------------------------------------------------------------------------


@pytest.fixture
def check(sagemaker_service):
    # Roles and buckets of other names are looked at too.
    sagemaker_service.set_policies()

    def run(**changes):
        chosen = settings(**changes)
        return check_account(Aws(chosen), chosen)

    return run


def test_a_sound_account_gives_no_warning(check):
    assert check() == []


def test_a_missing_bucket(check):
    with pytest.raises(LaunchError, match=r"sagemaker\.bucket: there is no bucket not-there"):
        check(bucket="not-there")


def test_a_bucket_in_another_region(check, sagemaker_service):
    sagemaker_service.client("s3").create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    with pytest.raises(
        LaunchError, match=r"far-away is in eu-west-1, the job would run in us-east-1"
    ):
        check(bucket="far-away")


def test_a_missing_role(check):
    with pytest.raises(LaunchError, match=r"sagemaker\.role: there is no role Nobody"):
        check(role="arn:aws:iam::123456789012:role/Nobody")


def test_a_role_that_does_not_trust_the_service(check, sagemaker_service):
    trust = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
        '"Principal": {"Service": "ec2.amazonaws.com"}}]}'
    )
    sagemaker_service.client("iam").create_role(RoleName="Other", AssumeRolePolicyDocument=trust)
    with pytest.raises(LaunchError, match=r"Other does not trust sagemaker\.amazonaws\.com"):
        check(role="arn:aws:iam::123456789012:role/Other")


@pytest.mark.parametrize(
    ("changes", "quota"),
    [
        ({}, "ml.g5.2xlarge for training job usage"),
        (
            {"spot": {"enabled": True, "max_wait_seconds": 90000}},
            "ml.g5.2xlarge for spot training job usage",
        ),
        ({"warm_pool_seconds": 60}, "ml.g5.2xlarge for training warm pool usage"),
    ],
)
def test_the_quota_of_this_use_is_named_when_it_is_zero(check, sagemaker_service, changes, quota):
    sagemaker_service.set_faults(quotas={quota: 0})
    with pytest.raises(LaunchError, match=f"the quota '{quota}' is 0 in us-east-1"):
        check(**changes)
    sagemaker_service.set_faults(quotas={quota: 1})
    assert check(**changes) == []


def test_a_quota_that_was_never_raised_counts_by_its_default(check, sagemaker_service):
    name = "ml.g5.2xlarge for training job usage"
    sagemaker_service.set_faults(default_quotas={name: 0})
    with pytest.raises(LaunchError, match=f"the quota '{name}' is 0 in us-east-1"):
        check()
    sagemaker_service.set_faults(default_quotas={name: 0}, quotas={name: 1})  # raised
    assert check() == []


def test_the_quota_must_be_that_of_all_instances(check, sagemaker_service):
    name = "ml.g5.2xlarge for training job usage"
    sagemaker_service.set_faults(quotas={name: 1})
    assert check(instance_count=1) == []
    with pytest.raises(LaunchError, match="is 1 in us-east-1; ask for at least 2"):
        check(instance_count=2)


def test_a_spare_type_without_quota_is_left_out_and_told(check, sagemaker_service):
    types = ["ml.g6.2xlarge", "ml.g5.2xlarge", "ml.g5.4xlarge"]
    sagemaker_service.set_faults(quotas={"ml.g6.2xlarge for training job usage": 0})
    (warning,) = check(instance_types=types)
    assert warning == (
        "the quota 'ml.g6.2xlarge for training job usage' is 0 in us-east-1: trying only "
        "ml.g5.2xlarge, ml.g5.4xlarge"
    )
    chosen = settings(instance_types=types)
    assert types_with_quota(Aws(chosen), chosen)[0] == types[1:]


def test_a_quota_that_aws_does_not_list_is_told(check, sagemaker_service):
    name = "ml.g5.2xlarge for training job usage"
    sagemaker_service.set_faults(default_quotas={name: None})
    assert check() == [f"Service Quotas has no '{name}'; going on without that check"]


def test_the_shipped_policies_allow_every_check(sagemaker_service):
    chosen = settings()
    assert check_account(Aws(chosen), chosen) == []  # the fixture's own policies


def test_a_bucket_of_ireland_by_its_old_name(check, sagemaker_service):
    client = sagemaker_service.client("s3")
    client.create_bucket(Bucket="old", CreateBucketConfiguration={"LocationConstraint": "EU"})
    assert client.get_bucket_location(Bucket="old")["LocationConstraint"] == "EU"
    assert check(bucket="old", region="eu-west-1") == []


def test_a_role_of_another_account(check):
    with pytest.raises(LaunchError, match=r"is not of account 123456789012, in which you are"):
        check(role="arn:aws:iam::210987654321:role/FinetuningJobs")


def test_another_uses_quota_does_not_matter(check, sagemaker_service):
    sagemaker_service.set_faults(quotas={"ml.g5.2xlarge for spot training job usage": 0})
    assert check() == []


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("iam:GetRole", "role"),
        ("s3:HeadBucket", "bucket"),
        ("servicequotas:ListServiceQuotas", "quotas"),
    ],
)
def test_not_permitted_to_look_is_a_warning(check, sagemaker_service, action, what):
    sagemaker_service.set_faults(denied=[action])
    assert check() == [f"not permitted to look at the {what}; going on without that check"]


def test_no_credentials(check, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(LaunchError, match="AWS does not know who you are"):
        check()


def test_no_region(monkeypatch, sagemaker_service):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(LaunchError, match=r"sagemaker\.region: no region here"):
        Aws(settings(region=None))
