"""A managed MLflow server: as much of MLflow's REST interface as its client uses to log a training.

Reached as AWS's plugin for the client reaches one, signed, the server's ARN in a header; the variable
SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT leads the plugin here.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from sagemaker_service.errors import ServiceError
from sagemaker_service.wire import ApiCall


class MlflowServer:
    """Experiments and their runs."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def clear(self) -> None:
        """Forget all."""
        self.experiments.clear()
        self.runs.clear()

    def answer(self, call: ApiCall) -> dict[str, Any]:
        """The answer to a call of the REST interface."""
        asked = call.query if call.query else json.loads(call.body or b"{}")
        match call.operation:
            case "GetExperimentByName":
                return {"experiment": self._experiment(asked["experiment_name"])}
            case "GetExperiment":
                return {"experiment": self._experiment(asked["experiment_id"])}
            case "CreateExperiment":
                name, number = asked["name"], str(len(self.experiments) + 1)
                self.experiments[name] = {
                    "experiment_id": number, "name": name, "lifecycle_stage": "active",
                    "artifact_location": f"s3://artifacts/{number}",
                }  # fmt: skip
                return {"experiment_id": number}
            case "CreateRun":
                return {"run": self._create_run(asked)}
            case "GetRun":
                return {"run": self.runs[asked["run_id"]]}
        run = self.runs[asked["run_id"]]
        data = run["data"]
        if call.operation == "UpdateRun":
            run["info"] |= {key: asked[key] for key in ("status", "end_time") if key in asked}
            return {"run_info": run["info"]}
        if call.operation == "LogBatch":
            for kind in ("metrics", "params", "tags"):
                data[kind] += asked.get(kind, [])
        else:
            kind = {"LogMetric": "metrics", "LogParam": "params", "SetTag": "tags"}[call.operation]
            data[kind].append(
                {key: asked[key] for key in asked if key not in ("run_id", "run_uuid")}
            )
        return {}

    def _experiment(self, name: str) -> dict[str, Any]:
        for each in self.experiments.values():
            if name in (each["name"], each["experiment_id"]):
                return each
        raise ServiceError("RESOURCE_DOES_NOT_EXIST", f"No experiment {name} exists.", 404)

    def _create_run(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = uuid.uuid4().hex
        info = {
            "run_id": number, "run_uuid": number, "run_name": asked.get("run_name", ""),
            "experiment_id": asked["experiment_id"], "user_id": "", "status": "RUNNING",
            "start_time": asked.get("start_time", 0), "lifecycle_stage": "active",
            "artifact_uri": f"s3://artifacts/{number}",
        }  # fmt: skip
        data = {"metrics": [], "params": [], "tags": list(asked.get("tags", []))}
        self.runs[number] = {"info": info, "data": data}
        return self.runs[number]
