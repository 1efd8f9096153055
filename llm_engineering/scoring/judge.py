"""The judge: another model compares the adapter's answer with the base model's, in both orders."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Literal

from llm_engineering.configuration.answers import AnswersSettings, JudgeSettings, ScorerSettings
from llm_engineering.data.progress import row_bar
from llm_engineering.scoring.answers import AnsweredRow, Score
from llm_engineering.scoring.judge_endpoint import JudgeEndpoint, UnansweredError
from llm_engineering.scoring.scorers import told

logger = logging.getLogger(__name__)

Verdict = Literal["A", "B", "tie"]

_TASK = """\
Two assistants were asked the same. Compare their answers.

{criterion}

[Question]
{prompt}

[Reference answer]
{reference}

[Answer A]
{first}

[Answer B]
{second}

Reply with one line of JSON and nothing else: {{"winner": "A"}}, {{"winner": "B"}} or {{"winner": "tie"}}. \
Do not let the order or the length of the answers decide."""

_JSON = re.compile(r'"winner"\s*:\s*"(A|B|tie)"', re.IGNORECASE)
_ALONE = re.compile(r"[\s\[(\"'*`]*(?:answer\s+)?(A|B|tie)[\s\])\"'*`.]*", re.IGNORECASE)
_ASKED_AGAIN = 1
"""Times that a reply without a verdict is asked for again."""


def judged(
    rows: list[AnsweredRow],
    scorer: ScorerSettings,
    settings: AnswersSettings,
    endpoint: JudgeEndpoint | None = None,
) -> Score:
    """Compare both answers to each row, each pair in both orders.

    A row's score is 1 where the adapter's answer wins in both orders, 0 where it loses in both, and
    0.5 where the judge calls a tie or changes its mind with the order (Zheng et al., arXiv 2306.05685,
    section 3.4); the base model's is what is left of 1. Equal answers are a tie that nobody is asked
    about. A row that the judge gives no verdict on has no score, which the note counts.

    Args:
        rows: Answered by both.
        scorer: Gives the score its name.
        settings: With the judge.
        endpoint: Default: the configured one.
    """
    judge = settings.judge
    if judge is None:
        raise ValueError("no judge is configured")
    own = endpoint or JudgeEndpoint(judge)
    after: list[float | None] = []
    course, why = Counter[str](), ""
    bar = row_bar("judging", len(rows))
    for number, row in enumerate(rows, 1):
        try:
            after.append(_compare(own, judge, row, course))
        except UnansweredError as error:
            after.append(None)
            if not why:
                logger.warning("%s: %s has no verdict: %s", scorer.name, row.origin, error)
            why = why or str(error)
        bar.update(1)
        if number % 8 == 0 or number == len(rows):
            logger.info("judging: %d of %d rows", number, len(rows))
    bar.close()
    own.close()
    before = [None if one is None else 1.0 - one for one in after]
    named = told(scorer) | {
        "judge": judge.model_dump(mode="json", include={"model", "criterion", "parameters"})
    }
    return Score(
        name=scorer.name,
        settings=named,
        before=[*before],
        after=after,
        note=_note(own, course, len(rows), sum(one is None for one in after), why),
    ).compared()


def _compare(
    endpoint: JudgeEndpoint, judge: JudgeSettings, row: AnsweredRow, course: Counter[str]
) -> float:
    ours, base = row.after.text, row.before.text
    if ours == base:
        course["equal"] += 1
        return 0.5
    first = _verdict(endpoint, _question(judge, row, ours, base))
    second = _verdict(endpoint, _question(judge, row, base, ours))
    for verdict in (first, second):
        course[f"said {verdict}"] += 1
    if first != "tie" and first == second:
        course["by order"] += 1
    wins = (first == "A") + (second == "B")
    losses = (first == "B") + (second == "A")
    return 1.0 if wins == 2 else 0.0 if losses == 2 else 0.5


def _question(judge: JudgeSettings, row: AnsweredRow, first: str, second: str) -> str:
    return _TASK.format(
        criterion=judge.criterion,
        prompt=row.prompt,
        reference=row.reference,
        first=first or "(empty)",
        second=second or "(empty)",
    )


def _verdict(endpoint: JudgeEndpoint, question: str) -> Verdict:
    for again in range(_ASKED_AGAIN + 1):
        reply = endpoint.ask(question, again=again > 0)
        verdict = read_verdict(reply)
        if verdict is not None:
            endpoint.remember(question, reply)
            return verdict
    raise UnansweredError(f"the reply {reply[:80]!r} names no winner")


def read_verdict(reply: str) -> Verdict | None:
    """The winner that a reply names; None where it names none, or two different ones."""
    found = set(_JSON.findall(reply)) or {
        one[1] for one in [_ALONE.fullmatch(reply)] if one is not None
    }
    winners = {one.lower() for one in found}
    if len(winners) != 1:
        return None
    winner = winners.pop()
    return "tie" if winner == "tie" else "A" if winner == "a" else "B"


def _note(endpoint: JudgeEndpoint, course: Counter[str], rows: int, without: int, why: str) -> str:
    """How the judging went, in a sentence: what it cost, and how far it can be trusted."""
    told = [f"{endpoint.calls} requests, {endpoint.from_cache} replies from the cache"]
    if course["equal"]:
        told.append(
            f"{course['equal']} of {rows} rows have equal answers, a tie nobody was asked about"
        )
    verdicts = sum(course[f"said {one}"] for one in ("A", "B", "tie"))
    if verdicts:
        told.append(
            f"the first answer won {course['said A']} and the second {course['said B']} of {verdicts} "
            f"comparisons; in {course['by order']} of {verdicts // 2} rows the order alone decided"
        )
    if without:
        told.append(f"{without} of {rows} rows have no verdict: {why}")
    return "; ".join(told)
