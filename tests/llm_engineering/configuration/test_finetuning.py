"""The whole configuration: every key is explained and has a range, and the sections agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from llm_engineering.configuration.finetuning import FinetuningConfig

SECTIONS = {
    "zenml",
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
}
REQUIRED: dict[str, Any] = {
    "model": {"id": "models/tiny"},
    "data": {"sources": [{"source": "rows.jsonl"}], "held_out": {"fraction": 0.1}},
}
OPTIONAL: dict[str, Any] = {
    "sagemaker": {
        "instance_types": ["ml.g5.2xlarge"],
        "role": "arn:aws:iam::123456789012:role/Jobs",
        "bucket": "a-bucket",
    }
}


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a section and of the sections in it, dotted, with its pydantic field."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from fields(candidate, f"{prefix}{name}.")


KEYS = {name: field for name, field in fields(FinetuningConfig) if name not in SECTIONS}


def test_the_walk_reaches_every_section() -> None:
    assert set(FinetuningConfig.model_fields) == SECTIONS
    assert len(KEYS) >= 46
    assert {"run.seed", "lora.r", "data.sources.max_rows", "data.held_out.fraction"} <= set(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_explained_in_a_sentence(name: str) -> None:
    description = KEYS[name].description

    assert description
    assert description[0].isupper()
    assert description.endswith(".")


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_section_refuses_an_unknown_key(section: str) -> None:
    known = {**REQUIRED, **OPTIONAL}.get(section, {})
    values = {**REQUIRED, section: {**known, "surprise": 1}}

    with pytest.raises(ValidationError) as caught:
        FinetuningConfig.model_validate(values)

    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        ((section, "surprise"), "extra_forbidden")
    ]


def test_a_configuration_cannot_be_changed() -> None:
    config = FinetuningConfig.model_validate(REQUIRED)

    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 7


@pytest.mark.parametrize(
    ("section", "key", "refused", "accepted"),
    [
        ("run", "seed", [-1, 2**32], [0, 2**32 - 1]),
        ("run", "name", ["", ".hidden", "a/b", "a b", "x" * 101], ["a", "0.1_b-c", "x" * 100]),
        ("model", "max_seq_length", [15, 0], [65, 131072]),
        ("lora", "r", [0, -8, "x"], [1, 256]),
        ("lora", "lora_alpha", [0], [1]),
        ("lora", "rank_pattern", [{"q_proj": 0}, ["q_proj"]], [{}, {"q_proj": 4}]),
        ("lora", "init", ["corda", "eva", "zeros"], ["default", "gaussian", "pissa"]),
        ("lora", "alpha_pattern", [{"q_proj": -1}], [{"q_proj": 4}]),
        ("lora", "lora_dropout", [-0.1, 1.0], [0.0, 0.99]),
        ("lora", "random_state", [-1, 2**32], [0]),
        ("lora", "bias", ["some"], ["none", "all", "lora_only"]),
        ("lora", "target_modules", [[], "q_proj", ["a", "a"], [1]], [["a"], "all-linear", "auto"]),
        ("train", "objective", ["ppo", None], ["sft", "dpo", "orpo", "kto"]),
        ("train", "beta", [0, -1, float("inf")], [1e-3, 5]),
        ("train", "start_from", [""], ["outputs/latest/adapter", None]),
        ("train", "epochs", [0, -1, float("inf"), float("nan")], [0.01, 100]),
        ("train", "max_steps", [0, -1], [11, None]),
        ("train", "effective_batch", [0], [1, None]),
        ("train", "micro_batch", [0, "all"], [1, "auto"]),
        ("train", "gradient_accumulation", [0], [1, None]),
        ("train", "learning_rate", [0, 1, float("nan")], [1e-9, 0.999, "1e-4"]),
        ("train", "warmup_steps", [-1], [0]),
        ("train", "weight_decay", [-0.1, float("inf")], [0, 0.5]),
        ("train", "max_grad_norm", [0, -1], [0.5]),
        (
            "train",
            "gradient_checkpointing",
            ["full"],
            ["auto", "tiled", "unsloth", "plain", "none"],
        ),
        ("train", "log_every", [0], [1]),
        ("train", "evaluate_every", [0], [1, None]),
        ("train", "checkpoint_every", [0], [1, None]),
        ("train", "trackers", [["mlfow"], "wandb"], [[], ["mlflow", "comet"]]),
        ("train", "neftune_noise_alpha", [0, -1, float("inf")], [5, None]),
        ("evaluate", "samples_every", [0], [10, None]),
        ("train", "keep_checkpoints", [0], [1]),
        ("evaluate", "batch_size", [0], [1]),
        ("evaluate", "samples", [-1], [0]),
        ("evaluate", "max_new_tokens", [0], [1]),
        ("data", "on_bad_rows", ["ignore"], ["error", "skip"]),
        ("data", "on_duplicates", ["warn"], ["keep", "drop", "error"]),
        ("data", "on_leaks", ["keep"], ["warn", "drop", "error"]),
        ("data", "on_contradictions", ["keep"], ["warn"]),  # and others, but not for sft
        ("data", "near_duplicates", [0.4, 1.0], [0.5, 0.8, None]),
        ("data", "loss_on", ["prompt"], ["completion", "last_turn", "everything"]),
        ("data", "max_truncated_share", [-0.01, 1.01], [0, 1]),
    ],
)
def test_the_range_of_a_key(
    section: str, key: str, refused: list[Any], accepted: list[Any]
) -> None:
    def validate(value: Any) -> FinetuningConfig:
        values = {**REQUIRED, section: {**REQUIRED.get(section, {}), key: value}}
        return FinetuningConfig.model_validate(values)

    for value in refused:
        with pytest.raises(ValidationError) as caught:
            validate(value)
        assert {error["loc"][:2] for error in caught.value.errors()} == {(section, key)}
    for value in accepted:
        seen = getattr(getattr(validate(value), section), key)
        assert seen == (float(value) if value == "1e-4" else value)


@pytest.mark.parametrize(
    ("objective", "section", "key", "value"),
    [
        ("dpo", "train", "packing", True),
        ("orpo", "lora", "lora_dropout", 0.1),
        ("dpo", "train", "neftune_noise_alpha", 5.0),
        ("dpo", "data", "loss_on", "everything"),
        ("orpo", "data", "sources", [{"source": "a.jsonl", "form": "messages"}]),
    ],
)
def test_what_a_preference_objective_cannot_honour_is_refused_by_its_key(
    objective: str, section: str, key: str, value: Any
) -> None:
    def validate(objective: str) -> FinetuningConfig:
        values: dict[str, Any] = {**REQUIRED, "train": {"objective": objective}}
        values[section] = {**values.get(section, {}), key: value}
        return FinetuningConfig.model_validate(values)

    with pytest.raises(ValidationError, match=rf"{section}\.{key}"):
        validate(objective)
    assert validate("sft")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("data", {"on_duplicates": "drop", "on_leaks": "error", "near_duplicates": 0.8}),
        ("data", {"on_contradictions": "drop"}),
        ("data", {"sources": [{"source": "a.jsonl", "weight": 2}]}),
        ("data", {"held_out": {"fraction": 0.1, "group": "author"}}),
        ("train", {"gradient_accumulation": 8}),
        ("train", {"micro_batch": 2}),
        ("train", {"effective_batch": 3}),
        ("train", {"micro_batch": 1}),
    ],
)
def test_what_every_objective_honours_is_accepted(section: str, values: dict[str, Any]) -> None:
    train = {"objective": "kto", **(values if section == "train" else {})}
    changed = {**REQUIRED, section: {**REQUIRED.get(section, {}), **values}, "train": train}
    config = FinetuningConfig.model_validate(changed)
    for key, value in values.items():
        found = getattr(config, section).model_dump(exclude_unset=True)[key]
        assert found == value


def test_contradictions_are_of_preferences_alone() -> None:
    data = {**REQUIRED["data"], "on_contradictions": "drop"}
    with pytest.raises(ValidationError, match=r"data\.on_contradictions \(drop\): sft has no pref"):
        FinetuningConfig.model_validate({**REQUIRED, "data": data})


@pytest.mark.parametrize(
    ("init", "section", "values", "says"),
    [
        ("pissa", "lora", {"use_dora": True}, "use_dora (True) with init: pissa"),
        ("pissa", "lora", {"use_rslora": True}, "use_rslora (True) with init: pissa"),
        ("pissa", "lora", {"lora_dropout": 0.1}, "lora_dropout (0.1) with init: pissa"),
        (
            "pissa",
            "model",
            {"load_in_4bit": True},
            "model.quantisation (nf4) with lora.init: pissa",
        ),
        ("pissa", "train", {"start_from": "a:1"}, "train.start_from (a:1) with lora.init: pissa"),
        ("pissa", "train", {"objective": "dpo"}, "the base model, which dpo compares with"),
        ("loftq", "lora", {"use_dora": True}, "use_dora (True) with init: loftq"),
        ("loftq", "model", {"load_in_4bit": False}, "and model.quantisation is none"),
        (
            "loftq",
            "model",
            {"quantisation": "fp8", "load_in_4bit": False},
            "and model.quantisation is fp8",
        ),
        ("loftq", "train", {"start_from": "a:1"}, "train.start_from (a:1) with lora.init: loftq"),
        ("loftq", "train", {"objective": "kto"}, "the base model, which kto compares with"),
        ("loftq", "export", {"merged_16bit": True}, "merged_16bit with lora.init: loftq"),
    ],
)
def test_an_initialisation_from_the_weights_is_refused_where_it_cannot_be_had(
    init: str, section: str, values: dict[str, Any], says: str
) -> None:
    changed: dict[str, Any] = {**REQUIRED, "lora": {"init": init}}
    changed["model"] = {**REQUIRED["model"], "load_in_4bit": init == "loftq"}
    changed[section] = {**changed.get(section, {}), **values}
    with pytest.raises(ValidationError) as caught:
        FinetuningConfig.model_validate(changed)
    assert says in str(caught.value)


def test_loftq_goes_with_quantised_weights() -> None:
    model = {**REQUIRED["model"], "load_in_4bit": True}
    lora = {"init": "loftq", "use_rslora": True, "lora_dropout": 0.1}
    FinetuningConfig.model_validate({**REQUIRED, "model": model, "lora": lora})
