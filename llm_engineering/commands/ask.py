"""``--ask`` and ``--ask-file``: what a finished run's model answers, to one question or to many."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llm_engineering.configuration import load_config
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from llm_engineering.talk.answering_model import Answer, AnsweringModel
    from llm_engineering.talk.finished_run import FinishedRun

_TOGETHER = 8
"""Questions that are answered in one batch."""


def open_model(
    where: str, config_path: Path, overrides: Sequence[str]
) -> tuple[FinishedRun, AnsweringModel]:
    """Find a finished run's model and load it, saying on the error output what was found.

    Raises:
        TalkError: There is no such run, or it cannot be loaded.
    """
    config = load_config(config_path, overrides)

    from llm_engineering.talk.finished_run import find_run

    run = find_run(where, config)

    from llm_engineering.training_stack import require_training_stack

    require_training_stack()
    quiet_libraries()
    from llm_engineering.talk.answering_model import load_answering_model

    vouched = "" if run.has_manifest else "; no manifest beside it says what it was trained on"
    print(f"{run.kind} of {run.name}, on {run.base.id}{vouched}", file=sys.stderr)
    return run, load_answering_model(run)


def quiet_libraries() -> None:
    """No progress bars and no advice of the libraries between questions and answers."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def ask(question: str, where: str, config_path: Path, overrides: Sequence[str]) -> None:
    """Print the model's answer to one question, greedy, so that it is the same each time.

    Raises:
        TalkError: The model cannot be found, loaded or asked.
    """
    from llm_engineering.data.rows.message import Conversation, Message

    _, model = open_model(where, config_path, overrides)

    from llm_engineering.talk.sampling import Sampling

    prompt = model.prompt(Conversation((Message("user", question),)))
    (answer,) = model.answer([prompt], Sampling())
    print(answer.text)
    if answer.is_cut:
        print(f"(cut: it has no end within {answer.tokens} tokens)", file=sys.stderr)


def ask_file(
    questions: Path, answers: Path, where: str, config_path: Path, overrides: Sequence[str]
) -> None:
    """Answer each row of a file, greedily, and write an object a line.

    Args:
        questions: Rows as training takes them, or without their answers.
        answers: JSON lines; appears when all are written.
        where: As of ``find_run``.
        config_path: Says where runs are.
        overrides: Of its keys.

    Raises:
        DataError: A row asks nothing, or the file cannot be written.
        TalkError: The model cannot be found, loaded or asked; names the row.
    """
    from rich.progress import track

    from llm_engineering.errors import TalkError
    from llm_engineering.talk.questions import read_questions

    asked = read_questions(str(questions))
    with _when_complete(answers) as opened:
        run, model = open_model(where, config_path, overrides)

        from llm_engineering.talk.sampling import Sampling

        sampling = Sampling()
        prompts = []
        for question in asked:
            try:
                prompts.append(model.prompt(question.conversation))
            except TalkError as error:
                raise TalkError(f"{question.origin}: {error}") from None
        # Of one length, little of a batch is padding.
        order = sorted(range(len(asked)), key=lambda index: len(prompts[index]))
        found: dict[int, Answer] = {}
        batches = [order[at : at + _TOGETHER] for at in range(0, len(order), _TOGETHER)]
        shown = track(batches, "answering", disable=not sys.stderr.isatty())
        for batch in shown:
            given = model.answer([prompts[index] for index in batch], sampling)
            found.update(zip(batch, given, strict=True))
        for index, question in enumerate(asked):
            answer = found[index]
            line = {
                "origin": question.origin,
                "messages": [one.to_dict() for one in question.conversation.messages],
                "answer": answer.text,
                "reference": question.reference,
                "tokens": answer.tokens,
                "is_cut": answer.is_cut,
                "model": run.name,
                "sampling": sampling.model_dump(),
            }
            opened.write(json.dumps(line, ensure_ascii=False) + "\n")
    cut = sum(answer.is_cut for answer in found.values())
    told = f", {cut} of them cut at {sampling.max_new_tokens} tokens" if cut else ""
    print(f"{len(found)} answers in {answers}{told}")


@contextmanager
def _when_complete(answers: Path) -> Iterator[TextIO]:
    """Open a file that appears once all of it is written, and of which else nothing is left.

    Raises:
        DataError: It cannot be written; told before a model is loaded for it.
    """
    part = answers.with_name(f"{answers.name}.part")
    try:
        opened = part.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"--answers {answers}: {error.strerror}") from None
    try:
        with opened:
            yield opened
        part.replace(answers)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
