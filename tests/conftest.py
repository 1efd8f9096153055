"""What several tests share: a tiny real model, a few rows of the embedded data, a configuration."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig

# huggingface_hub reads it once, when it is imported: before any test, so it stands here.
os.environ["HF_HUB_OFFLINE"] = "1"
# So does ZenML: the tests have a store of their own, and leave the user's alone.
os.environ["ZENML_CONFIG_PATH"] = tempfile.mkdtemp(prefix="zenml-tests-")
os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"
# A worker of pytest-xdist has no main module for ZenML to take the sources' root from.
os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = str(Path(__file__).resolve().parents[1])
# Workers share the cores: more threads than cores make PyTorch several times slower.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // WORKERS))

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "stdlib_qa"
CHATML = ROOT / "llm_engineering" / "model" / "chat_templates" / "chatml.jinja"

VOCABULARY = 600
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENIZER_ROWS = 300
TRAIN_ROWS = 48
HELD_OUT_ROWS = 12
# Rows of at most so many characters are at most 128 tokens of the tiny tokenizer.
SHORT_ROW = 180

# tests/sagemaker_service is imported by its name. At the end of the path: the names of tests/
# (llm_engineering, tools) must not hide the project's.
sys.path.append(str(ROOT / "tests"))

WriteJsonl = Callable[[Path, Sequence[Any]], Path]
MakeConfig = Callable[..., FinetuningConfig]


def pytest_configure(config: pytest.Config) -> None:
    """Load the simulated training service's fixtures."""
    config.pluginmanager.import_plugin("sagemaker_service.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, and the command's before others: a long one at the end would leave all
    workers but one without work."""
    commands = Path(__file__).parent / "tools"
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is None,
            not item.path.is_relative_to(commands),
        )
    )


@pytest.hookimpl(optionalhook=True)  # `make mutants` runs without xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: some tests wait for a clock, a service or another process."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Remembered digests go to a folder of this session, and nothing asks the Hub."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder))
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A folder with a random two-layer Llama (float32, safetensors) and a ChatML tokenizer."""
    return Path(make_tiny_model().name) / "tiny"


@cache
def make_tiny_model() -> tempfile.TemporaryDirectory[str]:
    """Once a process: the mutation check runs many sessions in forks of one."""
    from llm_engineering.training_stack import import_unsloth

    import_unsloth()
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    made = tempfile.TemporaryDirectory(prefix="tests-")
    folder = Path(made.name) / "tiny"
    tokenizer = _train_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    return made


@pytest.fixture
def write_jsonl() -> WriteJsonl:
    """Write rows as JSON lines, making the folder; a string is written as it stands."""

    def write(path: Path, rows: Sequence[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_config(tiny_model: Path, tmp_path: Path, write_jsonl: WriteJsonl) -> MakeConfig:
    """Make a configuration that trains the tiny model for seconds, writing under ``tmp_path``.

    ``make_config({"train.max_steps": 6})`` sets a key, and makes its section where there is none.
    """
    train = write_jsonl(
        tmp_path / "stdlib_qa" / "train.jsonl", short_rows("train.jsonl", TRAIN_ROWS)
    )
    held_out = write_jsonl(
        tmp_path / "stdlib_qa" / "held_out.jsonl", short_rows("held_out.jsonl", HELD_OUT_ROWS)
    )

    def make(overrides: Mapping[str, Any] | None = None) -> FinetuningConfig:
        values: dict[str, Any] = {
            "run": {"output_dir": str(tmp_path / "outputs")},
            "model": {"id": str(tiny_model), "max_seq_length": 128, "dtype": "float32"},
            "data": {
                "sources": [{"source": str(train)}],
                "held_out": {"source": str(held_out)},
            },
            "train": {
                "max_steps": 4,
                "micro_batch": 2,
                "gradient_accumulation": 1,
                "warmup_steps": 1,
                "checkpoint_every": 2,
            },
            "evaluate": {
                "samples": 2,
                "max_new_tokens": 8,
                "generic_passages": 4,
                "parity_rows": 2,
            },
        }
        for key, value in (overrides or {}).items():
            *sections, name = key.split(".")
            target = values
            for section in sections:
                target = target.setdefault(section, {})
            target[name] = value
        return FinetuningConfig.model_validate(values)

    return make


@pytest.fixture
def preference_config(
    make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> MakeConfig:
    """As ``make_config(overrides)`` of a preference objective, which comes first.

    Its better answers are real, its worse ones in capitals.
    """

    def make(objective: str, overrides: Mapping[str, Any] | None = None) -> FinetuningConfig:
        sources = make_config().data
        for path in (sources.sources[0].source, sources.held_out.source):
            assert path is not None
            rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
            pairs = [
                {
                    "prompt": row["instruction"],
                    "chosen": row["response"][:60],
                    "rejected": row["response"][:40].upper(),
                }
                for row in rows
            ]
            write_jsonl(tmp_path / "pairs" / Path(path).name, pairs)
        return make_config(
            {
                "train.objective": objective,
                "train.learning_rate": 0.003,
                "train.max_steps": 12,
                "data.sources": [{"source": str(tmp_path / "pairs" / "train.jsonl")}],
                "data.held_out": {"source": str(tmp_path / "pairs" / "held_out.jsonl")},
                **(overrides or {}),
            }
        )

    return make


@pytest.fixture
def run() -> Callable[..., tuple[Any, ...]]:
    """Prepare, load, inject and train: ``run_training``."""
    return run_training


def run_training(
    config: FinetuningConfig,
    folder: Path,
    *,
    resume: Any = "never",
    on_progress: Any = None,
    stop: Any = None,
) -> tuple[Any, ...]:
    """Prepare, load, inject and train in a row, as a remote job does, whatever the objective."""
    from llm_engineering.data.prepare import prepare_data
    from llm_engineering.model.finetuning.inject import inject_lora
    from llm_engineering.model.finetuning.load import load_model
    from llm_engineering.registry.starting_adapter import starting_adapter
    from llm_engineering.training.run import train

    dataset = prepare_data(
        config.data,
        config.model,
        objective=config.train.objective,
        folder=folder / "data",
        validates=config.train.validates,
        tokens=config.lora.trainable_tokens,
    )
    lora = inject_lora(load_model(config.model, config.lora.trainable_tokens), config.lora)
    start_from = config.train.start_from
    adapter, record = train(
        lora,
        dataset,
        config.train,
        config.evaluate,
        seed=config.run.seed,
        work=folder / "work",
        name="run",
        start=starting_adapter(start_from) if start_from else None,
        resume=resume,
        on_progress=on_progress,
        stop=stop,
    )
    return lora, dataset, adapter, record


def short_rows(name: str, count: int) -> list[dict[str, Any]]:
    """The first ``count`` rows of the embedded data that fit the tiny model's 128 tokens."""
    fitting = (row for row in _rows(name) if len(row["instruction"] + row["response"]) <= SHORT_ROW)
    return list(islice(fitting, count))


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _train_tokenizer() -> Any:
    """A byte-level BPE tokenizer, so that every text has tokens and decodes to itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = islice(_rows("train.jsonl"), TOKENIZER_ROWS)
    tokenizer.train_from_iterator(
        (f"{row['instruction']}\n{row['response']}" for row in rows), trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML.read_text(encoding="utf-8"),
    )
