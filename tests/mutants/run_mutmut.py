"""mutmut, but for the wording of messages: a string with a space in it is not changed.

That a row is refused, and by which name, is what tests ask for; in which words is not pinned. mutmut has
no setting for kinds of strings, only for whole lines.
"""

from __future__ import annotations

from collections.abc import Iterable

from libcst import BaseString, SimpleString
from mutmut.__main__ import cli
from mutmut.mutation import mutators


def change_names_only(node: BaseString) -> Iterable[BaseString]:
    """As mutmut's, of keys, paths and names of types alone."""
    if isinstance(node, SimpleString) and " " in node.value:
        return []
    return mutators.operator_string(node)


if __name__ == "__main__":
    mutators.mutation_operators[:] = [
        (kind, change_names_only if change is mutators.operator_string else change)
        for kind, change in mutators.mutation_operators
    ]
    cli()
