"""What an instance costs an hour, by AWS's Price List, where the configuration does not say."""

from __future__ import annotations

import json
from typing import Any

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.aws import Aws

PRICE_LIST_REGION = "us-east-1"
"""One of the few in which the Price List API answers, for all regions."""


def with_list_prices(aws: Aws, settings: SagemakerSettings) -> SagemakerSettings:
    """The settings, with AWS's on-demand price of each instance type that has no configured one.

    Looking is optional: where it is not permitted (pricing:GetProducts), or the list has no such
    type, the settings stay as they are.
    """
    found = {
        name: price
        for name in settings.instance_types
        if name not in settings.price_per_hour and (price := list_price(aws, name)) is not None
    }
    return settings.model_copy(update={"price_per_hour": {**found, **settings.price_per_hour}})


def list_price(aws: Aws, instance_type: str, component: str = "Training") -> float | None:
    """USD an hour of one instance, on demand; None where the list does not tell.

    Args:
        aws: A session.
        instance_type: Such as ml.g5.2xlarge.
        component: "Training" or "Hosting".
    """
    from botocore.exceptions import BotoCoreError, ClientError

    asked = {"regionCode": aws.region, "instanceName": instance_type, "component": component}
    try:
        answer = aws.session.client("pricing", region_name=PRICE_LIST_REGION).get_products(
            ServiceCode="AmazonSageMaker",
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in asked.items()
            ],
        )
    except (ClientError, BotoCoreError):
        return None
    prices = {_hourly(json.loads(each)) for each in answer["PriceList"]} - {None, 0.0}
    return prices.pop() if len(prices) == 1 else None  # several: not ours to choose


def _hourly(product: dict[str, Any]) -> float | None:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if dimension["unit"] == "Hrs":
                return float(dimension["pricePerUnit"]["USD"])
    return None
