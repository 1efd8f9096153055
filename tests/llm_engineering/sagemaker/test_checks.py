"""What is refused, and what is only warned of, before anything is paid for."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration import to_yaml
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError, SecretError
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.checks import check_account, check_locally, cost_ceiling, job_dtype

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


def test_a_type_without_a_gpu_is_refused():
    with pytest.raises(LaunchError, match=r"sagemaker\.instance_types: ml\.m5\.xlarge has no GPU"):
        local(config(instance_types=["ml.m5.xlarge"]))


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
    ],
)
def test_limits_are_checked_here(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


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
