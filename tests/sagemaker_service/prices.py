"""The Price List API's answer on SageMaker training instances, in the form of the real one."""

from __future__ import annotations

import json
from typing import Any

from sagemaker_service.wire import ApiCall

# Made up, and unlike the prices that tests configure.
USD_PER_HOUR = {"ml.g5.2xlarge": 1.515, "ml.g6.2xlarge": 1.2218}


def get_products(call: ApiCall) -> dict[str, Any]:
    """GetProducts: one product for a known instance type, none for another."""
    asked = {each["Field"]: each["Value"] for each in call.parameters.get("Filters", [])}
    instance_type = asked.get("instanceName", "")
    if instance_type not in USD_PER_HOUR or asked.get("component") not in ("Training", "Hosting"):
        return {"FormatVersion": "aws_v1", "PriceList": []}
    product = {
        "product": {
            "productFamily": "ML Instance",
            "attributes": {
                "instanceName": instance_type,
                "component": asked["component"],
                "regionCode": asked.get("regionCode", ""),
            },
        },
        "terms": {
            "OnDemand": {
                "A.B": {
                    "priceDimensions": {
                        "A.B.C": {
                            "unit": "Hrs",
                            "pricePerUnit": {"USD": f"{USD_PER_HOUR[instance_type]:.10f}"},
                        }
                    }
                }
            }
        },
    }
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]}
