"""Prices come from AWS's list where the configuration has none and looking is permitted."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.checks import cost_ceiling
from llm_engineering.sagemaker.prices import with_list_prices


@pytest.fixture
def priced(sagemaker_service):
    def look(**changes):
        settings = SagemakerSettings.model_validate(
            {
                "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
                "role": sagemaker_service.role_arn,
                "bucket": sagemaker_service.bucket,
                "region": "us-east-1",
                "max_run_seconds": 3600,
                **changes,
            }
        )
        return with_list_prices(Aws(settings), settings)

    return look


def test_the_list_fills_what_is_not_configured(priced):
    settings = priced(price_per_hour={"ml.g6.2xlarge": 1.0})
    assert settings.price_per_hour == {"ml.g5.2xlarge": 1.515, "ml.g6.2xlarge": 1.0}
    assert cost_ceiling(settings) == 1.515


def test_a_type_that_the_list_does_not_have_stays_without_a_price(priced):
    settings = priced(instance_types=["ml.p5.48xlarge"])
    assert settings.price_per_hour == {}
    assert cost_ceiling(settings) is None


def test_not_permitted_or_out_of_reach_changes_nothing(priced, sagemaker_service):
    sagemaker_service.set_faults(denied=["pricing:GetProducts"])
    assert priced().price_per_hour == {}
    sagemaker_service.set_faults(dropped={"pricing:GetProducts": 99})
    assert priced().price_per_hour == {}


def test_a_launch_tells_costs_by_the_prices_that_it_found(sagemaker_service, capsys):
    from llm_engineering.commands.finetune import _check_aws

    config = FinetuningConfig.model_validate(
        {
            "model": {"id": "owner/name"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge"],
                "role": sagemaker_service.role_arn,
                "bucket": sagemaker_service.bucket,
                "region": "us-east-1",
                "max_run_seconds": 7200,
            },
        }
    )
    launched = _check_aws(config)
    assert "cost ceiling: 3.03 USD" in capsys.readouterr().out
    assert launched.sagemaker.price_per_hour == {"ml.g5.2xlarge": 1.515}
    assert launched.model_copy(update={"sagemaker": config.sagemaker}) == config
