"""``--reproduce``: run again what a manifest says, and tell what came out otherwise."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llm_engineering.commands import finetune
from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, to_yaml
from llm_engineering.errors import ReproductionError
from llm_engineering.outputs import run_name

if TYPE_CHECKING:
    from rich.table import Table

    from llm_engineering.reporting.manifest import Manifest

_COSTS = ("seconds", "memory", "tokens_per_second")  # what a metric's name says if time decides it


@dataclass(frozen=True)
class Compared:
    """One thing of a run, then and now."""

    name: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return self.then == self.now


def run(path: Path) -> None:
    """Train again from a manifest, without the cache, and compare.

    The run is neither promoted nor pushed. What is compared is printed as a table.

    Args:
        path: ``manifest.json`` of a finished run; relative paths in its configuration are read
            from the present folder.

    Raises:
        ReproductionError: The manifest cannot be used, model or data are not those of the run
            (known before anything is trained), or the adapter came out otherwise.
    """
    then, config = read_manifest(path)
    set_up_terminal()

    from llm_engineering.training_stack import require_training_stack

    require_training_stack()
    require_same_inputs(then, config)
    name = run_name(config, datetime.now())
    with tempfile.TemporaryDirectory() as folder:
        config_path = Path(folder, "config.yaml")
        config_path.write_text(to_yaml(config), encoding="utf-8")
        finetune.run(config_path, [], use_cache=False, name=name)

    from llm_engineering.reporting.manifest import Manifest

    folder_now = Path(config.run.output_dir) / name
    now = Manifest.model_validate_json((folder_now / "manifest.json").read_bytes())
    compared = compare(then, now, _metrics(path.parent), _metrics(folder_now))

    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = 200
    console.print(_table(compared))
    if then.adapter_digest != now.adapter_digest:
        different = [one.name for one in compared if not one.same and one.name != "adapter"]
        raise ReproductionError(
            f"--reproduce: the adapter is not that of {then.run}, to the bit; different too: "
            f"{', '.join(different) or 'nothing else that is known'}"
        )
    print(f"bit-identical to {then.run}")


def read_manifest(path: Path) -> tuple[Manifest, FinetuningConfig]:
    """A manifest, and the configuration that trains the same without promoting or pushing it.

    Raises:
        ReproductionError: It is not there, no manifest, or of another version of this project.
    """
    from llm_engineering.reporting.manifest import Manifest

    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        values = json.loads(json.dumps(manifest.config))
        values["run"]["name"] = None
        values["registry"]["promote"] = False
        values.get("export", {}).update(hub_repo=None, hub_merged_repo=None)
        # A branch may have moved since; the commit has not.
        values["model"]["revision"] = manifest.base_model_revision
        # Nor has the day on which the run prepared its data, if the chat template prints it.
        date = manifest.template_inputs.date
        values["model"]["chat_template_date"] = None if date is None else date.isoformat()
        config = FinetuningConfig.model_validate(values)
    except OSError as error:
        raise ReproductionError(f"--reproduce {path}: {error.strerror}") from None
    except (ValidationError, KeyError, TypeError) as error:
        reason = (
            "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]
            )
            if isinstance(error, ValidationError)
            else repr(error)
        )
        raise ReproductionError(
            f"--reproduce {path}: is no manifest of this version of the project ({reason}); check "
            "out the commit that it names"
        ) from None
    return manifest, config


def require_same_inputs(then: Manifest, config: FinetuningConfig) -> None:
    """Check model and data against the manifest, before a weight is loaded.

    Raises:
        DataError: A source is missing or bad.
        ModelError: The base model is missing or incomplete.
        ReproductionError: One is not what the run had; says both digests.
    """
    from llm_engineering.data.prepare import prepare_data
    from llm_engineering.model.base_model import weight_digests

    seen = weight_digests(config.model)
    for name in sorted({*seen, *then.base_model_digests}):
        was, now = then.base_model_digests.get(name, "missing"), seen.get(name, "missing")
        if was != now:
            raise ReproductionError(
                f"--reproduce: {name} of {config.model.id} has SHA-256 {now}, the run had {was}; "
                "put the old file back"
            )
    with tempfile.TemporaryDirectory() as folder:
        digest = prepare_data(
            config.data,
            config.model,
            objective=config.train.objective,
            folder=Path(folder),
            validates=config.train.validates,
            tokens=config.lora.trainable_tokens,
        ).summary.digest
    if digest != then.data_digest:
        sources = ", ".join(source.source for source in config.data.sources)
        raise ReproductionError(
            f"--reproduce: the prepared data has SHA-256 {digest}, the run had {then.data_digest}; "
            f"look at what changed in {sources}, the tokenizer or the chat template"
        )


def compare(
    then: Manifest, now: Manifest, metrics_then: dict[str, Any], metrics_now: dict[str, Any]
) -> list[Compared]:
    """Everything that a run is made of, and what came of it, side by side."""
    compared = [
        Compared("adapter", then.adapter_digest, now.adapter_digest),
        Compared("data", then.data_digest, now.data_digest),
        Compared(
            "chat template", then.chat_template_digest or "-", now.chat_template_digest or "-"
        ),
        Compared(
            "template inputs",
            then.template_inputs.model_dump_json(),
            now.template_inputs.model_dump_json(),
        ),
    ]
    for name in sorted({*then.base_model_digests, *now.base_model_digests}):
        compared.append(
            Compared(
                name,
                then.base_model_digests.get(name, "-"),
                now.base_model_digests.get(name, "-"),
            )
        )
    compared += [
        Compared("seed", str(then.seed), str(now.seed)),
        Compared("data seed", str(then.data_seed), str(now.data_seed)),
        Compared("git commit", then.git_commit or "-", now.git_commit or "-"),
        Compared("hardware", then.hardware, now.hardware),
        Compared("platform", then.platform, now.platform),
        Compared("python", then.python, now.python),
    ]
    for name in sorted({*then.packages, *now.packages}):
        compared.append(Compared(name, then.packages.get(name, "-"), now.packages.get(name, "-")))
    for name, value in metrics_then.items():
        if not any(cost in name for cost in _COSTS):
            compared.append(Compared(name, str(value), str(metrics_now.get(name, "-"))))
    return compared


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _table(compared: list[Compared]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "Then", "Now", ""):
        table.add_column(name, overflow="fold")
    for one in compared:
        mark = "[green]same[/green]" if one.same else "[red]different[/red]"
        table.add_row(one.name, _short(one.then), "" if one.same else _short(one.now), mark)
    return table


def _short(text: str) -> str:
    is_digest = len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_digest else text
