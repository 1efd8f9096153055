"""The real command, as a user types it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from llm_engineering.configuration import to_yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "models" / "SmolLM2-135M-Instruct"


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), *map(str, arguments)],
        cwd=options.pop("cwd", ROOT),
        capture_output=True,
        text=True,
        **options,
    )


def resolved(plan):
    """The configuration of a dry run's plan, which comes last."""
    return yaml.safe_load(plan.split(", resolved\n")[1].split("\n\ndry run:")[0])


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = command("--help")
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
        assert "--finetune" in done.stdout
    assert min(seconds) < 0.5
    _, _, rest = done.stdout.partition("\nOther:\n")
    assert re.findall(r"--\w+", rest.partition("Examples:")[0]) == ["--help"], "all are in a group"


def test_it_runs_by_its_own_name_through_a_link_and_completes_its_flags(tmp_path):
    (tmp_path / "tools").symlink_to(ROOT / "tools", target_is_directory=True)
    page = (ROOT / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^eval .*$", page, re.MULTILINE)
    script = f"""{line}
COMP_WORDS=(tools/run.py --fin); COMP_CWORD=1; COMPREPLY=()
$(complete -p run.py | sed 's/.*-F \\([^ ]*\\).*/\\1/') tools/run.py
echo "completed: ${{COMPREPLY[*]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "completed: --finetune" in done.stdout, done.stderr


def test_rows_of_ones_own_are_trained_on_and_a_tenth_of_them_held_out(tmp_path):
    rows = tmp_path / 'Für alle, "so".jsonl'
    rows.write_text('{"instruction": "a", "output": "b"}\n' * 20, encoding="utf-8")
    done = command(
        "--finetune", "--data", rows, "--set", "data.held_out.fraction=0.2", "--dry-run", "-v"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    data = resolved(done.stdout)["data"]
    assert [source["source"] for source in data["sources"]] == [str(rows)]
    assert (data["held_out"]["source"], data["held_out"]["fraction"]) == (None, 0.2)


def test_rows_of_ones_own_go_with_held_out_rows_of_ones_own(tmp_path):
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    for rows in (train, held_out):
        rows.write_text('{"instruction": "a", "output": "b"}\n', encoding="utf-8")
    done = command(
        "--finetune", "--data", train, "--set", f"data.held_out.source={held_out}", "--dry-run"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"data.held_out: {held_out}, 1 file of 36 bytes" in done.stdout


def test_saying_nothing_says_what_to_say():
    done = command()
    assert done.returncode == 2
    assert "say what to do, for example --finetune" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--models", "--rollback"], "--models and --rollback are two commands; give one"),
        (["--finetune", "--force"], "--force goes with --run-scheduled"),
        (["--schedule", "0 3 * * 1"], "--schedule goes with --finetune"),
        (["--finetune", "--name", "weekly"], "--name goes with --schedule"),
        (["--models", "--data", "my.jsonl"], "--data goes with --finetune or --init"),
        (["--models", "--stop"], "--stop goes with --dashboard"),
        (["--stop"], "--stop goes with --dashboard; or give it a SageMaker job"),
        (["--models", "--dry-run"], "--dry-run goes with --finetune or --clean"),
        (["--jobs", "--clean"], "--jobs and --clean are two commands; give one"),
        (["--dashboard", "--stop", "JOB"], "--dashboard and --stop are two commands; give one"),
        (["--finetune", "-v"], "--verbose goes with --dry-run"),
        (["--finetune", "my.yaml"], "my.yaml stands alone: runs are named after --compare"),
        (["--compare", "one"], "--compare: 1 run given; give from two to 6"),
        (["--init", "my.yaml"], "--init needs --data SOURCE"),
        (["--models", "--model", "m"], "--model goes with --init"),
        (["--models", "--resume"], "--resume goes with --finetune"),
        (["--dashboard", "--gpus", "2"], "--gpus goes with --finetune"),
        (["--models", "--of", "one"], "--of goes with --ask or --ask-file"),
        (["--chat", "--of", "one"], "--of goes with --ask or --ask-file"),
        (["--finetune", "--of", "one"], "--of goes with --ask or --ask-file"),
        (["--models", "--target", "sagemaker"], "--target goes with --finetune"),
        (
            ["--finetune", "--schedule", "0 3 * * 1", "--dry-run"],
            "--dry-run does not go with --sch",
        ),
        (["--clean", "0"], "--clean 0: give a number of days, at least 1"),
        (["--finetune", "--schedule", "0 3 * * 1", "--gpus", "1"], "--gpus does not go with --sch"),
    ],
)
def test_flags_that_do_not_go_together(arguments, says):
    done = command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_dry_run_prints_the_plan_and_touches_nothing(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    before = sorted(tmp_path.rglob("*"))
    done = command(
        "--finetune", "--dry-run", "--verbose", "--set", "train.learning_rate=1e-4",
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert resolved(done.stdout)["train"]["learning_rate"] == 1e-4
    assert resolved(done.stdout)["lora"]["r"] == 32
    for step in ("prepare_data", "load_model", "inject_lora", "train", "save_model", "promote"):
        assert re.search(rf"^  {step} ", done.stdout, re.MULTILINE)
    for name in ("adapter/", "metrics.json", "manifest.json", "report.html"):
        assert f"/{name}" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_of_the_handbooks_recipe():
    done = command("--finetune", "--dry-run", "--config", "configs/finetuning_llama_3_1_8b.yaml")
    assert done.returncode == 0, done.stderr
    assert "meta-llama/Llama-3.1-8B" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "lora.rank=8"], 2, "error: --set lora.rank=8: lora.rank: unknown key"),
        (["--set", "model.id=nowhere/at-all/x"], 4, "error: model.id: no folder nowhere/at-all/x"),
        (["--set", "model.load_in_4bit=true"], 5, "error: model.quantisation: nf4 needs an NVIDIA"),
        (["--set", "train.packing=true"], 5, "error: train.packing: true needs an NVIDIA GPU"),
        (["--set", "data.sources.0.source=no.jsonl", "--set", "data.held_out.fraction=0.1"], 3,
         "error: data source no.jsonl: no such file"),
        (["--set", "data.sources.0.source=no.jsonl"], 2, "the held-out rows are still those of"),
        (["--resume", "--set", "run.output_dir=/nonexistent/x"], 7, "error: --resume: no interrupted"),
    ],
)  # fmt: skip
def test_mistakes_cost_a_line_not_a_traceback(arguments, code, message):
    from tools.run import main

    # In this process, which has imported already; the next test's is one of its own.
    done = CliRunner().invoke(main, ["--finetune", *arguments])
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_without_the_training_packages_one_line_says_what_to_run(tmp_path):
    """As after a plain `poetry install`: the packages are hidden from the interpreter."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('torch', 'unsloth') else real(name, *a)\n"
    )
    done = command("--finetune", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 6
    assert done.stderr.strip() == (
        "error: the training packages are not installed (torch, unsloth): run `make setup`"
    )


def test_bad_rows_are_named_by_file_and_line(make_config, tmp_path):
    config = make_config()
    data = Path(config.data.sources[0].source)
    lines = data.read_text().splitlines()
    lines[2], lines[6] = "{not json", '{"instruction": "Why?"}'
    data.write_text("\n".join(lines) + "\n")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    done = command("--finetune", "--config", tmp_path / "config.yaml")
    assert done.returncode == 3, done.stderr
    error = done.stderr[done.stderr.index("error: ") :]
    assert error.splitlines() == [
        f"error: {data}:3: is not JSON: Expecting property name enclosed in double quotes at column 2",
        f"{data}:7: has an instruction but neither a response nor an output column",
        "2 bad row(s). Mend them, or set data.on_bad_rows: skip to train without them "
        "(the report counts them)",
    ]  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_sigterm_then_kill_9_then_resume(make_config, tmp_path, killed):
    steps = 300 if killed else 90
    changes = {"train.max_steps": steps, "train.checkpoint_every": 30, "train.keep_checkpoints": 1}
    config = make_config(changes)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    arguments = ["--finetune", "--config", str(tmp_path / "config.yaml")]
    outputs = Path(config.run.output_dir)

    def signalled(number: int, checkpoints: int, *more: str) -> tuple[int, str]:
        """Start, and send a signal once there are so many checkpoints."""
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools" / "run.py"), *arguments, *more],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 400
        while len(list(outputs.glob(".work/*/checkpoints/*/complete.json"))) < checkpoints:
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate()
        assert [p.name for p in outputs.iterdir()] == [".work"], "it leaves no half result"
        return process.returncode, said

    code, said = signalled(signal.SIGTERM, 1)
    assert code == 143, said[-3000:]
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("error: stopped on request after step ")
    assert last.endswith("; continue with --resume")
    stopped_at = int(last.removeprefix("error: stopped on request after step ").split()[0])

    if killed:
        signalled(signal.SIGKILL, 2, "--resume")

    done = command(*arguments, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = json.loads((outputs / "latest" / "manifest.json").read_text())
    metrics = json.loads((outputs / "latest" / "metrics.json").read_text())
    resumed_from = manifest["resumed_from_step"]
    assert resumed_from > stopped_at if killed else resumed_from == stopped_at >= 30
    assert metrics["train_steps"] == steps
    assert list((outputs / ".work").iterdir()) == []


@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="`make model` has not been run")
def test_the_embedded_default_end_to_end(tmp_path):
    """The README's command, with only the output folder changed."""
    done = command("--finetune", "--set", f"run.output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr[-3000:]
    latest = tmp_path / "latest"
    metrics = json.loads((latest / "metrics.json").read_text())
    assert metrics["held_out_loss_before"] == pytest.approx(3.642, abs=0.01)
    assert metrics["held_out_loss_change"] < -0.18
    assert metrics["trainable_parameters"] == 9_768_960
    assert metrics["total_parameters"] == 134_515_008 + 9_768_960
    # Measured: 2.43e9 to 2.49e9 bytes; the allocator's part varies from run to run.
    assert metrics["peak_memory_bytes"] < 2.5 * 1024**3
    assert metrics["train_steps"] == 36
    adapter = load_file(latest / "adapter" / "adapter_model.safetensors")
    assert sum(t.numel() for t in adapter.values()) == 9_768_960
    settings = json.loads((latest / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (32, 32, 0)
    assert sorted(settings["target_modules"]) == sorted(
        ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj", "o_proj", "gate_proj"]
    )
    report = (latest / "report.html").read_text()
    assert "SmolLM2-135M-Instruct" in report
    assert "held-out loss" in done.stdout
    assert "production     promoted: the first version to pass all 8 checks" in done.stdout
