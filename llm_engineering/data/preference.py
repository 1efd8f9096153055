"""Preference data: two answers of which one is better, or one answer that is good or bad.

A prepared row holds what supervised rows hold (``input_ids``, ``labels`` and ``messages`` of the
better answer), and beside it the prompt and each answer on their own, as trl's trainers take them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.schema import DataSettings, ModelSettings, Objective
from llm_engineering.data.audit import LabelAudit, audit_labels
from llm_engineering.data.conversation import Message, UnusableRowError, to_conversation
from llm_engineering.data.dataset import DatasetSummary, PreparedDataset, SourceSummary
from llm_engineering.data.sources import BadRow, Row, read_rows
from llm_engineering.data.tokenization import IGNORED, TokenizedRow, tokenize
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_SHOWN_BAD_ROWS = 20
_LABELS = {"true": True, "false": False, "1": True, "0": False}  # CSV has text alone


@dataclass(frozen=True)
class Preference:
    """A prompt, ending with a user's message, and what is said about answers to it.

    ``answers`` are "chosen" and "rejected", the better first, or one "completion" whose ``label``
    says whether it is good.
    """

    prompt: list[Message]
    answers: dict[str, str]
    label: bool | None = None


@dataclass(frozen=True)
class TokenizedPreference:
    """A preference in tokens: every answer is whole; ``truncated`` says that the prompt was cut."""

    prompt_ids: list[int]
    answer_ids: dict[str, list[int]]
    truncated: bool


@dataclass(frozen=True)
class _Prepared:
    origin: str
    preference: Preference
    tokens: TokenizedPreference


def prepare_preferences(
    data: DataSettings, model: ModelSettings, *, objective: Objective, seed: int, folder: Path
) -> PreparedDataset:
    """Turn the configured sources into two tokenized, audited splits of preferences on disk.

    Args:
        data: Sources, held-out rows and what to do about bad rows.
        model: The base model whose tokenizer and chat template are used; no weight is read.
        objective: "dpo" and "orpo" take pairs, "kto" single answers (or pairs, as two of them).
        seed: Chooses the held-out prompts when ``data.held_out.fraction`` is set.
        folder: Empty folder that receives the splits (Arrow) and ``summary.json``.

    Raises:
        DataError: A source is unreadable, a row is bad (all bad rows are listed by
            ``file:line``), a split is empty or one-sided, an answer is empty or does not train its
            end, or more prompts would be cut than allowed.
    """
    bad: list[BadRow] = []
    sources: list[SourceSummary] = []
    train: list[tuple[str, Preference]] = []
    for source in data.sources:
        rows = read_rows(source.source, split=source.split, revision=source.revision)
        train += _read(source.source, islice(rows, source.max_rows), objective, sources, bad)
    if data.held_out.source:
        rows = read_rows(data.held_out.source, split=data.held_out.split)
        held_out = _read(data.held_out.source, rows, objective, sources, bad)
    else:
        train, held_out = _split(train, data.held_out.fraction or 0.0, seed)
    held_out = held_out[: data.held_out.max_rows]
    _report_bad_rows(bad, data.on_bad_rows)

    from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

    reported = len(bad)
    tokenizer = load_tokenizer(model)
    stop_ids = stop_token_ids(model, tokenizer)
    splits: dict[str, list[_Prepared]] = {"train": [], "held_out": []}
    for name, preferences in (("train", train), ("held_out", held_out)):
        for origin, preference in preferences:
            try:
                tokens = tokenize_preference(
                    preference, tokenizer, max_length=model.max_seq_length, stop_ids=stop_ids
                )
            except UnusableRowError as reason:
                bad.append(BadRow(origin, str(reason)))
            else:
                splits[name].append(_Prepared(origin, preference, tokens))
    _report_bad_rows(bad[reported:], data.on_bad_rows)
    for name, prepared in splits.items():
        _refuse_one_sided(name, prepared)
    audits = {
        name: audit_preferences(
            [row.tokens for row in prepared],
            [row.origin for row in prepared],
            tokenizer,
            stop_ids=stop_ids,
            max_truncated_share=data.max_truncated_share,
        )
        for name, prepared in splits.items()
    }
    summary = DatasetSummary(
        sources=sources,
        bad_rows=[f"{row.origin}: {row.reason}" for row in bad],
        train=audits["train"],
        held_out=audits["held_out"],
        digest=_digest(splits),
        held_out_digest=_digest({"held_out": splits["held_out"]}),
    )
    for name, prepared in splits.items():
        _write(folder / name, prepared)
    return PreparedDataset.write(folder, {}, summary)


def to_preferences(values: dict[str, Any], objective: Objective) -> list[Preference]:
    """Read a row as what an objective learns from.

    ``prompt`` is text or chat messages; ``chosen`` and ``rejected`` (or ``completion``, with
    ``label``) are text, one assistant message in a list, or the whole conversation, whose beginning
    is the prompt. For kto a pair is a good answer and a bad one.

    Raises:
        UnusableRowError: Columns are missing, a text is empty or no text, the two conversations
            begin differently, or both answers are the same.
    """
    if "chosen" in values and "rejected" in values:
        pair = _answers(values, ("chosen", "rejected"))
        if pair.answers["chosen"].strip() == pair.answers["rejected"].strip():
            raise UnusableRowError("chosen and rejected are the same text: nothing is preferred")
        if objective != "kto":
            return [pair]
        return [
            Preference(pair.prompt, {"completion": pair.answers[name]}, label=name == "chosen")
            for name in ("chosen", "rejected")
        ]
    if objective == "kto" and "completion" in values and "label" in values:
        single = _answers(values, ("completion",))
        return [Preference(single.prompt, single.answers, _label(values["label"]))]
    wanted = "prompt, completion and label" if objective == "kto" else "prompt, chosen and rejected"
    raise UnusableRowError(
        f"has columns {', '.join(map(str, values)) or '(none)'}; {objective} needs {wanted}"
    )


def tokenize_preference(
    preference: Preference,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stop_ids: frozenset[int],
) -> TokenizedPreference:
    """Tokenize a prompt and its answers; what does not fit is cut from the prompt's beginning.

    An answer cut at its end would no longer be the one that was judged, and one cut to nothing
    teaches the opposite of its pair.

    Args:
        preference: Prompt and answers.
        tokenizer: With the run's chat template set.
        max_length: Longest prompt and answer together, in tokens.
        stop_ids: Tokens that end a turn in generation.

    Raises:
        UnusableRowError: An answer leaves no room for a prompt, the answers have the same tokens, or
            as ``tokenize``.
    """
    prompt_ids: list[int] = []
    answer_ids: dict[str, list[int]] = {}
    for name, text in preference.answers.items():
        conversation = [*preference.prompt, {"role": "assistant", "content": text}]
        row = tokenize(
            conversation,
            tokenizer,
            max_length=sys.maxsize,
            loss_on="completion",
            stop_ids=stop_ids,
        )
        start = max(i for i, label in enumerate(row.labels) if label == IGNORED) + 1
        prompt_ids, answer_ids[name] = row.input_ids[:start], row.input_ids[start:]
    longest = max(answer_ids, key=lambda name: len(answer_ids[name]))
    room = max_length - len(answer_ids[longest])
    if room < 1:
        raise UnusableRowError(
            f"{longest} has {len(answer_ids[longest])} tokens, which leaves no room for the prompt "
            f"in model.max_seq_length ({max_length}); raise it, or shorten the row"
        )
    if len(answer_ids) > len({tuple(ids) for ids in answer_ids.values()}):
        raise UnusableRowError("chosen and rejected have the same tokens: nothing is preferred")
    return TokenizedPreference(prompt_ids[-room:], answer_ids, truncated=len(prompt_ids) > room)


def audit_preferences(
    rows: Sequence[TokenizedPreference],
    origins: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    stop_ids: frozenset[int],
    max_truncated_share: float,
) -> LabelAudit:
    """Count what is trained; tokens are those of every answer with its prompt, rows are pairs.

    Args:
        rows: Preferences of one split.
        origins: ``file:line`` of each row.
        tokenizer: To show one row as text.
        stop_ids: Tokens that end a turn in generation.
        max_truncated_share: Largest share (0 to 1) of rows whose prompt may have been cut.

    Raises:
        DataError: An answer has no token or does not train exactly one stop token, or more prompts
            were cut than allowed. Names rows by ``file:line``.
    """
    sequences = [
        (origin, TokenizedRow(*_labelled(row.prompt_ids, ids), turns=1, truncated=False))
        for row, origin in zip(rows, origins, strict=True)
        for ids in row.answer_ids.values()
    ]
    audit = audit_labels(
        [row for _, row in sequences],
        [origin for origin, _ in sequences],
        tokenizer,
        stop_ids=stop_ids,
        loss_on="completion",
        max_truncated_share=1.0,
    )
    cut = [origin for row, origin in zip(rows, origins, strict=True) if row.truncated]
    if len(cut) > max_truncated_share * len(rows):
        raise DataError(
            f"{cut[0]}: prompt and answer of this row and {len(cut) - 1} more of {len(rows)} "
            f"({len(cut) / len(rows):.1%}) are longer than model.max_seq_length and would lose the "
            f"beginning of the prompt; allowed by data.max_truncated_share: "
            f"{max_truncated_share:.1%}. Raise model.max_seq_length, or that share"
        )
    return audit.model_copy(update={"rows": len(rows), "truncated_rows": len(cut)})


def _read(
    name: str,
    rows: Iterable[Row | BadRow],
    objective: Objective,
    sources: list[SourceSummary],
    bad: list[BadRow],
) -> list[tuple[str, Preference]]:
    read, usable = 0, []
    for row in rows:
        read += 1
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            usable += [(row.origin, one) for one in to_preferences(row.values, objective)]
        except UnusableRowError as reason:
            bad.append(BadRow(row.origin, str(reason)))
    sources.append(SourceSummary(source=name, rows=read))
    return usable


def _answers(values: dict[str, Any], names: tuple[str, ...]) -> Preference:
    """Prompt and answers, wherever the prompt stands."""
    given = _messages(values["prompt"], "prompt", "user") if "prompt" in values else None
    prompts, answers = [], {}
    for name in names:
        *before, answer = _messages(values[name], name, "assistant")
        if given is None and not before:
            raise UnusableRowError(f"has no prompt: neither a column nor messages in {name}")
        if given is not None and before and before != given:
            raise UnusableRowError(f"{name} does not begin with the prompt")
        prompt = before if given is None else given
        try:
            *prompt, checked = to_conversation({"messages": [*prompt, answer]})
        except UnusableRowError as reason:
            raise UnusableRowError(f"prompt with {name}: {reason}") from None
        prompts.append(prompt)
        answers[name] = checked["content"]
    if prompts[0] != prompts[-1]:
        raise UnusableRowError("chosen and rejected do not answer the same prompt")
    return Preference(prompts[0], answers)


def _messages(value: Any, name: str, role: str) -> list[Any]:
    """A column as messages; text is one message of the role that it stands for."""
    if isinstance(value, str):
        if not value.strip():
            raise UnusableRowError(f"{name} is empty")
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value:
        if role == "assistant" and not (
            isinstance(value[-1], dict) and value[-1].get("role") == "assistant"
        ):
            raise UnusableRowError(f"{name} does not end with an assistant message")
        return value
    kind = "null" if value is None else "empty" if value == [] else type(value).__name__
    raise UnusableRowError(f"{name} is {kind}, expected text or messages")


def _label(value: Any) -> bool:
    found = value if isinstance(value, bool) else _LABELS.get(str(value).strip().lower())
    if found is None:
        raise UnusableRowError(f"label is {value!r}, expected true or false")
    return found


def _split(
    rows: list[tuple[str, Preference]], fraction: float, seed: int
) -> tuple[list[tuple[str, Preference]], list[tuple[str, Preference]]]:
    """Hold out about ``fraction`` of the prompts, at least one, each with all its answers."""
    if not rows:
        return [], []
    places = [_place(preference.prompt, seed) for _, preference in rows]
    limit = max(fraction, min(places))
    return (
        [row for row, place in zip(rows, places, strict=True) if place > limit],
        [row for row, place in zip(rows, places, strict=True) if place <= limit],
    )


def _place(prompt: list[Message], seed: int) -> float:
    """A number from 0 to 1, evenly spread, that the prompt and the seed decide."""
    text = json.dumps([seed, prompt], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _report_bad_rows(bad: Sequence[BadRow], on_bad_rows: str) -> None:
    if not bad:
        return
    listed = [f"{row.origin}: {row.reason}" for row in bad[:_SHOWN_BAD_ROWS]]
    if len(bad) > _SHOWN_BAD_ROWS:
        listed.append(f"... and {len(bad) - _SHOWN_BAD_ROWS} more")
    if on_bad_rows == "error":
        raise DataError(
            "\n".join(listed)
            + f"\n{len(bad)} bad row(s). Mend them, or set data.on_bad_rows: skip to train without "
            "them (the report counts them)"
        )
    logger.warning("skipping %d bad row(s):\n%s", len(bad), "\n".join(listed))


def _refuse_one_sided(split: str, rows: Sequence[_Prepared]) -> None:
    key = "data.sources" if split == "train" else "data.held_out"
    if not rows:
        raise DataError(f"{key}: no usable row is left")
    labels = {row.preference.label for row in rows}
    if len(labels) == 1 and labels != {None}:
        raise DataError(
            f"{key}: every row has label {str(labels.pop()).lower()}; kto learns from good answers "
            "and bad ones"
        )


def _labelled(prompt_ids: list[int], ids: list[int]) -> tuple[list[int], list[int]]:
    return prompt_ids + ids, [IGNORED] * len(prompt_ids) + ids


def _write(folder: Path, rows: Sequence[_Prepared]) -> None:
    import datasets

    ids = datasets.List(datasets.Value("int32"))
    features: dict[str, Any] = {
        "input_ids": ids,
        "labels": ids,
        "origin": datasets.Value("string"),
        "messages": datasets.Value("string"),
        "prompt_ids": ids,
    }
    names = list(rows[0].preference.answers)
    features |= {f"{name}_ids": ids for name in names}
    if rows[0].preference.label is not None:
        features["label"] = datasets.Value("bool")
    columns: dict[str, list[Any]] = {name: [] for name in features}
    for row in rows:
        prompt_ids, first = row.tokens.prompt_ids, row.tokens.answer_ids[names[0]]
        answer = {"role": "assistant", "content": row.preference.answers[names[0]]}
        messages = [*row.preference.prompt, answer]
        input_ids, labels = _labelled(prompt_ids, first)
        values: dict[str, Any] = {
            "input_ids": input_ids,
            "labels": labels,
            "origin": row.origin,
            "messages": json.dumps(messages, ensure_ascii=False),
            "prompt_ids": prompt_ids,
            "label": row.preference.label,
        }
        values |= {f"{name}_ids": found for name, found in row.tokens.answer_ids.items()}
        for name in features:
            columns[name].append(values[name])
    split = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    split.save_to_disk(folder)


def _digest(splits: dict[str, list[_Prepared]]) -> str:
    """SHA-256 over what is trained and evaluated: token ids and labels, in order."""
    sha = hashlib.sha256()
    for name, rows in splits.items():
        sha.update(name.encode())
        for row in rows:
            values = [row.tokens.prompt_ids, row.tokens.answer_ids, row.preference.label]
            sha.update(json.dumps(values).encode())
    return sha.hexdigest()
