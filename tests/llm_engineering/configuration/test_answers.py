"""Tests of ``llm_engineering.configuration.answers``: how scorers are written, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.configuration.load import load_config, to_yaml
from llm_engineering.configuration.schema import json_schema
from llm_engineering.errors import ConfigError

CONFIG = """\
model: {id: models/tiny}
data: {sources: [{source: a.jsonl}], held_out: {source: b.jsonl}}
evaluate:
  answers:
    scorers:
      - SCORER
registry:
  checks: [CHECK]
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load a configuration with one scorer, and one check of the registry."""

    def go(scorer: Any, check: Any = "parity", *overrides: str) -> Any:
        text = CONFIG.replace("SCORER", json.dumps(scorer)).replace("CHECK", json.dumps(check))
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return go


def test_a_scorer_is_a_name_or_a_name_with_its_argument() -> None:
    settings = AnswersSettings.model_validate(
        {
            "scorers": [
                "exact",
                {"contains": None, "ignore_case": True},
                {"regex": r"^\d+$", "name": "number"},
                {"json": {"type": "object"}},
                {"python": "my.scores:is_polite"},
                {"scorer": "rouge_l"},
            ]
        }
    )
    assert [(one.scorer, one.name) for one in settings.scorers] == [
        ("exact", "exact"),
        ("contains", "contains"),
        ("regex", "number"),
        ("json", "json"),
        ("python", "is_polite"),
        ("rouge_l", "rouge_l"),
    ]
    assert settings.scorers[1].ignore_case
    assert settings.rows == 16
    assert settings.temperature == 0


def test_what_is_dumped_is_read_back_equal(load: Any, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"required": ["name"]}')
    config = load({"json": str(schema)})
    assert config.evaluate.answers.scorers[0].json_schema == {"required": ["name"]}
    schema.unlink()  # what a job reads has the schema itself
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again).evaluate == config.evaluate


@pytest.mark.parametrize(
    ("scorer", "wrong"),
    [
        ("exactt", r"run.yaml:6: evaluate.answers.scorers.0.*'exact'.*'judge' \(got 'exactt'\)"),
        ({"rouge": None}, r"scorers.0: expected one scorer, of exact, .*\(got rouge\)"),
        ({"regex": "("}, r"scorers.0.*is not a regular expression: missing \).*\(got '\('\)"),
        ("regex", "scorers.0: regex needs its pattern"),
        ({"json": {"type": "strin"}}, "is not a JSON Schema: at type: 'strin'"),
        ({"json": "no/such.json"}, r"cannot read the JSON Schema no/such.json \(No such file"),
        ({"json": {"$ref": "http://a.example/b"}}, "points out of the schema, and nothing is"),
        ({"python": "my_scores"}, r"expected MODULE:FUNCTION.*\(got 'my_scores'\)"),
        ({"exact": 3}, r"exact takes no argument \(got 3\)"),
        ({"scorer": "exact", "pattern": "a"}, "pattern belongs to regex, not to exact"),
        ({"rouge_l": None, "ignore_case": True}, "ignore_case belongs to exact and contains"),
        ("judge", "scorers names judge, and no judge is configured"),
        ({"exact": None, "patern": "a"}, r"scorers.0.patern: unknown key; did you mean .*pattern"),
    ],
)
def test_a_wrong_scorer_is_refused_with_key_and_value(load: Any, scorer: Any, wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(scorer)
    message = str(refused.value)
    assert re.search(wrong, message), message
    assert "\n" not in message, "one mistake, one line"


def test_a_schema_file_that_is_not_json_is_refused(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"schema.json is not JSON: Expecting property name"):
        load({"json": str(path)})


@pytest.mark.parametrize(
    ("override", "wrong"),
    [
        ("evaluate.answers.top_p=0.9", r"temperature \(0\) is greedy"),
        ("evaluate.answers.scorers=[exact, exact]", "two are called exact"),
        ("evaluate.answers.scorers=[]", "at least 1 item"),
        ("evaluate.answers.rows=0", "greater than 0"),
        ("evaluate.answers.max_new_tokens=2048", "answers.max_new_tokens .2048. must be less"),
        ("evaluate.answers.judge={endpoint: 'http://a/v1', model: m}", "does not name it"),
    ],
)
def test_settings_that_do_not_go_together(load: Any, override: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        load("exact", "parity", override)


@pytest.mark.parametrize(
    ("judge", "wrong"),
    [
        ({"endpoint": "localhost:8000"}, "begins with http"),
        ({"endpoint": "https://me:secret@a.example/v1"}, "may hold a secret"),
        ({"endpoint": "https://a.example/v1?key=secret"}, "may hold a secret"),
        ({"key_variable": "sk-secret"}, "judge: key_variable is not the name of an environment"),
        ({"key_variable": "secret"}, "judge: key_variable is not the name of an environment"),
        ({"parameters": {"model": "x"}}, "model: this project sets it"),
        ({"api_key": "sk-secret"}, "unknown key"),
    ],
)
def test_a_wrong_judge_is_refused_without_its_secrets(
    judge: dict[str, Any], wrong: str, tmp_path: Path
) -> None:
    values = {"endpoint": "http://127.0.0.1:1/v1", "model": "m", **judge}
    path = tmp_path / "run.yaml"
    text = CONFIG.replace("SCORER", "judge\n    judge: " + json.dumps(values))
    path.write_text(text.replace("CHECK", "parity"))
    with pytest.raises(ConfigError, match=wrong) as refused:
        load_config(path)
    assert "secret" not in str(refused.value).replace("may hold a secret", "")


def test_a_check_names_a_score_that_is_measured(load: Any) -> None:
    assert load("exact", {"better_at": "exact"}).registry.scores == ["exact"]
    with pytest.raises(ConfigError, match=r"better_at: rouge_l, which .*\(measured: exact\)"):
        load("exact", {"better_at": "rouge_l"})
    with pytest.raises(ConfigError, match=r"registry.checks.0: .*'parity'.*\(got 'parrity'\)"):
        load("exact", "parrity")
    with pytest.raises(ConfigError, match=r"registry.checks.0.bettr_at: unknown key; did you mean"):
        load("exact", {"bettr_at": "exact"})


def test_how_answers_are_scored_is_not_measured_where_the_model_is(load: Any) -> None:
    one, other = load("exact"), load("rouge_l")
    assert one.evaluate.needing_the_model == other.evaluate.needing_the_model
    more = load("exact", "parity", "evaluate.answers.rows=17")
    assert more.evaluate.needing_the_model != one.evaluate.needing_the_model


@pytest.mark.parametrize(
    ("scorers", "is_right"),
    [
        (["exact", {"regex": "a", "name": "b"}, {"json": {"type": "object"}}, {"json": "a"}], True),
        (["json", {"contains": None, "ignore_case": True}, {"python": "a:b"}], True),
        ([{"scorer": "regex", "pattern": "a"}], True),
        (["regex"], False),
        (["exactt"], False),
        ([{"regexx": "a"}], False),
        ([], False),
    ],
)
def test_editors_know_both_ways_of_writing_a_scorer(scorers: list[Any], is_right: bool) -> None:
    from jsonschema import Draft202012Validator

    values = {
        "model": {"id": "a"},
        "data": {"sources": [{"source": "a"}], "held_out": {"source": "b"}},
        "evaluate": {"answers": {"scorers": scorers}},
        "registry": {"checks": ["parity", {"better_at": "exact"}]},
    }
    assert Draft202012Validator(json_schema()).is_valid(values) == is_right


def test_a_benchmark_that_may_be_forgotten_is_one_that_is_measured(load: Any) -> None:
    limits = "registry.max_forgetting={general_text: 0.1, sums: 0.2}"
    with pytest.raises(ConfigError, match=r"max_forgetting names sums, and evaluate.benchmarks"):
        load("exact", "parity", limits)
    registry = load("exact", "parity", limits, "evaluate.benchmarks=[sums.yaml]").registry
    assert (registry.most_forgotten_text, registry.most_forgotten_tasks) == (0.1, {"sums": 0.2})
    plain = load("exact", "parity", "registry.max_forgetting=0.3").registry
    assert (plain.most_forgotten_text, plain.most_forgotten_tasks) == (0.3, {})
    with pytest.raises(ConfigError, match=r"max_forgetting: .*greater than or equal to 0"):
        load("exact", "parity", "registry.max_forgetting=-1")
