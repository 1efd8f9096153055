"""The report of a run: one HTML page that loads nothing, and runs nothing but what is in it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from llm_engineering.configuration.load import to_yaml
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.reporting import formats
from llm_engineering.reporting.answers_section import answers_section
from llm_engineering.reporting.charts import Series, line_chart, moving_mean
from llm_engineering.reporting.contents import with_contents
from llm_engineering.reporting.data_page import data_section
from llm_engineering.reporting.page import page_templates
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.reporting.samples_section import samples_section
from llm_engineering.reporting.scripts import page_scripts
from llm_engineering.reporting.use import how_to_use
from llm_engineering.reporting.zoom import zooming_figure, zooms

_WIDE, _NARROW = 720, 350  # view boxes of a chart over the page's width, and over half of it


@dataclass(frozen=True)
class Tile:
    """One headline figure: its value, or its values before and after; ``verdict`` colours it."""

    label: str
    value: str
    before: str | None = None
    note: str = ""
    verdict: str = ""


def render_report(run: RunReport) -> str:
    """Render report.html: all of it is in the page, and no text of the data becomes markup."""
    samples = samples_section(run.evaluation.samples, run.production)
    loss, margin = loss_figure(run.record), _margin_figure(run.record)
    return (
        page_templates()
        .get_template("report.html.jinja")
        .render(
            run=run,
            objective=OBJECTIVES[run.record.objective],
            tiles=headline_tiles(run),
            outcome=outcome(run.evaluation),
            verdict=_gates_verdict(run),
            with_contents=with_contents,
            use=how_to_use(run),
            memory=_memory(run.record),
            loss_figure=loss,
            small_charts=_small_charts(run.record),
            margin_figure=margin,
            **data_section(run.summary),
            told=samples,
            scored=answers_section(run.evaluation.answers, run.production, used=samples.size),
            **page_scripts(zooms=zooms(loss, margin), answers=run.evaluation.answers is not None),
            config_yaml=to_yaml(run.config),
        )
    )


def headline_tiles(run: RunReport) -> list[Tile]:
    """The figures at the top of the page; a job's cost is the seventh."""
    before, after, record = run.evaluation.before, run.evaluation.after, run.record
    verdict = _verdict(before.loss - after.loss)
    return [
        Tile(
            "Held-out loss",
            formats.number(after.loss),
            formats.number(before.loss),
            f"{formats.change(run.evaluation.loss_change)}, {after.unit}",
            verdict,
        ),
        *_quality_tiles(before, after),
        Tile(
            "Throughput",
            f"{formats.number(record.tokens_per_second)} tokens/s",
            note=f"{formats.count(record.train_tokens)} tokens in "
            f"{formats.duration(record.train_seconds)} of training",
        ),
        Tile("Peak memory", formats.size(record.peak_memory_bytes), note=_memory_note(record)),
        Tile(
            "Wall time",
            formats.duration(run.manifest.wall_seconds),
            note=_course(run),
        ),
        *(
            [
                Tile(
                    "Cost",
                    formats.usd(record.job.cost_usd),
                    note=f"{formats.duration(record.job.billable_seconds)} billed for "
                    f"{record.job.instance_type}",
                )
            ]
            if record.job
            else []
        ),
    ]


def _gates_verdict(run: RunReport) -> str:
    """Colour of the gate's decision: an equal run that is merely no better did nothing wrong."""
    if run.promotion is None or not run.promotion.checks:
        return ""
    failed = {check.name for check in run.promotion.checks if not check.passed}
    if run.promotion.promoted:
        return "better"
    return "worse" if failed - {"better_than_production"} else ""


def _memory(record: TrainingRecord) -> list[tuple[str, str]]:
    """What was planned for each part, and what was used at most; empty where nothing was planned."""
    estimate = record.plan.estimate if record.plan else None
    if estimate is None:
        return []
    parts = [
        (label, getattr(estimate, name))
        for label, name in (
            ("Weights, planned", "weights"),
            ("Adapter and optimizer", "adapter"),
            ("Activations", "activations"),
            ("Working space", "working"),
            ("Evaluation", "evaluation"),
        )
    ]
    planned = [(label, formats.size(int(size))) for label, size in parts if size]
    return [*planned, ("Used at most", formats.size(record.peak_memory_bytes))]


def _memory_note(record: TrainingRecord) -> str:
    """Where it was used, how the rows went through, and what was planned."""
    planned = record.planned_memory_bytes
    return " · ".join(
        [
            record.device,
            *([str(record.plan)] if record.plan else []),
            *([f"planned {formats.size(planned)}"] if planned else []),
            *_correction(record),
        ]
    )


def _correction(record: TrainingRecord) -> list[str]:
    off_by = record.plan.off_by if record.plan else None
    return (
        []
        if off_by is None
        else [f"by a measured step, {100 * off_by:+.1f} % of what was estimated"]
    )


def _quality_tiles(before: HeldOutMetrics, after: HeldOutMetrics) -> list[Tile]:
    """The two figures beside the loss: of preferences where they were learned, else of tokens."""
    if before.rewards is not None and after.rewards is not None:
        was, now = before.rewards, after.rewards
        first = Tile(
            "Reward margin",
            formats.number(now.margin),
            formats.number(was.margin),
            "better answers minus worse",
            _verdict(now.margin - was.margin),
        )
        return [first, _share_tile("Reward accuracy", was.accuracy, now.accuracy)]
    first = Tile(
        "Perplexity",
        formats.number(after.perplexity),
        formats.number(before.perplexity),
        formats.change(after.perplexity / before.perplexity - 1),
        _verdict(before.loss - after.loss),
    )
    return [first, _share_tile("Token accuracy", before.token_accuracy, after.token_accuracy)]


def _share_tile(label: str, before: float, after: float) -> Tile:
    gain = after - before
    return Tile(
        label,
        formats.percent(after),
        formats.percent(before),
        f"{formats.change(gain).removesuffix(' %')} percentage points",
        _verdict(gain),
    )


def _course(run: RunReport) -> str:
    """How far training went; or, where the run is shorter than its training, why that is."""
    record = run.record
    if record.job is None and run.manifest.wall_seconds < record.train_seconds:
        return "trained by an equal, earlier run, and taken from the cache"
    return (
        f"{formats.count(record.steps)} steps of {formats.count(record.effective_batch)} rows, "
        f"{formats.trimmed(record.epochs)} epochs"
    )


def outcome(evaluation: Evaluation) -> str:
    """The result in a sentence."""
    before, after = evaluation.before, evaluation.after
    verb = {"better": "fell", "worse": "rose"}.get(_verdict(before.loss - after.loss))
    course = (
        f"{verb} from {formats.number(before.loss)} to {formats.number(after.loss)}"
        if verb
        else f"went from {formats.number(before.loss)} to {formats.number(after.loss)}"
    )
    rows = f"On {formats.count(after.rows)} held-out rows"
    if after.rewards is None:
        rows += f" ({formats.count(after.tokens)} labelled tokens)"
    return f"{rows}, which were not trained on, the loss {course} {after.unit}."


def _verdict(gain: float) -> str:
    return "better" if gain > 0 else "worse" if gain < 0 else ""


def loss_figure(record: TrainingRecord) -> Markup:
    """The loss of a training so far, as a figure that zooms."""
    points = [(float(point.step), point.loss) for point in record.points]
    held_out = [(float(point.step), point.metrics.loss) for point in record.held_out]
    window = 2 * (min(len(points), 800) // 16) + 1
    every = record.points[1].step - record.points[0].step if len(points) > 1 else 1
    series = [Series("training", points, "raw")]
    if window > 1:
        label = f"mean of {window * every} steps"
        series.append(Series(label, moving_mean(points, window), "line"))
    series.append(Series("held-out rows", held_out, "marks"))
    if record.validation:
        validation = [(float(point.step), point.metrics.loss) for point in record.validation]
        series.append(Series("validation rows", validation, "rings"))
    unit = record.held_out[-1].metrics.unit if record.held_out else "nats per token"
    return zooming_figure("Loss", unit, series, width=_WIDE, height=300, label="Loss")


def _margin_figure(record: TrainingRecord) -> Markup:
    """The reward margin: of the rows of each step, and of the held-out rows."""
    steps = [(float(p.step), p.reward_margin) for p in record.points if p.reward_margin is not None]
    held_out = [
        (float(point.step), point.metrics.rewards.margin)
        for point in record.held_out
        if point.metrics.rewards is not None
    ]
    series = [Series("training", steps, "line"), Series("held-out rows", held_out, "marks")]
    validation = [
        (float(point.step), point.metrics.rewards.margin)
        for point in record.validation
        if point.metrics.rewards is not None
    ]
    if validation:
        series.append(Series("validation rows", validation, "rings"))
    return zooming_figure(
        "Reward margin", "", series, width=_WIDE, height=220, label="Reward margin", from_zero=True
    )


def _small_charts(record: TrainingRecord) -> list[Markup]:
    points = record.points
    rate = [(float(point.step), point.learning_rate) for point in points]
    speed = [(float(point.step), point.tokens_per_second) for point in points]
    norm = [(float(point.step), point.grad_norm) for point in points if point.grad_norm is not None]
    drawn = [("Learning rate", "", rate), ("Throughput", "tokens/s", speed)]
    if norm:
        drawn.append(("Gradient norm", "before clipping", norm))
    return [
        line_chart(
            title, unit, [Series("", course, "line")], width=_NARROW, height=190, from_zero=True
        )
        for title, unit, course in drawn
    ]
