"""The rows of other projects, ``tests/corpus/rows``: what each is read as, to the last key."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.message import Conversation, Message, ToolCall
from llm_engineering.data.rows.preferences import Preference, to_preferences
from llm_engineering.data.rows.unusable import UnusableRowError

CORPUS = Path(__file__).resolve().parents[3] / "corpus" / "rows"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
BRIEF = Message("system", "Be brief.")
SUNNY = Message("assistant", "It is sunny.")


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str, **more: Any) -> Message:
    return Message("assistant", text, **more)


def calls(*cities: str, ids: tuple[str | None, ...] = (None, None), text: str = "") -> Message:
    made = [
        ToolCall("get_weather", {"city": city}, number)
        for city, number in zip(cities, ids, strict=False)
    ]
    return Message("assistant", text, tool_calls=tuple(made))


def result(text: str, **more: Any) -> Message:
    return Message("tool", text, **more)


def chat(*messages: Message, tools: bool = False) -> Conversation:
    return Conversation(list(messages), [WEATHER] if tools else [])


HELLO = chat(user("Hi"), says("Hello."))
ADDED = chat(user("What is 1 + 1?"), says("2."))
SUM = user("What is 1 + 1?")
CONVERSATIONS: dict[str, list[Conversation]] = {
    "openai_messages": [
        chat(BRIEF, SUM, says("2.")),
        chat(Message("developer", "Be brief."), user("Name a colour."), says("Red.")),
    ],
    "openai_tools": [
        chat(
            user("Weather in Rome and in Oslo?"),
            calls("Rome", "Oslo", ids=("call_1", "call_2")),
            result("Sunny", tool_call_id="call_1"),
            result("", tool_call_id="call_2"),
            says("Sunny in Rome; Oslo tells nothing."),
            tools=True,
        ),
        chat(user("Weather in Rome?"), calls("Rome", ids=("call_1",)), tools=True),
    ],
    "openai_functions": [
        chat(
            user("Weather in Rome?"),
            calls("Rome"),
            result("Sunny", name="get_weather"),
            SUNNY,
            tools=True,
        )
    ],
    "openai_weight": [
        chat(
            user("Hi"),
            says("Yo", trained=False),
            user("Politely, please."),
            says("Good day.", trained=True),
        )
    ],
    "trl_tools": [
        chat(
            Message("system", "You may call tools."),
            user("Weather in Rome?"),
            calls("Rome"),
            result("Sunny", name="get_weather"),
            SUNNY,
            tools=True,
        )
    ],
    "trl_reasoning": [
        chat(user("What is 2 + 2?"), says("4.", reasoning="Two and two.")),
        chat(user("What is 3 + 3?"), says("6.", reasoning="Three and three.")),
        chat(user("What is 4 + 4?"), says("<think>\nFour and four.\n</think>\n\n8.")),
    ],
    "trl_prompt_completion": [ADDED, ADDED],
    "llamafactory_alpaca": [
        chat(
            Message("system", "You translate."),
            user("Translate: Hund"),
            says("dog"),
            user("Translate: Katze"),
            says("cat"),
            user("Translate.\n\nHaus"),
            says("house"),
        ),
        chat(user("Say hello."), says("Hello.")),
    ],
    "llamafactory_sharegpt_tools": [
        chat(
            Message("system", "You may call tools."),
            user("Weather in Rome?"),
            calls("Rome"),
            result('{"sky": "sunny"}'),
            SUNNY,
            tools=True,
        ),
        chat(
            user("Rome and Oslo?"),
            calls("Rome", "Oslo"),
            result("Sunny; rain"),
            says("Sun and rain."),
            tools=True,
        ),
    ],
    "axolotl_train": [
        chat(
            BRIEF,
            user("Hi"),
            says("Yo", trained=False),
            user("Politely."),
            says("Good day.", trained=True),
        ),
        chat(user("Hi"), says("Yo", trained=False), user("Politely."), says("Good day.")),
    ],
    "axolotl_roles": [HELLO, HELLO],
    "mistral_tools": [
        chat(
            user("Weather in Rome?"),
            calls("Rome", ids=("TX92Jm8Zi",)),
            result("Sunny", tool_call_id="TX92Jm8Zi", name="get_weather"),
            says("It is sunny.", trained=True),
            user("Thanks"),
            says("Welcome", trained=False),
            tools=True,
        )
    ],
    "swift_agent": [
        chat(
            user("Weather in Rome and Oslo?"),
            calls("Rome", "Oslo", text="I look it up."),
            result("Sunny"),
            result("Rain"),
            says("Sun and rain."),
            tools=True,
        )
    ],
    "swift_loss": [
        chat(
            user("Hi"),
            says("Yo", trained=False),
            user("Politely."),
            says("Good day.", trained=True),
        )
    ],
    "swift_conversation": [chat(BRIEF, user("Hi"), says("Hello."), user("1 + 1?"), says("2."))],
    "xtuner": [chat(BRIEF, user("Hi"), says("Hello."), user("1 + 1?"), says("2."))],
    "dolly": [chat(user("Who wrote it?\n\nAda wrote the note."), says("Ada."))],
    "llamafactory_images": [HELLO],
    "plain_continuation": [chat(user("The sky is"), says(" blue."))],
}
UNREAD = {
    "openai_tools": {"column parallel_tool_calls"},
    "openai_preference": {"input.parallel_tool_calls"},
    "dolly": {"column category"},
    "ultrafeedback": {
        "column messages",
        "column prompt_id",
        "column score_chosen",
        "column score_rejected",
    },
}
REFUSED = {
    "llamafactory_images": "has column images: images, sound and video are not supported",
    "axolotl_train": "no message of the assistant is trained",
    "question_answer": "try the source's columns: {prompt: question, completion: answer}",
}


def pair(*prompt: Message) -> Preference:
    return Preference(chat(*prompt), {"chosen": says("2."), "rejected": says("3.")})


SUM_OF = user("Add.\n\n1 + 1")
PAIRS: dict[str, list[Preference]] = {
    "openai_preference": [pair(SUM)],
    "trl_preference": [pair(SUM)] * 4,
    "llamafactory_ranking": [pair(SUM), pair(BRIEF, user("Hi"), says("Yo"), SUM)],
    "llamafactory_ranking_alpaca": [pair(SUM_OF), pair(SUM_OF), pair(user("Add 1 and 1."))],
    "axolotl_preference": [pair(BRIEF, SUM), pair(BRIEF, SUM), pair(SUM)],
    "swift_preference": [pair(SUM)] * 3,
    "ultrafeedback": [pair(SUM)],
}
JUDGED = {
    "trl_unpaired": [
        Preference(chat(SUM), {"completion": says("2.")}, label=True),
        Preference(chat(SUM), {"completion": says("3.")}, label=False),
    ],
    "llamafactory_kto": [
        Preference(chat(SUM), {"completion": says("2.")}, label=True),
        Preference(chat(SUM_OF), {"completion": says("3.")}, label=False),
    ],
}


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text().splitlines()]


def test_every_file_of_the_corpus_is_stated() -> None:
    stated = {*CONVERSATIONS, *PAIRS, *JUDGED, *REFUSED}

    assert stated == {path.stem for path in CORPUS.glob("*.jsonl")}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_row_is_the_conversation_that_it_says(name: str) -> None:
    found: list[Conversation] = []
    unread: set[str] = set()
    for row in rows(name):
        with suppress(UnusableRowError):
            found.append(to_conversation(row, None, unread))

    assert found == CONVERSATIONS[name]
    assert unread == UNREAD.get(name, set())
    assert len(rows(name)) - len(found) == (name in REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_and_says_what_to_do(name: str) -> None:
    reasons = []
    for row in rows(name):
        try:
            to_conversation(row)
        except UnusableRowError as reason:
            reasons.append(str(reason))

    assert len(reasons) == len(rows(name)) - len(CONVERSATIONS.get(name, []))
    assert reasons
    assert all(REFUSED[name] in reason for reason in reasons)


@pytest.mark.parametrize("name", PAIRS)
def test_a_row_is_the_pair_that_it_says(name: str) -> None:
    unread: set[str] = set()
    found = [to_preferences(row, "dpo", unread) for row in rows(name)]

    assert found == [[one] for one in PAIRS[name]]
    assert unread == UNREAD.get(name, set())
    for row in rows(name):
        with pytest.raises(UnusableRowError, match=r"set train\.objective to dpo, orpo or kto"):
            to_conversation(row)


@pytest.mark.parametrize("name", JUDGED)
def test_a_row_is_the_judged_answer_that_it_says(name: str) -> None:
    unread: set[str] = set()

    assert [to_preferences(row, "kto", unread) for row in rows(name)] == [
        [one] for one in JUDGED[name]
    ]
    assert unread == set()
    for row in rows(name):
        with pytest.raises(UnusableRowError, match=r"set train\.objective to kto"):
            to_conversation(row)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_was_read_comes_back_from_json(name: str) -> None:
    for conversation in CONVERSATIONS[name]:
        text = json.dumps(conversation.to_dict())

        back = Conversation.from_dict(json.loads(text))

        assert list(back.messages) == list(conversation.messages)
        assert list(back.tools) == list(conversation.tools)
