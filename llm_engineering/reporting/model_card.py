"""The model card: the README.md that lies with an adapter, as the Hugging Face Hub reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llm_engineering.data.read.sources import is_file
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.model.base_model import is_hub_model
from llm_engineering.model_class import auto_class_name
from llm_engineering.objectives import OBJECTIVES, Objective
from llm_engineering.reporting import formats
from llm_engineering.reporting.answers_section import how_made
from llm_engineering.reporting.run_report import RunReport

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_EXAMPLE = 200  # characters


def render_model_card(run: RunReport, *, merged: bool = False) -> str:
    """Render a README.md: YAML front matter, results, how to use it, how it was made.

    Args:
        run: The run.
        merged: Whether it lies with the merged model rather than with the adapter.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,  # noqa: S701  (Markdown: text of the data goes through `code`)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        change=formats.change,
        cell=cell,
        code=code,
        count=formats.count,
        duration=formats.duration,
        fixed=formats.fixed,
        signed=formats.signed,
        number=formats.number,
        percent=formats.percent,
        python=_python,
        size=formats.size,
        trimmed=formats.trimmed,
    )
    return environment.get_template("model_card.md.jinja").render(
        run=run,
        objective=_objective(run),
        merged=merged,
        auto_class=auto_class_name(run.lora.model.architecture),
        front_matter=yaml.safe_dump(
            front_matter(run, merged=merged), sort_keys=False, allow_unicode=True
        ),
        folder=(
            Path(run.config.run.output_dir) / run.name / ("merged" if merged else "adapter")
        ).as_posix(),
        merged_kwargs=', dtype="auto"'
        + (", trust_remote_code=True" if run.lora.model.trust_remote_code else ""),
        base_is_folder=not is_hub_model(run.config.model),
        base_kwargs=_base_kwargs(run),
        template_kwargs="".join(
            f", {name}={value!r}" for name, value in run.summary.template_inputs.variables.items()
        ),
        belongs_to_nf4=INITIALISATIONS[run.lora.settings.init].belongs_to_quantised,
        example_prompt=_example_prompt(run),
        answers_how=how_made(run.evaluation.answers) if run.evaluation.answers else "",
        settings=_training_settings(run),
    )


def _objective(run: RunReport) -> Objective:
    return OBJECTIVES[run.record.objective]


def front_matter(run: RunReport, *, merged: bool = False) -> dict[str, object]:
    """The card's metadata; ``datasets`` names those that are on the Hub."""
    data = run.config.data
    sources = [one.source for one in data.sources]
    sources += [data.held_out.source] if data.held_out.source else []
    on_hub = [source for source in dict.fromkeys(sources) if not is_file(source)]
    metadata: dict[str, object] = {
        "base_model": run.lora.model.id,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", run.record.objective, "unsloth", "trl", "zenml"],
    }
    if merged:
        metadata["base_model_relation"] = "finetune"
    return metadata | ({"datasets": on_hub} if on_hub else {})


def code(text: object) -> str:
    """Text as a Markdown code span on one line, in which nothing is markup."""
    line = " ".join(str(text).split()) or " "
    longest = max((len(ticks) for ticks in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"


def cell(text: object) -> str:
    """A code span for a table's cell, where a bar would end it."""
    return code(text).replace("|", "\\|")


def _python(text: str) -> str:
    """A Python string literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _example_prompt(run: RunReport) -> str:
    """The first short prompt that was answered for the report."""
    prompts = (sample.prompt for sample in run.evaluation.samples)
    return next((prompt for prompt in prompts if len(prompt) <= _LONGEST_EXAMPLE), "Hello!")


def _base_kwargs(run: RunReport) -> str:
    """Arguments that load the base model as it was trained, its quantisation aside."""
    model = run.lora.model
    kwargs = f", dtype=torch.{model.dtype}"
    kwargs += f", revision={_python(model.revision)}" if model.revision else ""
    if model.rope_scaling:
        kwargs += ", **stretched"
    return kwargs + (", trust_remote_code=True" if model.trust_remote_code else "")


def _training_settings(run: RunReport) -> dict[str, str]:
    lora, settings, train = run.lora, run.lora.settings, run.config.train
    return {
        "Rank": formats.count(settings.r)
        + ("" if settings.saved_rank == settings.r else f" trained, {settings.saved_rank} saved"),
        "Alpha": formats.count(settings.lora_alpha),
        "Scaling": f"{formats.trimmed(lora.scaling)} "
        f"({'alpha / sqrt(r), rsLoRA' if settings.use_rslora else 'alpha / r'})",
        "Initialisation": settings.init,
        "DoRA": "on" if settings.use_dora else "off",
        "Dropout": formats.percent(settings.lora_dropout),
        "Biases trained": settings.bias,
        "Target modules": ", ".join(cell(name) for name in _target_names(run)),
        **({"Tokens trained": _tokens(run)} if settings.trainable_tokens else {}),
        **({"Left without an adapter": _left_out(run)} if _left_out(run) else {}),
        "Trained parameters": f"{formats.count(lora.trainable_parameters)} of "
        f"{formats.count(lora.total_parameters)} ({formats.percent(lora.trainable_share)})",
        "Base weights": lora.model.dtype
        + ("" if lora.model.quantisation == "none" else f", {lora.model.quantisation}"),
        "Longest row": f"{formats.count(lora.model.max_seq_length)} tokens"
        + (
            f", positions stretched {scaling.factor:g} times by {scaling.rope_type}"
            if (scaling := lora.model.rope_scaling)
            else ""
        ),
        "Objective": run.record.objective
        + (f", beta {run.record.beta:g}" if _objective(run).is_preference else ""),
        "Loss on": run.config.data.loss_on,
        "Optimizer": train.optimizer,
        "Peak learning rate": f"{train.peak_learning_rate:g}",
        "Schedule": f"{train.lr_scheduler}, {formats.count(train.warmup_steps)} warm-up steps",
        "Weight decay": f"{train.weight_decay:g}",
        "Gradient clipping": f"{train.max_grad_norm:g}",
        "Rows in a step": f"{formats.count(run.record.effective_batch)} "
        f"({run.record.plan or 'micro-batch not recorded'}"
        f"{', packed' if train.packing else ''})"
        + (f"; {run.record.step_size}" if run.record.step_size else ""),
        "Steps": f"{formats.count(run.record.steps)} ({formats.trimmed(run.record.epochs)} epochs)",
        "Tokens read": formats.count(run.record.train_tokens),
        "Training time": f"{formats.duration(run.record.train_seconds)} on "
        f"{cell(run.record.device)}",
        "Peak memory": formats.size(run.record.peak_memory_bytes),
        "Seed": str(run.config.run.seed),
    }


def _left_out(run: RunReport) -> str:
    targets = run.lora.targets
    told = [f"{cell(name)} ({why})" for name, why in targets.left_out.items()]
    if targets.experts:
        told.append("the router" + (" and the experts" if targets.frozen_experts else ""))
    return "; ".join(told)


def _tokens(run: RunReport) -> str:
    names = ", ".join(cell(token) for token in run.lora.settings.trainable_tokens)
    return f"{names}, in {' and '.join(run.lora.targets.token_rows)}"


def _target_names(run: RunReport) -> list[str]:
    return list(dict.fromkeys(target.name for target in run.lora.matched))
