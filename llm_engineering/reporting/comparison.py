"""Several runs on one page: what was configured otherwise, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.reporting import formats
from llm_engineering.reporting.charts import Point, Series, moving_mean
from llm_engineering.reporting.contents import with_contents
from llm_engineering.reporting.page import page_templates
from llm_engineering.reporting.previous_run import FIGURES, figure_rows, setting_differences
from llm_engineering.reporting.scripts import page_scripts
from llm_engineering.reporting.word_differences import word_differences
from llm_engineering.reporting.zoom import zooming_figure, zooms

MOST_RUNS = 6
"""That a chart's lines are told apart by colour and dashes."""
_STYLES = ("run1", "run2", "run3", "run4", "run5", "run6")
_MOST_PROMPTS = 20
_WIDE = 720


@dataclass(frozen=True)
class ComparedRun:
    """A finished run, as far as its folder and ZenML still have it."""

    name: str
    manifest: Mapping[str, Any]
    figures: Mapping[str, float]
    record: TrainingRecord | None
    evaluation: Evaluation | None
    outcome: str
    """Of the promotion gate, in a word or two."""
    missing: str = ""
    """Why curve and answers are not there."""


@dataclass(frozen=True)
class Verdict:
    """A run held against the first one, row by row."""

    name: str
    text: str


def render_comparison(runs: Sequence[ComparedRun], verdicts: Sequence[Verdict] = ()) -> str:
    """Render the page; it loads nothing, and runs nothing but what zooms its curves.

    Args:
        runs: From two to ``MOST_RUNS``; the first is that which the others are held against.
        verdicts: Whether the others are better than the first beyond noise, where that is known.
    """
    settings = setting_differences([run.manifest["config"] for run in runs])
    environment = setting_differences([_environment(run.manifest) for run in runs])
    prompts, left_out = _answers(runs)
    drawn = _loss_figures(runs)
    return (
        page_templates()
        .get_template("comparison.html.jinja")
        .render(
            runs=runs,
            letters=[chr(ord("A") + number) for number in range(len(runs))],
            figures=_figures(runs),
            warnings=_warnings(runs),
            verdicts=verdicts,
            settings=settings,
            environment=environment,
            figures_of_loss=drawn,
            prompts=prompts,
            prompts_left_out=left_out,
            with_contents=with_contents,
            **page_scripts(zooms=zooms(*drawn)),
        )
    )


def same_rows(one: ComparedRun, other: ComparedRun) -> bool:
    """Whether the losses of two runs are of the same held-out rows, counted on the same tokens."""
    if one.evaluation is None or other.evaluation is None:
        return False
    ours, theirs = one.evaluation.before, other.evaluation.before
    return bool(
        ours.row_tokens
        and ours.row_tokens == theirs.row_tokens
        and one.manifest["base_model_digests"] == other.manifest["base_model_digests"]
        and one.manifest["chat_template_digest"] == other.manifest["chat_template_digest"]
    )


def _figures(runs: Sequence[ComparedRun]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Each figure of each run, and whether it is the best of them."""
    rows = []
    for key, shown in figure_rows([run.figures for run in runs]):
        figure = FIGURES[key]
        known = [run.figures[key] for run in runs if key in run.figures]
        best = (min if figure.better == "lower" else max)(known) if figure.better else None
        is_told = len(set(shown)) > 1  # of equal ones none is the best
        rows.append(
            (
                figure.label,
                [
                    (text, is_told and best is not None and run.figures.get(key) == best)
                    for text, run in zip(shown, runs, strict=True)
                ],
            )
        )
    rows.append(("Production", [(run.outcome, False) for run in runs]))
    return rows


def _warnings(runs: Sequence[ComparedRun]) -> list[str]:
    first = runs[0]
    told = [f"{run.name}: {run.missing}" for run in runs if run.missing]
    for run in runs[1:]:
        known = first.evaluation is not None and run.evaluation is not None
        if known and not same_rows(first, run):
            told.append(
                f"{run.name} was measured on other held-out rows than {first.name}, or counts other "
                "tokens: their losses say nothing of which is better"
            )
        elif not known and run.manifest["data_digest"] != first.manifest["data_digest"]:
            told.append(
                f"{run.name} has other data than {first.name}: their losses may be of other rows"
            )
    return told


def _loss_figures(runs: Sequence[ComparedRun]) -> list[Markup]:
    """Training losses laid over each other; and the held-out ones, where more than two were taken."""
    training, held_out = [], []
    for run, style, letter in zip(runs, _STYLES, "ABCDEF", strict=False):
        if run.record is None:
            continue
        points: list[Point] = [(float(one.step), one.loss) for one in run.record.points]
        window = 2 * (min(len(points), 800) // 16) + 1
        training.append(Series(letter, moving_mean(points, window), style))  # type: ignore[arg-type]
        measured = run.record.validation or run.record.held_out
        if len(measured) > 2:
            course: list[Point] = [(float(one.step), one.metrics.loss) for one in measured]
            held_out.append(Series(letter, course, style))  # type: ignore[arg-type]
    drawn = [("Training loss, smoothed", training), ("Held-out loss", held_out)]
    units = {run.evaluation.after.unit for run in runs if run.evaluation is not None}
    unit = units.pop() if len(units) == 1 else ""
    return [
        zooming_figure(title, unit, series, width=_WIDE, height=300, label=f"{title}, of each run")
        for title, series in drawn
        if series
    ]


def _answers(
    runs: Sequence[ComparedRun],
) -> tuple[list[tuple[str, str, str, str, list[Markup | None]]], int]:
    """Prompts that several runs answered: where from, prompt, reference, the base model's, theirs."""
    found: dict[tuple[str, str], list[Any]] = {}
    for number, run in enumerate(runs):
        for sample in run.evaluation.samples if run.evaluation else ():
            answers = found.setdefault((sample.origin, sample.prompt), [None] * len(runs))
            answers[number] = sample
    shared = [
        (key, samples) for key, samples in found.items() if sum(s is not None for s in samples) > 1
    ]
    told = []
    for (origin, prompt), samples in shared[:_MOST_PROMPTS]:
        first = next(sample for sample in samples if sample is not None)
        marked = [
            None if sample is None else word_differences(first.after, sample.after)[1]
            for sample in samples
        ]
        told.append((origin, prompt, first.reference, first.before, marked))
    return told, len(shared) - len(told)


def _environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    names = ("git_commit", "hardware", "python", "platform", "data_digest", "chat_template_digest")
    told = {name: manifest.get(name) for name in names}
    return {**told, "packages": manifest.get("packages", {})}


def outcome_of(promotion: Mapping[str, Any] | None) -> str:
    """What the gate decided, from a run's ``promotion.json``."""
    if promotion is None:
        return "not decided"
    if promotion["promoted"]:
        return "promoted"
    failed = [check["name"] for check in promotion.get("checks", ()) if not check["passed"]]
    return f"not promoted: {', '.join(failed)}" if failed else "not promoted"


def better(name: str, first: str, share: float, at_least: float, confidence: float) -> Verdict:
    """What a paired bootstrap over the rows says.

    Args:
        name: Of the run.
        first: Of the run that it is held against.
        share: Its loss is lower by so much; negative: higher.
        at_least: Lower bound of that, at the confidence.
        confidence: From 0.5 to 1.
    """
    course = f"its loss is {formats.change(-share)} against {first}"
    sure = f"{formats.trimmed(100 * confidence)} % confidence"
    if at_least > 0:
        return Verdict(
            name,
            f"{course}, and beyond noise: at {sure} lower by {formats.percent(at_least)} or more",
        )
    return Verdict(name, f"{course}, which may be noise at {sure}")
