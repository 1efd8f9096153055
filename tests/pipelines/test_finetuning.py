"""The pipeline through ZenML, on the tiny model: what it stores, loads, caches and refuses."""

import json
from pathlib import Path

import pytest
from zenml.client import Client
from zenml.utils import source_utils

from llm_engineering.errors import DataError, UnprovenError
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.model import live
from llm_engineering.registry.versions import all_versions, model_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# Nothing is read back by a fresh process, nothing promoted: these tests are about other things.
QUICK = {"evaluate.parity_rows": 0, "registry.promote": False}
STEPS = [
    *("look_at_inputs", "prepare_data", "load_model", "inject_lora"),
    *("train", "evaluate", "save_model", "promote"),
]


@pytest.fixture
def run_pipeline():
    source_utils.set_custom_source_root(str(ROOT))
    from pipelines.finetuning import finetuning

    def run(config, name, **options):
        extra = RunOrder(resume=options.pop("resume", "never")).extra
        return finetuning.with_options(run_name=name, extra=extra, **options)(config=config)

    live.release()
    return run


@pytest.fixture
def weight_loads(monkeypatch):
    """Every opening of a weight file by transformers, which is what loads a model here."""
    import transformers.modeling_utils as modeling

    opened = []
    real = modeling.safe_open

    def counting(path, *args, **kwargs):
        opened.append(Path(path).name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(modeling, "safe_open", counting)
    return opened


def statuses(run):
    return {name: str(step.status) for name, step in run.steps.items()}


def test_the_whole_pipeline(make_config, run_pipeline, weight_loads, tiny_model):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny_model)
    one_load = list(weight_loads)
    weight_loads.clear()

    store = Path(Client().active_stack.artifact_store.path)
    stored_before = set(store.rglob("*"))
    config = make_config(
        {"lora.r": 5, "model.max_seq_length": 126}
    )  # nothing of another test's in the cache
    run = run_pipeline(config, "whole")
    assert list(run.steps) == STEPS
    assert set(statuses(run).values()) == {"completed"}
    assert weight_loads == one_load, "the weights were not loaded exactly once"

    outputs = Path(config.run.output_dir)
    folder = outputs / "whole"
    assert (outputs / "latest").resolve() == folder.resolve()
    assert {p.name for p in folder.iterdir()} == {
        "adapter",
        "metrics.json",
        "manifest.json",
        "promotion.json",
        "report.html",
    }
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= {
        p.name for p in (folder / "adapter").iterdir()
    }
    assert not any((outputs / ".work").iterdir()), "a finished run leaves no work folder"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["train_steps"] == 4
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"] == config.model_dump(mode="json")
    assert manifest["seed"] == 0
    assert manifest["train_tokens"] == metrics["train_tokens"]

    # The artifact store holds adapter, data set and records; no base weights, no pickle.
    stored = [path for path in store.rglob("*") if path.is_file() and path not in stored_before]
    assert not [p for p in stored if p.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    weights = [p for p in stored if p.suffix == ".safetensors"]
    assert [p.name for p in weights] == ["adapter_model.safetensors"] * 2  # trained, and its bundle
    base_size = (tiny_model / "model.safetensors").stat().st_size
    adapter_size = weights[0].stat().st_size
    # 2 MB: Arrow files of 60 rows, records, the report and the steps' logs
    assert sum(p.stat().st_size for p in stored) < 2 * adapter_size + 2_000_000
    assert adapter_size < 2 * base_size

    # What the dashboard shows: figures in groups, rounded, sizes beside them
    train = run.steps["train"].run_metadata
    assert train["training"]["train_steps"] == 4
    assert train["training"]["train_tokens"] == metrics["train_tokens"]
    assert train["training"]["held_out_loss_after"] == pytest.approx(
        metrics["held_out_loss_after"], rel=1e-4
    )
    assert train["peak_memory"] == metrics["peak_memory_bytes"]  # its type: test_metadata.py
    curve = run.steps["train"].outputs["loss_curve"][0].load()
    assert "<svg" in curve
    reports = [name for step in run.steps.values() for name in step.outputs if name == "report"]
    assert reports == ["report"], "one report, with the decision in it"
    report = run.steps["promote"].outputs["report"][0].load()
    assert report == (folder / "report.html").read_text()

    # What belongs to the version, wherever it was made; the weights are on the disk once
    (version,) = (v for v in all_versions(model_name(config)) if v.name == "whole")
    for name in ("adapter_bundle", "metrics", "manifest", "report", "promotion", "evaluation"):
        assert version.get_artifact(name) is not None, name
    bundle = version.get_artifact("adapter_bundle").load().folder
    assert {p.name for p in bundle.iterdir()} == {p.name for p in (folder / "adapter").iterdir()}
    assert (bundle / "adapter_model.safetensors").samefile(
        folder / "adapter" / "adapter_model.safetensors"
    )
    assert not (bundle / "README.md").samefile(folder / "adapter" / "README.md")

    # Again: everything but the save comes from the cache, and the outputs are there all the same.
    live.release()
    weight_loads.clear()
    again = run_pipeline(config, "again")
    assert statuses(again) == {
        **dict.fromkeys(STEPS, "cached"),
        "look_at_inputs": "completed",
        "save_model": "completed",
        "promote": "completed",
    }
    assert weight_loads == []
    cached = json.loads((outputs / "again" / "manifest.json").read_text())
    assert cached["adapter_digest"] == manifest["adapter_digest"]
    assert (outputs / "latest").resolve() == (outputs / "again").resolve()


def test_one_chat_template_in_data_evaluation_adapter_and_card(
    make_config, run_pipeline, monkeypatch, tmp_path
):
    from transformers import AutoTokenizer

    from llm_engineering.training import evaluate

    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    prompted = []
    real = evaluate.answers

    def answers(model, tokenizer, prompts, **settings):
        prompted.extend(tokenizer.decode(prompt.input_ids) for prompt in prompts)
        return real(model, tokenizer, prompts, **settings)

    monkeypatch.setattr(evaluate, "answers", answers)
    config = make_config({"model.chat_template": str(template), "train.max_steps": 2})

    run = run_pipeline(config, "one-template")

    dataset = run.steps["prepare_data"].outputs["dataset"][0].load()
    assert dataset.summary.train.example[0].text.startswith("[user]\n")
    assert prompted
    assert all(p.startswith("[user]\n") and p.endswith("<|im_end|>[assistant]\n") for p in prompted)
    adapter = Path(config.run.output_dir) / "one-template" / "adapter"
    assert AutoTokenizer.from_pretrained(adapter).chat_template == template.read_text()
    assert str(template) in (adapter / "README.md").read_text()


def test_only_what_a_change_reaches_runs_again_and_is_rebuilt_to_the_bit(
    make_config, run_pipeline, weight_loads
):
    own = {
        **QUICK,
        "lora.r": 4,
        "model.max_seq_length": 127,
    }  # nothing of another test's in the cache
    first = run_pipeline(make_config(own), "r4")
    assert set(statuses(first).values()) == {"completed"}
    live.release()  # the cached steps' live model is gone, as in another process
    weight_loads.clear()
    changed = make_config({**own, "train.learning_rate": 0.001})
    second = run_pipeline(changed, "r4-other-rate")
    assert statuses(second) == {
        "look_at_inputs": "completed",
        "prepare_data": "cached",
        "load_model": "cached",
        "inject_lora": "cached",
        "train": "completed",
        "evaluate": "completed",
        "save_model": "completed",
        "promote": "completed",
    }
    assert len(weight_loads) > 0
    third = run_pipeline(make_config(own), "r4-from-scratch", enable_cache=False)
    digests = [
        json.loads((Path(changed.run.output_dir) / name / "manifest.json").read_text())
        for name in ("r4", "r4-from-scratch")
    ]
    assert set(statuses(third).values()) == {"completed"}
    assert digests[0]["adapter_digest"] == digests[1]["adapter_digest"]


@pytest.mark.long
def test_a_setting_that_teaches_nothing_does_not_train_again(make_config, run_pipeline):
    own = {**QUICK, "lora.r": 5}
    first = run_pipeline(make_config(own), "taught")
    assert statuses(first)["train"] == "completed"
    nothing_taught = {
        "train.log_every": 2,
        "train.keep_checkpoints": 1,
        "train.checkpoint_every": 3,
        "evaluate.samples": 1,
        "evaluate.max_new_tokens": 4,
        "evaluate.parity_rows": 1,
        "evaluate.answers": {"rows": 4, "max_new_tokens": 4, "scorers": ["rouge_l"]},
        "export.merged_16bit": True,
    }
    config = make_config({**own, **nothing_taught})
    second = run_pipeline(config, "taught-nothing-new", resume="if-possible")
    assert statuses(second)["train"] == "cached"
    assert statuses(second)["evaluate"] == "completed"
    evaluation = second.steps["evaluate"].outputs["evaluation"][0].load()
    assert len(evaluation.samples) == 1
    assert len(evaluation.trained_probe.rows) == 1
    _require_scores_everywhere(second, config, "rouge_l")
    on_the_way = make_config({**own, "evaluate.samples_every": 2})
    third = run_pipeline(on_the_way, "samples-on-the-way")
    assert statuses(third)["train"] == "completed", "only training can give them"


def _require_scores_everywhere(run, config, name):
    """A score's figures are in the step's and the run's metadata, the version, the folder."""
    shown = run.steps["evaluate"].run_metadata["scores"]
    folder = Path(config.run.output_dir) / run.name
    metrics = json.loads((folder / "metrics.json").read_text())
    answers = json.loads((folder / "answers.json").read_text())
    after = answers["scores"][0]["difference"]["candidate"]
    (version,) = [one for one in all_versions(model_name(config)) if one.name == run.name]
    for found in (shown, metrics, version.run_metadata, run.run_metadata["scores"]):
        assert found[f"score_{name}_after"] == pytest.approx(after, abs=1e-4)
    assert len(answers["rows"]) == 4
    assert "Gained most" in (folder / "report.html").read_text()
    assert "Score of answers to 4 held-out rows" in (folder / "adapter" / "README.md").read_text()


def test_changed_data_under_an_unchanged_path_is_noticed(make_config, run_pipeline):
    config = make_config({**QUICK, "lora.r": 2})
    run_pipeline(config, "data-1")
    train = Path(config.data.sources[0].source)
    lines = train.read_text().splitlines()
    train.write_text("\n".join(lines[:-1]) + "\n")
    again = run_pipeline(config, "data-2")
    assert statuses(again)["prepare_data"] == "completed"
    assert statuses(again)["load_model"] == "cached"
    assert statuses(again)["train"] == "completed"


def test_a_failed_proof_registers_nothing_and_its_training_is_not_paid_twice(
    make_config, run_pipeline, monkeypatch
):
    config = make_config({"lora.r": 7, "registry.model": "unproven", "registry.checks": ["parity"]})

    def fail(*_):
        raise UnprovenError(
            "an export is not what was trained:\nadapter: by this test", ["adapter"]
        )

    with monkeypatch.context() as patched:
        patched.setattr("llm_engineering.training.save.prove_exports", fail)
        with pytest.raises(UnprovenError, match="by this test") as caught:
            run_pipeline(config, "refused")

    outputs = Path(config.run.output_dir)
    kept = outputs / "refused-unproven"
    assert f"the trained adapter is in {kept / 'adapter'}, unproven" in str(caught.value)
    assert (kept / "adapter" / "adapter_model.safetensors").is_file()
    assert not (outputs / "latest").exists()
    assert all_versions("unproven") == []
    failed = Client().get_pipeline_run("refused")
    assert statuses(failed)["save_model"] == "failed"
    assert "promote" not in failed.steps

    run = run_pipeline(config, "proven")
    assert statuses(run)["train"] == "cached"
    assert (outputs / "latest").resolve() == (outputs / "proven").resolve()
    (version,) = all_versions("unproven")
    assert str(version.stage) == "production"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (kept / "adapter" / name).read_bytes() == (
            outputs / "proven" / "adapter" / name
        ).read_bytes()


def test_bad_data_stops_the_run_before_a_weight_is_loaded(make_config, run_pipeline, weight_loads):
    config = make_config({**QUICK, "lora.r": 3})
    train = Path(config.data.sources[0].source)
    lines = train.read_text().splitlines()
    lines[4] = '{"instruction": "What?", "response": ""}'
    train.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as error:
        run_pipeline(config, "bad-data")
    assert f"{train}:5: response is empty" in str(error.value)
    assert weight_loads == []
    run = Client().get_pipeline_run("bad-data")
    assert str(run.status) == "failed"
    assert "load_model" not in run.steps
    assert not (Path(config.run.output_dir) / "bad-data").exists()
