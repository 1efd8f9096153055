"""A run's name, a dry run, what is asked of a host that does not train, what is named after a run."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from llm_engineering.commands import finetune
from llm_engineering.commands.finetune import _check_elsewhere, _free_name
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import ConfigError
from llm_engineering.registry.decision import Decision


@pytest.fixture
def runs(monkeypatch):
    """Names that ZenML has runs of."""
    import zenml.client

    taken = set()

    class Client:
        def list_pipeline_runs(self, *, name, size):
            return SimpleNamespace(total=int(name in taken))

    monkeypatch.setattr(zenml.client, "Client", Client)
    return taken


def test_a_free_name_stays(runs, tmp_path, capsys):
    assert _free_name("mine", tmp_path, numbered=True, is_job=True) == "mine"
    assert capsys.readouterr().err == ""


def test_a_taken_one_gets_a_number_where_a_job_may_be_followed(runs, tmp_path, capsys):
    runs |= {"mine", "mine-2"}
    (tmp_path / "mine-3").mkdir()
    assert _free_name("mine", tmp_path, numbered=True, is_job=True) == "mine-4"
    assert "this one is mine-4" in capsys.readouterr().err


def test_a_taken_one_is_refused_for_a_local_run(runs, tmp_path):
    runs.add("mine")
    with pytest.raises(ConfigError, match="ZenML has a run mine already"):
        _free_name("mine", tmp_path, numbered=False, is_job=False)


def test_runs_that_begin_in_one_second_get_numbers_without_a_word(runs, tmp_path, capsys):
    runs.add("qa-20261130-030000")
    (tmp_path / ".work" / "qa-20261130-030000-2").mkdir(parents=True)
    free = _free_name("qa-20261130-030000", tmp_path, numbered=True, is_job=False)
    assert free == "qa-20261130-030000-3"
    assert capsys.readouterr().err == ""


def test_where_another_host_trains_its_gpus_share_a_step_and_this_ones_cannot_be_asked_for(
    make_config,
):
    asked = {"zenml": {"resources": {"gpu_count": 2}}, "train.gradient_accumulation": 2}
    _check_elsewhere(make_config({**asked, "train.optimizer": "adamw_8bit"}), "auto")
    with pytest.raises(ConfigError, match=r"--gpus 2 .* as zenml\.resources\.gpu_count says"):
        _check_elsewhere(make_config(asked), "2")
    with pytest.raises(ConfigError, match="4 rows a step cannot be shared by 3 GPUs"):
        _check_elsewhere(make_config({**asked, "zenml": {"resources": {"gpu_count": 3}}}), "auto")


def test_a_plan_ends_with_what_differs_from_the_defaults(make_config, tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(make_config({"lora.r": 4})), encoding="utf-8")

    finetune.run(path, [], dry_run=True)
    short = capsys.readouterr().out
    finetune.run(path, [], dry_run=True, verbose=True)
    long = capsys.readouterr().out

    told = yaml.safe_load(
        short.partition("what differs from the defaults (-v: all of it)\n")[2].split("\n\ndry run")[
            0
        ]
    )
    assert told["lora"]["r"] == 4
    assert "bias" not in told["lora"]
    assert short.index("# objective") < short.index("what differs from the defaults")
    assert (
        yaml.safe_load(long.split(", resolved\n")[1].split("\n\ndry run")[0])["lora"]["bias"]
        == "none"
    )


@pytest.mark.parametrize("promoted", [True, False])
def test_the_next_commands_are_ones_that_there_are(make_config, promoted):
    config = make_config()
    clock = finetune._by_the_clock(Path("my config.yaml"), ["lora.r=4", "run.name=run-1"])
    decision = Decision(
        model="m", version="run-1", promoted=promoted, reason="so", production="run-0"
    )
    commands = finetune._next_commands(config, "run-1", clock, decision)
    assert len(commands) == 3
    assert f"--chat {config.run.output_dir}/run-1" in commands[0]
    asked = (
        "tools/run.py --finetune --config 'my config.yaml' --set lora.r=4 --schedule '0 3 * * 1'"
    )
    assert commands[2].endswith(asked) == promoted
    output = config.run.output_dir
    assert commands[2].endswith(f"--compare {output}/run-0 {output}/run-1") != promoted
    help_text = (Path(finetune.ROOT) / "tools" / "run.py").read_text(encoding="utf-8")
    for flag in re.findall(r"--[a-z-]+", " ".join(commands)):
        assert f'"{flag}"' in help_text
