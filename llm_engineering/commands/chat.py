"""``--chat``: a conversation with a finished run's model, in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.commands.ask import open_model
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.errors import TalkError

if TYPE_CHECKING:
    from rich.console import Console

    from llm_engineering.talk.answering_model import AnsweringModel
    from llm_engineering.talk.sampling import Sampling

HELP = """/base            the base model's answer to the same question, for comparison
/system TEXT     begin anew with a system prompt; without TEXT: with none
/temperature T   0 is greedy, the same answer each time
/reset           begin anew
/save FILE       append the conversation to FILE, a row that --finetune can train on
/quit            end; so does Ctrl-D. Ctrl-C ends an answer"""


@dataclass
class Chat:
    """One conversation: what was said, and what the user may type."""

    model: AnsweringModel
    sampling: Sampling
    console: Console
    messages: list[Message] = field(default_factory=list)

    def say(self, text: str) -> bool:
        """Do what the user typed; returns whether the conversation goes on."""
        command, _, rest = text.partition(" ")
        if not text.startswith("/"):
            self._ask(text)
            return True
        if command in ("/quit", "/exit"):
            return False
        commands: dict[str, Callable[[str], None]] = {
            "/base": self._base,
            "/system": self._system,
            "/temperature": self._temperature,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: self._note(HELP),
        }
        commands.get(command, self._unknown)(rest.strip())
        return True

    def _ask(self, text: str) -> None:
        self.messages.append(Message("user", text))
        answered = self._answer(of_base=False)
        if answered is None:
            self.messages.pop()
        else:
            self.messages.append(Message("assistant", answered))

    def _answer(self, *, of_base: bool) -> str | None:
        """Print an answer as it grows; None where there is none."""
        said: list[str] = []

        def grow(text: str) -> None:
            said.append(text)
            self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

        try:
            prompt = self.model.prompt(Conversation(tuple(self._asked())))
            (answer,) = self.model.answer([prompt], self.sampling, of_base=of_base, on_text=grow)
            text, is_cut = answer.text, answer.is_cut
        except TalkError as error:
            self._note(str(error))
            return None
        except KeyboardInterrupt:  # what was said so far stands
            text = "".join(said).strip()
            is_cut = True
            if not text:
                return None
        self.console.print()
        if is_cut:
            self._note("(the answer has no end: it was cut)")
        elif not text:
            self._note("(an empty answer)")
        return text

    def _asked(self) -> list[Message]:
        """Up to the last question, whose answer may be there already."""
        asked = list(self.messages)
        while asked and asked[-1].role == "assistant":
            asked.pop()
        return asked

    def _base(self, _: str) -> None:
        if not any(message.role == "user" for message in self.messages):
            self._note("nothing was asked yet")
            return
        self._note("base model:")
        self._answer(of_base=True)

    def _system(self, text: str) -> None:
        self.messages = [Message("system", text)] if text else []
        self._note("a new conversation, with this system prompt" if text else "a new conversation")

    def _temperature(self, text: str) -> None:
        try:
            changed = {**self.sampling.model_dump(), "temperature": float(text)}
            self.sampling = type(self.sampling).model_validate(changed)
        except ValueError:
            self._note(f"/temperature: {text!r} is no number from 0; for example /temperature 0.7")
        self._note(str(self.sampling))

    def _reset(self, _: str) -> None:
        self.messages = [message for message in self.messages[:1] if message.role == "system"]
        self._note("a new conversation")

    def _save(self, text: str) -> None:
        if not text or not any(message.role == "assistant" for message in self.messages):
            self._note("/save FILE, once there is an answer")
            return
        row = {"messages": [message.to_dict() for message in self.messages]}
        try:
            with Path(text).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            self._note(f"/save {text}: {error.strerror}")
            return
        self._note(f"appended to {text}")

    def _unknown(self, _: str) -> None:
        self._note(f"no such command\n{HELP}")

    def _note(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)


def run(where: str, config_path: Path, overrides: Sequence[str]) -> None:
    """Talk to a finished run's model until the user ends it.

    Args:
        where: As of ``find_run``.
        config_path: Says where runs are.
        overrides: Of its keys.

    Raises:
        TalkError: The model cannot be found or loaded.
    """
    _, model = open_model(where, config_path, overrides)

    from rich.console import Console

    from llm_engineering.talk.sampling import sampling_of

    chat = Chat(model, sampling_of(model.model), Console())
    chat.console.print(
        f"{chat.sampling}; /help lists commands", style="dim", markup=False, highlight=False
    )
    read = _reader()
    while True:
        try:
            text = read().strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if text and not chat.say(text):
            return


def _reader() -> Callable[[], str]:
    """Lines of the user; edited, and found again with the arrow keys, in a terminal."""
    if not sys.stdin.isatty():
        return input
    line_editing: Any = None
    with contextlib.suppress(ImportError):  # not every Python is built with it
        import readline as line_editing  # noqa: F401
    return lambda: input("> ")
