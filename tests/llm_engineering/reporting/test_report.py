from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from llm_engineering.data.tokens.audit import LabelledPiece
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.model.finetuning.record import JobRecord
from llm_engineering.registry.decision import Check, Decision
from llm_engineering.reporting.previous_run import PreviousRun
from llm_engineering.reporting.report import headline_tiles, outcome, render_report
from llm_engineering.reporting.row_changes import RowChange, RowChanges
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.reporting.scripts import page_scripts
from llm_engineering.reporting.use import how_to_use

MakeRun = Callable[..., RunReport]

HOSTILE = "<script>alert(1)</script></script>\"><img src=x onerror=alert(2)>'{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page's elements, and its text as a reader sees it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown = ""
        self.marked = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "dt", "dd"):
            self.shown += " "
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.shown += data
        if "mark" in self._open:
            self.marked += data

    @property
    def line(self) -> str:
        """All text, each run of white space as one space."""
        return " ".join(self.shown.split())


def page(run: RunReport) -> Page:
    return Page(render_report(run))


def test_the_runs_page_in_zenml_is_linked_where_there_is_one(make_run: MakeRun) -> None:
    link = "https://zenml.example.com/projects/default/runs/1"
    assert {"href": link} in [attributes for tag, attributes in page(make_run(link=link)).tags]
    assert "this run in ZenML" not in page(make_run()).line


def test_headline_shows_before_after_and_the_change_between_them(run: RunReport) -> None:
    line = page(run).line
    assert "Held-out loss 3.50 → 2.80 −20.0 %" in line
    assert "Perplexity 33.1 → 16.4 −50.3 %" in line  # exp(3.5), exp(2.8), exp(-0.7) - 1
    assert "Token accuracy 36.0 % → 41.0 % +5.0 percentage points" in line
    assert "Throughput 1,500 tokens/s 150,000 tokens in 1 min 40 s" in line
    assert "Peak memory 2.2 GB" in line
    assert "Wall time 2 min 35 s 40 steps of 16 rows, 0.25 epochs" in line


def test_what_became_worse_is_not_shown_as_better(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    evaluation = Evaluation(before=run.evaluation.after, after=run.evaluation.before, samples=[])
    loss, perplexity, accuracy, *_ = headline_tiles(make_run(evaluation=evaluation))
    assert loss.note.startswith("+25.0 %")
    assert {loss.verdict, perplexity.verdict, accuracy.verdict} == {"worse"}
    assert "rose from 2.80 to 3.50" in outcome(evaluation)
    assert "fell from 3.50 to 2.80" in outcome(run.evaluation)


def test_a_loss_that_is_not_a_number_is_shown_as_such(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    after = run.evaluation.after.model_copy(update={"loss": float("nan")})
    evaluation = run.evaluation.model_copy(update={"after": after})
    assert "Held-out loss 3.50 → NaN NaN %" in page(make_run(evaluation=evaluation)).line


def test_title_names_run_base_model_and_time(run: RunReport) -> None:
    line = page(run).line
    assert "tiny-1b-questions-20261124-214700 acme/tiny-1b → LoRA adapter of rank 32" in line
    assert "24 November 2026, 21:47 UTC" in line


def test_a_resumed_run_says_so(make_run: Callable[..., RunReport], run: RunReport) -> None:
    resumed = run.record.model_copy(update={"resumed_from_step": 20})
    assert "resumed from step 20" in page(make_run(record=resumed)).line
    assert "resumed" not in page(run).line


def test_adapter_table_shows_shapes_parameters_and_totals(run: RunReport) -> None:
    line = page(run).line
    assert "q_proj 3 96 × 64 15,360" in line
    assert "down_proj 3 64 × 2,048 202,752" in line
    assert "Total 6 218,112" in line
    assert "218,112 of 1,218,112 parameters are trained: 17.9 %" in line
    assert "Alpha 16 Scaling α / r 0.5 Dropout 0 % rsLoRA off DoRA off" in line


def test_rank_stabilised_scaling_is_named(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    settings = run.lora.settings.model_copy(update={"use_rslora": True})
    lora = run.lora.model_copy(update={"settings": settings})
    assert "Scaling α / √r" in page(make_run(lora=lora)).line


def test_answers_keep_their_white_space(run: RunReport) -> None:
    shown = page(run).shown
    assert "It returns the length.\n\n    len([1])  # 1" in shown
    assert "It is a function." in shown


def test_without_samples_there_is_no_section_for_them(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    none = run.evaluation.model_copy(update={"samples": []})
    assert "Answers before and after" not in page(make_run(evaluation=none)).line


def test_data_is_summed_up(run: RunReport) -> None:
    line = page(run).line
    assert "Training 3,620 160,000 96,000 60.0 % 168 7" in line
    assert "Held-out 64 3,646 2,034 55.8 % 168 7" in line
    assert "data/train.jsonl alpaca 2,620 2,600" in line
    assert "No row was skipped, is repeated or leaks a held-out one." in line


def test_at_most_50_skipped_rows_are_listed_and_all_are_counted(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    bad = [f"data/train.jsonl:{number}: is empty" for number in range(1, 74)]
    line = page(make_run(summary=run.summary.model_copy(update={"bad_rows": bad}))).line
    assert "Skipped rows: 73" in line
    assert "data/train.jsonl:50: is empty" in line
    assert "data/train.jsonl:51: is empty" not in line
    assert "The first 50 of 73." in line


def test_the_example_marks_trained_text_and_shows_control_characters(run: RunReport) -> None:
    read = page(run)
    read_out = "trained: Hello<|im_end|> (end of what is trained)"
    assert f"<|im_start|>user↵\nHiU+200B→\t␀{read_out}" in read.shown
    assert read.marked == "Underlined text is trained" + read_out


def test_configuration_environment_and_digests_are_there(run: RunReport) -> None:
    read = page(run)
    assert "learning_rate: 0.0002" in read.shown
    for fact in ("torch 2.13.0", "Python 3.12.9", "Git commit " + "0f" * 20, "cd" * 32):
        assert fact in read.line


def test_every_chart_is_there_with_the_held_out_losses(run: RunReport) -> None:
    html = render_report(run)
    assert re.findall('role="img"><title>([^<]*)', html) == [
        *("Training rows, by length in tokens", "Held-out rows, by length in tokens"),
        *("Loss, nats per token", "Learning rate", "Throughput, tokens/s"),
        "Gradient norm, before clipping",
    ]
    assert re.findall('class="value"[^>]*>([^<]*)', html) == ["3.50", "2.80"]
    assert "mean of 5 steps" in html


def test_a_run_without_logged_points_still_has_a_report(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    empty = run.record.model_copy(update={"points": [], "held_out": []})
    assert page(make_run(record=empty)).line.count("nothing was logged") == 3


def test_text_of_the_data_never_becomes_markup(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    sample = Sample(
        origin=HOSTILE, prompt=HOSTILE, reference=HOSTILE, before=HOSTILE, after=HOSTILE
    )
    train = run.summary.train.model_copy(
        update={
            "example": [LabelledPiece(text=HOSTILE, trained=trained) for trained in (False, True)],
            "example_origin": HOSTILE,
        }
    )
    sources = [run.summary.sources[0].model_copy(update={"source": HOSTILE})]
    model = run.lora.model.model_copy(update={"id": HOSTILE})
    target = run.lora.matched[0].model_copy(update={"name": HOSTILE})
    data = run.config.data.model_copy(
        update={"sources": [run.config.data.sources[0].model_copy(update={"source": HOSTILE})]}
    )
    hostile = make_run(
        name=HOSTILE,
        config=run.config.model_copy(update={"data": data}),
        summary=run.summary.model_copy(
            update={"bad_rows": [HOSTILE], "train": train, "sources": sources}
        ),
        lora=run.lora.model_copy(update={"model": model, "matched": (target,)}),
        record=run.record.model_copy(update={"device": HOSTILE}),
        evaluation=run.evaluation.model_copy(update={"samples": [sample]}),
        manifest=run.manifest.model_copy(
            update={"hardware": HOSTILE, "packages": {HOSTILE: HOSTILE}}
        ),
    )
    read = page(hostile)
    plain = Sample(origin="a:1", prompt="a", reference="b", before="c", after="d")
    harmless = make_run(
        summary=run.summary.model_copy(update={"bad_rows": ["one"]}),
        evaluation=run.evaluation.model_copy(update={"samples": [plain]}),
    )
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in page(harmless).tags}
    assert not any(key.startswith("on") for _, attributes in read.tags for key in attributes)
    assert read.shown.count(HOSTILE) >= 15


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone(run: RunReport) -> None:
    html = render_report(run)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    read = Page(html)
    assert not {tag for tag, _ in read.tags} & {"link", "img", "iframe", "object"}
    assert [attributes for tag, attributes in read.tags if tag == "script"] == [{}, {}]
    assert not any({"src", "style"} & set(attributes) for _, attributes in read.tags)
    links = [attributes["href"] for _, attributes in read.tags if "href" in attributes]
    assert links
    assert all((link or "").startswith("#") for link in links)
    policy = next(a["content"] for _, a in read.tags if "http-equiv" in a)
    allowed = " ".join(f"'{one}'" for one in page_scripts(zooms=True)["script_hashes"])
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_is_defined_in_both_schemes(run: RunReport, scheme: str) -> None:
    css = render_report(run).split("</style>")[0]
    dark = css.index("prefers-color-scheme: dark")
    roots = [match.end() for match in re.finditer(r":root \{", css)]
    start = next(at for at in roots if (at > dark) == (scheme == "dark"))
    defined = set(re.findall(r"(--[a-z]+):", css[start : css.index("}", start)]))
    used = set(re.findall(r"var\((--[a-z]+)\)", css)) - {"--mono"}
    assert used <= defined


def test_a_run_whose_training_came_from_the_cache_says_so(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    manifest = run.manifest.model_copy(update={"wall_seconds": 5.0})
    tiles = {tile.label: tile for tile in headline_tiles(make_run(manifest=manifest))}
    assert tiles["Wall time"].note == "trained by an equal, earlier run, and taken from the cache"


def test_what_a_remote_job_was_and_cost(make_run: Callable[..., RunReport], run: RunReport) -> None:
    job = JobRecord(
        name="tiny-train-0123456789ab",
        arn="arn:aws:sagemaker:us-east-1:123456789012:training-job/tiny-train-0123456789ab",
        console="https://example.invalid/",
        region="us-east-1",
        instance_type="ml.g5.2xlarge",
        image="an/image:1",
        spot=True,
        restarts=2,
        billable_seconds=5400,
        training_seconds=6000,
        cost_usd=2.2725,
        packages={"torch": "9.9.9"},
        python="3.12.0",
        platform="Linux",
        evaluation=run.evaluation,
    )
    record = run.record.model_copy(update={"job": job})
    manifest = run.manifest.model_copy(
        update={"job": job.model_dump(exclude={"packages", "python", "platform", "evaluation"})}
    )
    remote = make_run(record=record, manifest=manifest)
    tile = headline_tiles(remote)[-1]
    assert (tile.label, tile.value) == ("Cost", "2.27 USD")
    assert tile.note == "1 h 30 min billed for ml.g5.2xlarge"
    page = render_report(remote)
    for text in (job.arn, "ml.g5.2xlarge, spot", "an/image:1", "2.27 USD"):
        assert text in page


def test_the_gates_decision_is_told_with_every_check(make_run: Callable[..., RunReport]) -> None:
    decision = Decision(
        model="Llama-qa",
        version="run-2",
        promoted=False,
        reason="better_than_production: <b>1 %</b> higher",
        production="run-1",
        checks=[
            Check(name="finite_losses", passed=True, detail="all 8 losses are finite"),
            Check(name="better_than_production", passed=False, detail="<b>1 %</b> higher"),
        ],
    )
    shown = page(make_run(promotion=decision))

    assert "Not promoted as a version of Llama-qa" in shown.line
    assert shown.line.index("Not promoted") < shown.line.index("Is it better?")
    assert "<b>1 %</b> higher" in shown.line  # as text
    assert "finite_losses passed all 8 losses are finite" in " ".join(shown.line.split())
    assert "Checks for production" not in page(make_run()).line
    assert "romoted" not in page(make_run()).line


def test_the_memory_tile_says_what_was_planned(make_run: MakeRun) -> None:
    tiles = {tile.label: tile for tile in headline_tiles(make_run())}
    note = tiles["Peak memory"].note
    assert note.endswith(" · micro-batch 2 x 8, no checkpointing · planned 3.4 GB")
    run = make_run()
    plan = run.record.plan.model_copy(update={"off_by": 0.031})
    corrected = make_run(record=run.record.model_copy(update={"plan": plan}))
    tiles = {tile.label: tile for tile in headline_tiles(corrected)}
    assert tiles["Peak memory"].note == f"{note} · by a measured step, +3.1 % of what was estimated"


def test_exports_are_told_with_difference_and_tolerance(run: RunReport) -> None:
    text = page(run).line
    assert "adapter the trained model in memory, bfloat16 0.300 of 4 0.00123 of 0.015" in text
    assert "merged_16bit the trained model in memory, bfloat16 0.600 of 4" in text
    assert "3 of 4" in text


def test_the_report_tells_what_proves_an_export(make_run: MakeRun, run: RunReport) -> None:
    def told(**changes: Any) -> str:
        proofs = [proof.model_copy(update=changes) for proof in run.manifest.parity]
        return page(make_run(manifest=run.manifest.model_copy(update={"parity": proofs}))).line

    alone = "outputs could not tell it from none"
    text = told(proven_by="outputs and stored tensors", tensors=1234, update_kept=0.95)
    assert "3 of 4 outputs and stored tensors 1,234 tensors" in text
    assert alone not in text
    assert "Rounding to 16 bit" not in text
    text = told(proven_by="stored tensors", tensors=28, update_kept=0.61)
    assert alone in text
    assert "Rounding to 16 bit leaves 61.0 % of what the adapter changes in merged_16bit" in text


def test_forgetting_is_told_and_too_much_of_it_is_marked(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    assert "the loss went from 3.20 to 3.28 nats per token: +2.5 %" in page(run).line
    assert '<b class="worse">+2.5' not in render_report(run)
    registry = run.config.registry.model_copy(update={"max_forgetting": 0.02})
    strict = make_run(config=run.config.model_copy(update={"registry": registry}))
    assert '<b class="worse">+2.5' in render_report(strict)


def test_what_was_not_measured_has_no_section(
    make_run: Callable[..., RunReport], run: RunReport
) -> None:
    bare = make_run(
        evaluation=run.evaluation.model_copy(update={"generic": None}),
        manifest=run.manifest.model_copy(update={"parity": []}),
    )
    html = render_report(bare)
    assert ">General text</h2>" not in html
    assert ">Exports</h2>" not in html


def test_sections_come_in_the_order_of_the_readers_questions(run: RunReport) -> None:
    html = render_report(run)
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert headings == [
        *("Is it better?", "General text"),
        *("What does it answer?", "Answers before and after"),
        *("May I trust it?", "Exports", "Data"),
        *("How do I use it?", "Use it"),
        *("How was it made?", "Training", "Adapter", "Configuration and environment"),
    ]
    for anchor in re.findall(r'href="#([^"]*)"', html):
        assert html.count(f'id="{anchor}"') == 1


def test_a_question_without_an_answer_is_not_asked(make_run: MakeRun, run: RunReport) -> None:
    none = run.evaluation.model_copy(update={"samples": []})
    assert "What does it answer?" not in page(make_run(evaluation=none)).line


def test_words_that_changed_are_marked(make_run: MakeRun, run: RunReport) -> None:
    sample = run.evaluation.samples[0].model_copy(
        update={"before": "It returns a <b>.", "after": "It returns the <b>."}
    )
    html = render_report(
        make_run(evaluation=run.evaluation.model_copy(update={"samples": [sample]}))
    )
    assert "It returns <del>a</del> &lt;b&gt;." in html
    assert "It returns <ins>the</ins> &lt;b&gt;." in html


def test_best_and_worst_rows_are_shown(make_run: MakeRun) -> None:
    best = RowChange("data/held_out.jsonl:7", "Asked <b>", "Answered", 3.0, 1.0)
    worst = RowChange("data/held_out.jsonl:9", "", "Plain text", 2.0, 2.5)
    line = page(make_run(rows=RowChanges([best], [worst], risen=1, rows=64))).line
    assert "Of 64 rows the loss of 1 rose." in line
    assert "data/held_out.jsonl:7 3.00 → 1.00 Asked <b> Answered" in line
    assert "data/held_out.jsonl:9 2.00 → 2.50 Plain text" in line
    assert "Best and worst rows" not in page(make_run()).line


def test_the_run_before_is_told_with_what_differs(make_run: MakeRun) -> None:
    before = PreviousRun(
        "run-1", [("lora.r", "16", "32")], [("Held-out loss", "2.90", "2.80")], same_data=False
    )
    line = page(make_run(previous=before)).line
    assert "run-1 trained the same model on the same source. The prepared data differ" in line
    assert "Held-out loss 2.90 2.80" in line
    assert "lora.r 16 32" in line
    assert "Since the run before" not in page(make_run()).line


def test_there_is_code_to_copy(run: RunReport) -> None:
    shown = page(run).shown
    assert f"--ask 'What does `len` do?' --of outputs/{run.name}" in shown
    assert f'adapter = "outputs/{run.name}/adapter"' in shown
    compile(how_to_use(run).python, "card", "exec")


def test_memory_is_told_by_what_takes_it(run: RunReport) -> None:
    assert "Weights, planned 2.0 GB Adapter and optimizer 100 MB" in page(run).line


@pytest.mark.parametrize(
    ("failed", "colour"), [("better_than_production", ""), ("forgetting", "worse")]
)
def test_a_run_that_is_merely_no_better_is_not_red(
    make_run: MakeRun, failed: str, colour: str
) -> None:
    check = Check(name=failed, passed=False, detail="so")
    decision = Decision(model="m", version="v", promoted=False, reason="so", checks=[check])
    assert f'<b class="{colour}">Not promoted' in render_report(make_run(promotion=decision))
