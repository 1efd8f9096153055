"""Configuration files and ``--set``: what they give, and the message for each way to get them wrong."""

from __future__ import annotations

import importlib.util
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration import FinetuningConfig, load_config, to_yaml
from llm_engineering.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
HANDBOOK_PROJECTIONS = {
    "q_proj",
    "k_proj",
    "v_proj",
    "up_proj",
    "down_proj",
    "o_proj",
    "gate_proj",
}

# Line 1 to 5 of every file below; what a test adds starts at line 6.
REQUIRED = """\
model:
  id: models/tiny
data:
  sources: [{source: rows.jsonl}]
  held_out: {fraction: 0.1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    """The message of the refusal, with the file's folder left out."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_file_with_the_required_keys_gets_the_documented_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, REQUIRED))

    assert config.model.id == "models/tiny"
    assert config.data.sources[0].source == "rows.jsonl"
    assert config.data.held_out.fraction == 0.1
    assert config.lora.r == 32
    assert config.lora.target_modules == "auto"
    assert config.train.optimizer == "adamw_torch"
    assert config.data.on_bad_rows == "error"
    assert config.run.output_dir == "outputs"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_resolved_configuration_reads_back_equal(path: Path, tmp_path: Path) -> None:
    config = load_config(path, ["run.name=first", "data.on_bad_rows=skip"])

    assert load_config(write(tmp_path, to_yaml(config, schedule=True))) == config


def test_how_to_tell_the_user_is_never_part_of_what_is_published(tmp_path: Path) -> None:
    """It may hold a secret: report, manifest, ZenML's parameters and a job's configuration are dumps."""
    private = "schedule.alert_command=[curl, https://hooks.example.com/private]"
    config = load_config(write(tmp_path, REQUIRED), [private])
    assert config.schedule.alert_command == ["curl", "https://hooks.example.com/private"]
    for text in (to_yaml(config), config.model_dump_json(), str(config.model_dump())):
        assert "hooks.example.com" not in text
        assert "alert_command" not in text


FILES = REQUIRED.replace("{fraction: 0.1}", "{source: held_out.jsonl}")
OWN = "data.sources.0.source=mine.jsonl"


def test_other_data_beside_the_files_held_out_rows_are_refused_with_two_ways_out(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, FILES)
    with pytest.raises(
        ConfigError, match=r"held-out rows are still those of .*held_out\.fraction=0\.1"
    ):
        load_config(path, [OWN])
    with pytest.raises(ConfigError, match="which may be of another task"):
        load_config(path, ["data.sources=[{source: mine.jsonl}]"])
    source = load_config(path).data.held_out.source
    assert load_config(path, [OWN, f"data.held_out.source={source}"]).data.held_out.source == source
    fraction = load_config(path, [OWN, "data.held_out.fraction=0.1"]).data.held_out
    assert (fraction.source, fraction.fraction) == (None, 0.1)
    load_config(path, ["data.sources.0.max_rows=5"])


def test_a_fraction_takes_the_place_of_the_files_source_and_back(tmp_path: Path) -> None:
    path = write(tmp_path, FILES)
    held_out = load_config(path, ["data.held_out.fraction=0.2", "data.held_out.group=author"]).data
    assert (held_out.held_out.source, held_out.held_out.fraction) == (None, 0.2)
    (tmp_path / "fraction.yaml").write_text(
        to_yaml(load_config(path, ["data.held_out.fraction=0.2"]))
    )
    back = load_config(tmp_path / "fraction.yaml", ["data.held_out.source=b.jsonl"]).data.held_out
    assert (back.source, back.fraction) == ("b.jsonl", None)
    both = ["data.held_out.source=b.jsonl", "data.held_out.fraction=0.2"]
    with pytest.raises(ConfigError, match="give exactly one of source and fraction"):
        load_config(path, both)


def test_a_resolved_configuration_states_every_key_in_the_schemas_order(tmp_path: Path) -> None:
    text = to_yaml(load_config(write(tmp_path, REQUIRED)), schedule=True)

    sections = [line.split(":")[0] for line in text.splitlines() if not line.startswith((" ", "-"))]
    assert sections == [
        "run",
        "model",
        "lora",
        "data",
        "train",
        "evaluate",
        "export",
        "registry",
        "schedule",
        "sagemaker",
        "zenml",
    ]
    assert "  keep_checkpoints: 2\n" in text
    assert "  revision: null\n" in text


def test_text_beyond_ascii_survives_the_round_trip(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, REQUIRED), ["data.sources.0.source=Größe/データ.jsonl"])

    text = to_yaml(config)

    assert "Größe/データ.jsonl" in text
    assert load_config(write(tmp_path, text)) == config


# --- the shipped files -------------------------------------------------------------------------


def test_both_configurations_are_shipped() -> None:
    names = {path.name for path in CONFIGS}
    assert {"finetuning.yaml", "finetuning_llama_3_1_8b.yaml"} <= names


@pytest.mark.parametrize("name", ["dpo", "finetuning", "finetuning_llama_3_1_8b"])
def test_a_shipped_file_has_the_handbooks_adapter(name: str) -> None:
    lora = load_config(ROOT / "configs" / f"{name}.yaml").lora

    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (32, 32, 0.0)
    assert len(lora.target_modules) == 7
    assert set(lora.target_modules) == HANDBOOK_PROJECTIONS
    assert (lora.use_rslora, lora.use_dora, lora.bias) == (False, False, "none")


def test_the_llama_file_is_the_handbooks_recipe() -> None:
    config = load_config(ROOT / "configs" / "finetuning_llama_3_1_8b.yaml")

    assert config.model.id == "meta-llama/Llama-3.1-8B"
    assert config.model.max_seq_length == 2048
    assert config.model.chat_template == "alpaca"
    assert [(source.source, source.max_rows) for source in config.data.sources] == [
        ("mlabonne/llmtwin", None),
        ("mlabonne/FineTome-Alpaca-100k", 10_000),
    ]
    assert config.data.held_out.fraction == 0.05
    assert config.data.held_out.source is None
    assert config.train.epochs == 3
    assert config.train.max_steps is None
    assert (config.train.rows_in_step, config.train.micro_batch) == (16, "auto")
    assert config.train.learning_rate == 3e-4
    assert config.train.optimizer == "adamw_8bit"
    assert config.train.lr_scheduler == "linear"
    assert config.train.warmup_steps == 10
    assert config.train.weight_decay == 0.01
    assert config.train.packing is True
    assert config.run.seed == 0


def test_the_default_file_needs_no_hub_and_no_gpu() -> None:
    config = load_config(ROOT / "configs" / "finetuning.yaml")

    assert config.model.id == "models/SmolLM2-135M-Instruct"
    assert config.train.max_steps is not None
    assert config.train.optimizer == "adamw_torch"
    assert config.train.packing is False
    assert config.model.load_in_4bit is False
    for source in (config.data.sources[0].source, config.data.held_out.source):
        assert (ROOT / str(source)).is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_command_in_a_files_header_runs_that_file(path: Path) -> None:
    header = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    commands = [line for line in header if line.startswith("poetry run")]
    assert len(commands) == 1
    poetry, run, python, script, *arguments = shlex.split(commands[0])
    assert (poetry, run, python) == ("poetry", "run", "python")

    parsed = parse_arguments(ROOT / script, arguments)

    assert parsed["finetune"] is True
    assert (ROOT / parsed["config_path"]).samefile(path)
    assert parsed["overrides"] == ()


def parse_arguments(script: Path, arguments: list[str]) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("run_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.main.make_context("run.py", arguments).params)


# --- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("train.learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("train.learning_rate=0.001", "train", "learning_rate", 1e-3),
        ("train.max_steps=12", "train", "max_steps", 12),
        ("train.checkpoint_every=null", "train", "checkpoint_every", None),
        ("train.checkpoint_every=", "train", "checkpoint_every", None),
        ("train.packing=true", "train", "packing", True),
        ("model.dtype=bfloat16", "model", "dtype", "bfloat16"),
        ("model.id=a=b", "model", "id", "a=b"),
        (" run.name =first", "run", "name", "first"),
        ("lora.target_modules=[q_proj, v_proj]", "lora", "target_modules", ["q_proj", "v_proj"]),
        ("lora.target_modules=all-linear", "lora", "target_modules", "all-linear"),
    ],
)
def test_an_override_replaces_one_key(
    override: str, section: str, name: str, value: Any, tmp_path: Path
) -> None:
    path = write(tmp_path, REQUIRED)
    expected = load_config(path).model_dump()
    expected[section][name] = value

    assert load_config(path, [override]) == FinetuningConfig.model_validate(expected)


def test_an_override_keeps_the_rest_of_its_section(tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED + "train:\n  max_steps: 20\n  warmup_steps: 3\n")

    train = load_config(path, ["train.warmup_steps=5"]).train

    assert (train.max_steps, train.warmup_steps) == (20, 5)


def test_the_last_of_several_overrides_wins(tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED)

    assert load_config(path, ["run.seed=1", "run.seed=2"]).run.seed == 2


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED + "lora:\n  target_modules: [q_proj, k_proj]\n")

    config = load_config(path, ["data.sources.0.max_rows=5", "lora.target_modules.1=v_proj"])

    assert config.data.sources[0].max_rows == 5
    assert config.data.sources[0].source == "rows.jsonl"
    assert config.lora.target_modules == ["q_proj", "v_proj"]


EXAMPLE = "for example --set train.learning_rate=1e-4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_steps", f"expected key=value with a dotted key, {EXAMPLE}"),
        ("", f"expected key=value with a dotted key, {EXAMPLE}"),
        ("=3", f"expected key=value with a dotted key, {EXAMPLE}"),
        ("train..max_steps=3", f"expected key=value with a dotted key, {EXAMPLE}"),
        ("train.learning_rate=[", "'[' is not a YAML value; quote it"),
        ("run.name=2026-13-45", "'2026-13-45' is not a YAML value; quote it"),
        (
            "data.sources.1.source=x",
            "'1' is not an index into a list of 1 (counted from 0)",
        ),
        ("data.sources.1=x", "'1' is not an index into a list of 1 (counted from 0)"),
        ("data.sources.-1=x", "'-1' is not an index into a list of 1 (counted from 0)"),
        ("data.sources.²=x", "'²' is not an index into a list of 1 (counted from 0)"),
        (
            "data.sources.first.source=x",
            "'first' is not an index into a list of 1 (counted from 0)",
        ),
        ("model.id.name=x", "model.id holds a value, not a section"),
        ("model.id.name.first=x", "model.id holds a value, not a section"),
        ("data.sources.0.source.x=1", "data.sources.0.source holds a value, not a section"),
        ("lora.target_modules.0.x=1", "lora.target_modules.0 holds a value, not a section"),
        ("lora.target_modules.0.x.y=1", "lora.target_modules.0 holds a value, not a section"),
    ],
)
def test_a_malformed_override_is_refused(override: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED + "lora: {target_modules: [q_proj]}\n")

    assert refusal(path, override) == f"--set {override}: {message}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_grad_norm=0", "train.max_grad_norm: input should be greater than 0 (got 0)"),
        (
            "train.learning_rate=5",
            "train.learning_rate: input should be less than 1 (got 5)\n"
            "--set train.learning_rate=5: train.learning_rate: input should be 'auto' (got 5)",
        ),
        (
            "train.max_steps=many",
            "train.max_steps: input should be a valid integer, unable to parse string as an "
            "integer (got 'many')",
        ),
        ("train.max_stepz=3", "train.max_stepz: unknown key; did you mean train.max_steps?"),
        ("trian.max_steps=3", "trian: unknown key; did you mean train?"),
        ("train=3", "train: expected a section with keys such as train.objective (got 3)"),
        (
            "data.sources.0=x",
            "data.sources.0: expected a section with keys such as data.sources.0.source (got 'x')",
        ),
        ("train={max_steps: 0}", "train.max_steps: input should be greater than 0 (got 0)"),
        (
            "data.sources.0.source=",
            "data.sources.0.source: input should be a valid string (got null)",
        ),
    ],
)
def test_a_wrong_value_is_blamed_on_the_override_that_gave_it(
    override: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, REQUIRED + "train: {max_steps: 20, learning_rate: 1e-4}\n")

    assert refusal(path, override) == f"--set {override}: {message}"


def test_a_section_built_by_an_override_is_blamed_on_it(tmp_path: Path) -> None:
    override = "lora.target_modules.0=q_proj"  # the file names no list to index

    assert refusal(write(tmp_path, REQUIRED), override) == (
        f"--set {override}: lora.target_modules: input should be a valid list\n"
        f"--set {override}: lora.target_modules: input should be 'auto' or 'all-linear'"
    )


# --- files that are no configuration -----------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == (
        "none.yaml: cannot read the configuration (No such file or directory); "
        "give --config a YAML file"
    )


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path.name}: cannot read the configuration (Is a directory); "
        "give --config a YAML file"
    )


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("model:\n  id: Größe\n".encode("latin-1"))

    assert refusal(path) == "latin.yaml: is not UTF-8 text (byte 15); save it as UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "\ufeff" + REQUIRED)).model.id == "models/tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.yaml: holds nothing, expected sections such as 'model:' and 'data:'"),
        ("# later\n", "config.yaml: holds nothing, expected sections such as 'model:' and 'data:'"),
        ("- a\n- b\n", "config.yaml: holds a list, expected sections such as 'model:' and 'data:'"),
        ("hello\n", "config.yaml: holds one value, expected sections such as 'model:' and 'data:'"),
        (
            "model:\n\tid: x\n",
            "config.yaml:2: is not valid YAML: while scanning for the next token, "
            r"found character '\t' that cannot start any token",
        ),
        (
            "model: {id: x\n",
            "config.yaml:2: is not valid YAML: while parsing a flow mapping, "
            "expected ',' or '}', but got '<stream end>'",
        ),
        (
            "model: {}\n---\ndata: {}\n",
            "config.yaml:2: is not valid YAML: expected a single document in the stream, "
            "but found another document",
        ),
        (
            "model:\n  id: \x07\n",
            "config.yaml:2: is not valid YAML: holds the control character #x0007; remove it",
        ),
        (
            "run:\n  name: !!python/object:os.system {}\n",
            "config.yaml:2: is not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'",
        ),
        (
            "run: {name: 2026-13-01}\n",
            "config.yaml: is not valid YAML: month must be in 1..12; quote the value",
        ),
        ("run: &a {b: *a}\n", "config.yaml: is not valid YAML: is nested too deeply"),
        ("model: {}\nrun: {}\nmodel: {}\n", "config.yaml:3: model is given twice; keep one"),
        (
            "train:\n  epochs: 1\n  max_steps: 3\n  epochs: 2\n",
            "config.yaml:4: train.epochs is given twice; keep one",
        ),
        (
            "data:\n  sources:\n    - source: a\n      source: b\n",
            "config.yaml:4: data.sources.0.source is given twice; keep one",
        ),
    ],
)
def test_a_file_that_is_no_configuration(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, text)) == message


# --- wrong keys and values ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("added", "line", "message"),
    [
        (
            "train:\n  max_stepz: 3",
            7,
            "train.max_stepz: unknown key; did you mean train.max_steps?",
        ),
        ("train:\n  seed: 1", 7, "train.seed: unknown key; did you mean run.seed?"),
        ("max_steps: 4", 6, "max_steps: unknown key; did you mean train.max_steps?"),
        ("trian:\n  epochs: 3", 6, "trian: unknown key; did you mean train?"),
        (
            "wandb: {}",
            6,
            "wandb: unknown key; known here: run, model, lora, data, train, evaluate, export, registry, schedule, sagemaker, zenml",
        ),
        (
            "evaluate:\n  metric: bleu",
            7,
            "evaluate.metric: unknown key; known here: batch_size, samples, samples_every, max_new_tokens, generic_passages, parity_rows, answers, benchmarks, benchmark_limit",
        ),
        ("train: 3", 6, "train: expected a section with keys such as train.objective (got 3)"),
        ("train:", 6, "train: expected a section with keys such as train.objective (got null)"),
        ("lora: [r]", 6, "lora: expected a section with keys such as lora.r"),
        (
            "train:\n  epochs: 3\n  max_steps: 2.5",
            8,
            "train.max_steps: input should be a valid integer, got a number with a fractional "
            "part (got 2.5)",
        ),
        (
            "train:\n  packing: maybe",
            7,
            "train.packing: input should be a valid boolean, unable to interpret input "
            "(got 'maybe')",
        ),
        ("run:\n  name: 3", 7, "run.name: input should be a valid string (got 3)"),
        (
            "run:\n  name: a run",
            7,
            "run.name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' "
            "(got 'a run')",
        ),
        (
            "run:\n  name: ../up",
            7,
            "run.name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' "
            "(got '../up')",
        ),
        ("lora:\n  r: 0", 7, "lora.r: input should be greater than 0 (got 0)"),
        ("lora:\n  lora_dropout: 1", 7, "lora.lora_dropout: input should be less than 1 (got 1)"),
        (
            "train:\n  warmup_steps: -1",
            7,
            "train.warmup_steps: input should be greater than or equal to 0 (got -1)",
        ),
        ("train:\n  epochs: .inf", 7, "train.epochs: input should be a finite number (got inf)"),
        (
            "run:\n  seed: 4294967296",
            7,
            "run.seed: input should be less than 4294967296 (got 4294967296)",
        ),
        (
            "train:\n  lr_scheduler: sgd",
            7,
            "train.lr_scheduler: input should be 'linear', 'cosine', 'constant' or "
            "'constant_with_warmup' (got 'sgd')",
        ),
        (
            "train:\n  optimizer: sgd",
            7,
            "train.optimizer: input should be 'adamw_torch', 'adamw_8bit' or 'paged_adamw_8bit' "
            "(got 'sgd')",
        ),
        (
            "lora:\n  target_modules: []",
            7,
            "lora.target_modules: is empty: name at least one projection, or say all-linear",
        ),
        (
            "lora:\n  target_modules: [k_proj, q_proj, v_proj, q_proj, k_proj]",
            7,
            "lora.target_modules: names k_proj, q_proj twice",
        ),
        ("1: a", 1, "1: keys should be strings (got 1)"),
    ],
)
def test_a_wrong_key_or_value(added: str, line: int, message: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, f"{REQUIRED}{added}\n")) == f"config.yaml:{line}: {message}"


def test_a_target_that_is_no_list_and_not_all_linear(tmp_path: Path) -> None:
    text = f"{REQUIRED}lora:\n  target_modules: q_proj\n"

    assert refusal(write(tmp_path, text)) == (
        "config.yaml:7: lora.target_modules: input should be a valid list (got 'q_proj')\n"
        "config.yaml:7: lora.target_modules: input should be 'auto' or 'all-linear' (got 'q_proj')"
    )


def test_an_item_of_a_list_is_named_by_its_own_line(tmp_path: Path) -> None:
    text = f"{REQUIRED}lora:\n  target_modules:\n    - q_proj\n    - 3\n"

    assert refusal(write(tmp_path, text)) == (
        "config.yaml:9: lora.target_modules.1: input should be a valid string (got 3)\n"
        "config.yaml:7: lora.target_modules: input should be 'auto' or 'all-linear'"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model:\n  id: models/tiny\n", "", "config.yaml:1: model: is required; add it"),
        ("  id: models/tiny", "  dtype: auto", "config.yaml:1: model.id: is required; add it"),
        (
            "  held_out: {fraction: 0.1}\n",
            "",
            "config.yaml:3: data.held_out: is required; add it",
        ),
        (
            "[{source: rows.jsonl}]",
            "[]",
            "config.yaml:4: data.sources: list should have at least 1 item after validation, not 0",
        ),
        (
            "[{source: rows.jsonl}]",
            "[{source: ''}]",
            "config.yaml:4: data.sources.0.source: string should have at least 1 character (got '')",
        ),
        (
            "[{source: rows.jsonl}]",
            "[{source: a.jsonl, max_row: 3}]",
            "config.yaml:4: data.sources.0.max_row: unknown key; "
            "did you mean data.sources.0.max_rows?",
        ),
        (
            "{fraction: 0.1}",
            "{fraction: 0.1, source: held_out.jsonl}",
            "config.yaml:5: data.held_out: give exactly one of source and fraction",
        ),
        (
            "{fraction: 0.1}",
            "{max_rows: 3}",
            "config.yaml:5: data.held_out: give exactly one of source and fraction",
        ),
        (
            "{fraction: 0.1}",
            "{fraction: 1.0}",
            "config.yaml:5: data.held_out.fraction: input should be less than 1 (got 1.0)",
        ),
        (
            "  id: models/tiny",
            "  id: models/tiny\n  dtype: int8",
            "config.yaml:3: model.dtype: input should be 'auto', 'float32', 'bfloat16' or "
            "'float16' (got 'int8')",
        ),
        (
            "  id: models/tiny",
            "  id: models/tiny\n  max_seq_length: 15",
            "config.yaml:3: model.max_seq_length: input should be greater than or equal to 16 "
            "(got 15)",
        ),
    ],
)
def test_a_required_section_with_a_mistake(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in REQUIRED

    assert refusal(write(tmp_path, REQUIRED.replace(old, new))) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.max_steps=10"],
            "train.warmup_steps (10) must be less than train.max_steps (10): "
            "the learning rate would never peak",
        ),
        (
            ["model.load_in_4bit=true", "model.dtype=float32"],
            "model.quantisation: nf4 computes in 16 bit: set model.dtype to auto, bfloat16 or "
            "float16, not float32",
        ),
        (
            ["model.quantisation=fp8", "model.dtype=float16"],
            "model.quantisation: fp8 computes in bfloat16: set model.dtype to auto or bfloat16, not "
            "float16",
        ),
        (
            ["model.quantisation=fp8", "lora.use_dora=true"],
            "model.quantisation: fp8 with lora.use_dora, whose magnitudes are those of the 16-bit "
            "weights; drop one of the two",
        ),
        (
            ["model.max_seq_length=64"],
            "evaluate.max_new_tokens (64) must be less than model.max_seq_length (64)",
        ),
        (
            ["evaluate.parity_rows=0"],
            "registry.checks names parity, which evaluate.parity_rows (0) leaves unmeasured: "
            "raise that, or take the check off the list",
        ),
        (
            ["evaluate.generic_passages=0"],
            "registry.checks names forgetting, which evaluate.generic_passages (0) leaves "
            "unmeasured: raise that, or take the check off the list",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path, REQUIRED), *overrides) == f"config.yaml:1: {message}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.max_steps=11"],
        ["model.load_in_4bit=true", "model.dtype=bfloat16"],
        ["model.max_seq_length=65"],
        ["evaluate.parity_rows=0", "registry.checks=[forgetting]"],
        ["export.merged_16bit=true", "export.hub_merged_repo=a/b", "export.hub_repo=a/c"],
    ],
)
def test_settings_on_the_right_side_of_each_limit(overrides: list[str], tmp_path: Path) -> None:
    load_config(write(tmp_path, REQUIRED), overrides)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    text = textwrap.dedent("""\
        model:
          id: models/tiny
          dtype: int8
        data:
          sources: []
        train:
          max_stepz: 3
        """)

    assert refusal(write(tmp_path, text), "lora.r=0").splitlines() == [
        "config.yaml:3: model.dtype: input should be 'auto', 'float32', 'bfloat16' or 'float16' "
        "(got 'int8')",
        "--set lora.r=0: lora.r: input should be greater than 0 (got 0)",
        "config.yaml:5: data.sources: list should have at least 1 item after validation, not 0",
        "config.yaml:4: data.held_out: is required; add it",
        "config.yaml:7: train.max_stepz: unknown key; did you mean train.max_steps?",
    ]


def test_a_refusal_exits_with_its_own_code() -> None:
    assert ConfigError.exit_code == 2


# --- a source in place of the configured ones --------------------------------------------------


def test_a_given_source_takes_the_place_of_the_configured_data(tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED.replace("fraction: 0.1", "source: other.jsonl, max_rows: 64"))

    own = load_config(path, ["data.sources.0.form=messages"], "own.jsonl")
    both = load_config(path, ["data.held_out.source=b.jsonl"], "own.jsonl")
    more = load_config(path, ["data.held_out.fraction=0.3", "data.held_out.group=author"], "own")

    assert (own.data.sources[0].source, own.data.sources[0].form) == ("own.jsonl", "messages")
    assert (own.data.held_out.source, own.data.held_out.fraction) == (None, 0.1)
    assert own.data.held_out.max_rows is None
    assert (both.data.held_out.source, both.data.held_out.fraction) == ("b.jsonl", None)
    assert (more.data.held_out.fraction, more.data.held_out.group) == (0.3, "author")


def test_what_is_wrong_with_a_given_source_is_told_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, REQUIRED)

    with pytest.raises(ConfigError) as caught:
        load_config(path, ["data.sources.0.form=vicuna"], "own.jsonl")
    assert str(caught.value).startswith("--set data.sources.0.form=vicuna: data.sources.0.form: ")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [], "")
    assert str(caught.value).startswith("the source '': data.sources.0.source: string should have ")


@pytest.mark.parametrize(
    ("overrides", "quantisation"),
    [
        ([], "none"),
        (["model.load_in_4bit=true"], "nf4"),
        (["model.load_in_4bit=false"], "none"),
        (["model.load_in_4bit=true", "model.quantisation=nf4"], "nf4"),
        (["model.load_in_4bit=false", "model.quantisation=fp8"], "fp8"),
        (["model.quantisation=fp8"], "fp8"),
    ],
)
def test_the_old_name_of_nf4_is_read(
    overrides: list[str], quantisation: str, tmp_path: Path
) -> None:
    model = load_config(write(tmp_path, REQUIRED), overrides).model
    assert (model.quantisation, model.load_in_4bit) == (quantisation, quantisation == "nf4")


@pytest.mark.parametrize(
    ("old", "new"), [("true", "fp8"), ("true", "none"), ("false", "nf4"), ("maybe", "nf4")]
)
def test_the_old_name_may_not_contradict_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    overrides = [f"model.load_in_4bit={old}", f"model.quantisation={new}"]
    said = refusal(write(tmp_path, REQUIRED), *overrides)
    assert "load_in_4bit" in said
    assert (f"quantisation is {new}; drop load_in_4bit" in said) is (old != "maybe")
