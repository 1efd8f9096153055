"""Airflow calls a schedule of this project: copy this file into Airflow's dags folder.

First make the schedule itself known, which also writes down its configuration:

    tools/run.py --finetune --schedule "0 3 * * 1" --name weekly --config my.yaml

and let only Airflow call it, by taking its line out of the crontab (`crontab -e`) or by
`systemctl --user disable --now` of its timer. Skips, retries, resuming, logs, pruning and alerts are
the schedule's own; Airflow sees success or failure.
"""

import os
from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PROJECT = os.environ.get("FINETUNING_PROJECT", "/opt/llm-engineering-finetuning")
NAME = os.environ.get("FINETUNING_SCHEDULE", "weekly")

with DAG(
    dag_id=f"finetuning_{NAME}",
    schedule="0 3 * * 1",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
):
    BashOperator(
        task_id="run_scheduled",
        bash_command='exec "$PROJECT/.venv/bin/python" "$PROJECT/tools/run.py" --run-scheduled "$NAME"',
        env={"PROJECT": PROJECT, "NAME": NAME},
        append_env=True,
    )
