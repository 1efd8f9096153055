"""The processes that train together with this one, as far as a training must know of them."""

from __future__ import annotations

from typing import Any, Protocol


class Peers(Protocol):
    """What several processes agree on; ``distributed.world`` is that of ranks."""

    def rank(self) -> int:
        """This process's number, from 0."""

    def ranks(self) -> int:
        """How many processes there are."""

    def is_first(self) -> bool:
        """Whether this is the process that writes what all of them learned."""

    def wait_for_all(self) -> None:
        """Return once every process is here."""

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them must ask."""

    def as_the_first_says(self, value: Any) -> Any:
        """The first process's value; all of them must ask."""

    def all_values(self, value: Any) -> list[Any]:
        """Every process's value, in the order of their numbers; all of them must ask."""

    def on_all(self, device: str) -> str:
        """A device's name with the number of processes on such devices."""


class Alone:
    """A process that trains alone: it is the first, and agrees with itself."""

    def rank(self) -> int:
        """The only one."""
        return 0

    def ranks(self) -> int:
        """One."""
        return 1

    def is_first(self) -> bool:
        """Always."""
        return True

    def wait_for_all(self) -> None:
        """Nobody is waited for."""

    def any_rank(self, flag: bool) -> bool:
        """The flag itself."""
        return flag

    def as_the_first_says(self, value: Any) -> Any:
        """The value itself."""
        return value

    def all_values(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def on_all(self, device: str) -> str:
        """The device itself."""
        return device


ALONE = Alone()
