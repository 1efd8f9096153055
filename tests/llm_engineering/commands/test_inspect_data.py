"""What --inspect-data shows, where it leaves its page, and when it says that a run would refuse."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm_engineering.commands import inspect_data
from llm_engineering.configuration import FinetuningConfig, to_yaml
from llm_engineering.data.summary import DatasetSummary, SourceSummary
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]

HOSTILE = "\x1b[2J\u202e<script>alert(1)</script>=cmd|' /C calc'!A0"
GOOD = {"instruction": f"What is {HOSTILE}?", "response": f"Nothing {HOSTILE}."}
OTHER = {"instruction": "What is 2 + 2?", "response": "Four."}
BAD = [{"instruction": "a"}, {"a\x1b[2J": HOSTILE}, '{"text": "\\ud800"}']


@pytest.fixture
def config_path(make_config: MakeConfig, tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(to_yaml(make_config()), encoding="utf-8")
    return path


@pytest.fixture(params=["80", "120"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", request.param)
    return int(request.param)


def test_it_shows_the_configured_data(
    width: int, config_path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inspect_data.run(config_path, [], None)

    shown = capsys.readouterr().out
    folded = "".join(shown.split())  # a long path is folded in its column
    assert f"{tmp_path}/stdlib_qa/train.jsonl" in folded
    assert "training48" in folded
    assert "held-out12" in folded
    assert "badrows0repeated0leaked0" in folded
    assert "⟦" in shown  # no colours here: brackets mark what is trained
    assert "<|im_end|>⟧" in shown
    assert "a run would train on this data" in shown
    assert max(map(len, shown.splitlines()[:-2])) <= width  # but for the page's path
    (page,) = (tmp_path / "outputs" / "inspected").glob("*.html")
    assert "Training" in page.read_text()


def test_the_page_is_an_artifact_too(config_path: Path, tmp_path: Path) -> None:
    from zenml.client import Client

    inspect_data.run(config_path, [], None)

    (page,) = (tmp_path / "outputs" / "inspected").glob("*.html")
    assert str(Client().get_artifact_version("inspected_data").load()) == page.read_text()


def test_it_shows_what_is_not_used_and_a_row_of_each_source(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    long = {"instruction": "Say it.", "response": "word " * 200}
    first = write_jsonl(tmp_path / "first.jsonl", [OTHER, *[OTHER] * 30, long])
    second = write_jsonl(tmp_path / "second.jsonl", [{**OTHER, "response": "4"}])
    settings = [
        f"data.sources=[{{source: {first}}}, {{source: {second}}}]",
        "data.held_out.max_rows=5",
    ]

    inspect_data.run(config_path, settings, None)

    shown = capsys.readouterr().out
    folded = " ".join(shown.split())
    assert "7 held-out rows are not used, neither trained nor evaluated on" in folded
    assert "one training row a source" in shown
    rows = shown[shown.index("one training row a source") :]
    for answer in ("⟦Four.<|im_end|>⟧", "⟦4<|im_end|>⟧", "⟦word word"):
        assert rows.count(answer) == 1
    assert "first.jsonl:32,cutatmodel.max_seq_length" in "".join(rows.split())


def test_what_was_not_read_and_notices_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    audit = LabelAudit(
        rows=1,
        tokens=4,
        trained_tokens=2,
        longest_row=4,
        length_bin=4,
        rows_by_length=[1],
        truncated_rows=0,
        stop_tokens=1,
        example_origin="",
        example=[],
    )
    unread = {"column meta": 2620, "messages[].note": 1}
    summary = DatasetSummary(
        sources=[SourceSummary(source="rows.jsonl", rows=2620, unread=unread)],
        bad_rows=[],
        train=audit,
        held_out=audit,
        digest="0",
        held_out_digest="0",
        notices=["an empty thought is trained\x1b[2J"],
    )

    inspect_data.show(summary, Console(width=80, highlight=False))

    shown = capsys.readouterr().out
    lines = [line.strip() for line in shown.splitlines()]
    start = lines.index("not read of rows.jsonl")
    assert lines[start + 1 : start + 3] == ["column meta in 2,620 rows", "messages[].note in 1 row"]
    assert "an empty thought is trained␛[2J" in lines


def test_another_source_is_inspected_under_the_same_settings(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [GOOD, *BAD, OTHER, OTHER])

    with pytest.raises(DataError) as caught:
        inspect_data.run(config_path, ["data.on_duplicates=error"], str(path))

    shown = capsys.readouterr().out
    assert "bad rows     3" in shown
    assert "repeated     1" in shown
    for line in (2, 3, 4, "6="):  # a long path is folded over lines
        assert f"bad.jsonl:{line}" in "".join(shown.split())
    assert str(caught.value).splitlines()[0] == "a run would refuse this data:"
    assert "3 bad row(s)." in str(caught.value)
    assert "data.on_duplicates: drop leaves them out" in str(caught.value)


def test_of_another_source_more_may_be_said_and_its_own_rows_are_held_out(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60)]
    path = write_jsonl(tmp_path / "own.jsonl", rows)
    columns = "data.sources.0.columns={prompt: question, completion: answer}"

    with pytest.raises(DataError):
        inspect_data.run(config_path, [], str(path))
    assert "try the source's columns" in " ".join(capsys.readouterr().out.split())
    inspect_data.run(config_path, [columns], str(path))

    shown = capsys.readouterr().out
    counts = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    trained, held_out = int(counts["training"][1]), 60 - int(counts["training"][1])
    assert 0 < held_out < 20
    assert f"held-out {held_out}" in " ".join(shown.split())
    assert trained + held_out == 60
    assert "held out are 10% of these rows: the configuration's are of other data" in shown


def test_preferences_are_inspected_as_a_run_would_prepare_them(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    pair = {"prompt": "1 + 1?", "chosen": "Two.", "rejected": "Three."}
    swapped = {"prompt": "1 + 1?", "chosen": "Three.", "rejected": "Two."}
    leaked = {"prompt": "2 + 2?", "chosen": "Four.", "rejected": "Five."}
    train = write_jsonl(tmp_path / "pairs.jsonl", [pair, pair, swapped, leaked, GOOD])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [{**leaked, "rejected": "Six."}])
    settings = [
        "train.objective=dpo",
        f"data.held_out.source={held_out}",
        "data.on_contradictions=error",
        "data.on_leaks=error",
    ]

    with pytest.raises(DataError) as caught:
        inspect_data.run(config_path, settings, str(train))

    shown = capsys.readouterr().out
    counts = {"bad rows": 1, "contradicted": 3, "repeated": 1, "leaked": 1}
    for name, count in counts.items():
        assert f"  {name:<12} {count}" in shown
    listed = "".join(shown.split()).replace(f"{tmp_path}/", "")
    assert "pairs.jsonl:5:hascolumnsinstruction,response;dpo" in listed
    for pair in ("1!=pairs.jsonl:3", "3!=pairs.jsonl:1", "2=pairs.jsonl:1", "4=held_out.jsonl:1"):
        assert f"pairs.jsonl:{pair}" in listed
    assert "⟦Two.<|im_end|>⟧" in shown
    assert "data.on_contradictions: drop leaves out both" in str(caught.value)
    assert "data.on_leaks: drop leaves them out of training" in str(caught.value)
    (page,) = (tmp_path / "outputs" / "inspected").glob("*.html")
    assert "Contradictory training rows: 3" in " ".join(page.read_text().split())


def test_data_neither_steers_the_terminal_nor_becomes_markup(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    more = {**GOOD, "instruction": f"And {HOSTILE}?"}  # one of the two is held out
    path = write_jsonl(tmp_path / "bad.jsonl", [GOOD, more, *BAD])

    with pytest.raises(DataError) as caught:
        inspect_data.run(config_path, [], str(path))

    shown = capsys.readouterr().out + str(caught.value)
    (page,) = (tmp_path / "outputs" / "inspected").glob("*.html")
    html = page.read_text()
    for text in (shown, html):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "U+202E" in text
        assert "=cmd|" in text
    assert "<script>alert(1)</script>" in shown
    assert "<script" not in html


def test_a_source_without_a_usable_row_is_shown_and_refused(
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "none.jsonl", BAD)

    with pytest.raises(DataError, match="no usable row is left to train on"):
        inspect_data.run(config_path, ["data.on_bad_rows=skip"], str(path))

    assert "no row" in capsys.readouterr().out


def test_no_weight_is_needed(config_path: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "no-weights"
    model.mkdir()
    for file in tiny_model.iterdir():
        if file.suffix != ".safetensors":
            (model / file.name).write_bytes(file.read_bytes())

    inspect_data.run(config_path, [f"model.id={model}"], None)


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        (["--inspect-data"], None),
        (["--inspect-data", "rows.jsonl"], "rows.jsonl"),
        (["--inspect-data", "--set", "run.seed=1"], None),
    ],
)
def test_the_source_is_optional(
    arguments: list[str], source: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("run", ROOT / "tools" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen: list[str | None] = []
    monkeypatch.setattr(inspect_data, "run", lambda path, overrides, source: seen.append(source))

    result = CliRunner().invoke(module.main, arguments)

    assert result.exit_code == 0, result.output
    assert seen == [source]
