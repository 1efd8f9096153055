"""Which tensors of a model's files its parameters are made of, by transformers' own rules of loading.

Most parameters are in the files under their own names. Others are renamed when they are loaded (the
text part of a model that also reads images), or made of several: a mixture's experts are files of one
matrix each and one parameter of three dimensions in memory. Nothing is loaded here: what is asked is
names and shapes, and where each number of a file goes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import INDEX, weight_files

Change = Callable[[str, int | None], Any]
"""What is added to a parameter, by its name: to all of it, or to one of its experts; None: nothing."""


@dataclass
class Group:
    """Tensors of the files that are loaded together, and the parameters that they make."""

    first: str
    """transformers' name of the group: a parameter's, or a pattern of one."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Names in the files, in order, by the pattern that they match."""
    converter: Any = None
    """transformers' ``WeightConverter``; None: one tensor, at most renamed."""
    parameters: list[str] = field(default_factory=list)
    """Those that it makes."""


class FileTensors:
    """The files of one model, group by group.

    Args:
        model: On the meta device.
        shapes: Shape of each tensor in the files, by name.
    """

    def __init__(self, model: Any, shapes: Mapping[str, Sequence[int]]) -> None:
        self._model = model
        self._shapes = shapes
        self._groups: dict[str, Group] = {}
        self._group_of: dict[str, Group] = {}
        self._parts: dict[tuple[Any, ...], list[Any]] = {}
        for name, first, pattern, converter in _renamed(model, shapes):
            group = self._groups.setdefault(first, Group(first, converter=converter))
            group.names.setdefault(pattern, []).append(name)
            self._group_of[name] = group
        self._made: dict[str, Group] = {}
        for group in self._groups.values():
            group.parameters = [group.first]
            if group.converter is not None:
                group.parameters = list(self._convert(group, group.names, self._empty))
            self._made |= dict.fromkeys(group.parameters, group)

    def of_parameter(self, parameter: str) -> Group | None:
        """The group that makes a parameter; None: no tensor of the files does."""
        return self._made.get(parameter)

    def parameters_of(self, name: str) -> list[str]:
        """The parameters that a tensor of the files has a part in."""
        return self._group_of[name].parameters

    def names_of(self, parameter: str) -> list[str]:
        """The tensors of the files that a parameter is made of."""
        return [name for names in self._made[parameter].names.values() for name in names]

    def is_one(self, name: str) -> bool:
        """Whether a tensor is one parameter as it stands, whatever its name."""
        return self._group_of[name].converter is None

    def load(self, parameter: str, read: Callable[[str], Any]) -> Any:
        """A parameter as transformers loads it.

        Args:
            parameter: Its name.
            read: Gives a tensor of the files by its name.
        """
        group = self._made[parameter]
        if group.converter is None:
            (names,) = group.names.values()
            return read(names[0])
        return self._convert(group, group.names, read)[parameter]

    def change(self, name: str, change: Change) -> Any:
        """What is added to a tensor of the files, in its shape; None: nothing.

        Args:
            name: Of the tensor.
            change: What is added to each parameter. Of parameters that hold experts, each of which has
                files of its own, only the expert is asked for.
        """
        import torch

        group = self._group_of[name]
        if group.converter is None:
            return change(group.first, None)
        part, expert = self._part(group, name)
        added = None
        for index, parameter in enumerate(group.parameters):
            one = change(parameter, expert)
            if one is None:
                continue
            into, out_of = self._places(group, part, name)[index]
            if added is None:
                added = torch.zeros(self._numel(name), dtype=one.dtype)
            added[into] = one.reshape(-1)[out_of]
        return None if added is None else added.reshape(tuple(self._shapes[name]))

    def _part(self, group: Group, name: str) -> tuple[dict[str, list[str]], int | None]:
        """The tensors that one expert is made of, and which it is; or the whole group."""
        if not _stacks_experts(group.converter):
            return group.names, None
        expert = next(names.index(name) for names in group.names.values() if name in names)
        return {pattern: [names[expert]] for pattern, names in group.names.items()}, expert

    def _places(self, group: Group, part: dict[str, list[str]], name: str) -> list[Any]:
        """For each parameter of a group: places in a tensor, and where in the parameter they come from.

        Every number of the files is numbered, and the numbers are converted as the weights would be.
        """
        import torch

        offset, offsets = 0, {}
        for names in part.values():
            for one in names:
                offsets[one] = offset
                offset += self._numel(one)
        pattern = next(pattern for pattern, names in part.items() if name in names)
        key = (
            pattern, part[pattern].index(name),
            tuple((other, tuple(self._shapes[n])) for other, names in part.items() for n in names),
        )  # fmt: skip
        if key not in self._parts:

            def numbered(one: str) -> Any:
                count = self._numel(one)
                first = offsets[one]
                return torch.arange(first, first + count).reshape(tuple(self._shapes[one]))

            begin, count = offsets[name], self._numel(name)
            found = []
            for numbers in self._convert(group, part, numbered).values():
                flat = numbers.reshape(-1)
                out_of = ((flat >= begin) & (flat < begin + count)).nonzero().reshape(-1)
                found.append((flat[out_of] - begin, out_of))
            self._parts[key] = found
        return self._parts[key]

    def _convert(
        self, group: Group, names: Mapping[str, list[str]], read: Callable[[str], Any]
    ) -> dict[str, Any]:
        converter = deepcopy(group.converter)
        for pattern, ones in names.items():
            for one in ones:
                converter.add_tensor(group.first, one, pattern, _Read(read, one))
        made = converter.convert(group.first, model=self._model, config=self._model.config)
        return {name: one[0] if isinstance(one, list) else one for name, one in made.items()}

    def _empty(self, name: str) -> Any:
        import torch

        return torch.empty(tuple(self._shapes[name]), device="meta")

    def _numel(self, name: str) -> int:
        count = 1
        for size in self._shapes[name]:
            count *= size
        return count


class _Read:
    """A tensor that is read when transformers asks for it."""

    def __init__(self, read: Callable[[str], Any], name: str) -> None:
        self._read, self._name = read, name

    def __call__(self) -> Any:
        return self._read(self._name)


def file_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a model's files, by name; headers alone are read."""
    from safetensors import safe_open

    shapes = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                shapes[name] = list(file.get_slice(name).get_shape())
    return shapes


def names_in_files(folder: Path) -> list[str] | None:
    """Names of the tensors in a model's files, by their index or headers; None: neither is here yet."""
    index = folder / INDEX
    if index.is_file():
        return [str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"]]
    if any(folder.glob("*.safetensors")):
        return list(file_shapes(folder))
    return None


def is_converted(model: Any, names: Iterable[str]) -> bool:
    """Whether any tensor of a model's files has another name, or another form, in the model."""
    return any(
        converter is not None or first != name
        for name, first, _, converter in _renamed(model, dict.fromkeys(names))
    )


def require_in_files(model: Any, parameters: Iterable[str], names: Sequence[str]) -> None:
    """Check that what an adapter changes is in a model's files, so that it can be merged.

    Args:
        model: On the meta device.
        parameters: Names of parameters in the model.
        names: Of the files' tensors.

    Raises:
        ModelError: One is not; says which, and what the files have.
    """
    made: set[str] = set()
    for _, first, _, converter in _renamed(model, dict.fromkeys(names)):
        made.add(first)
        if converter is not None:
            own, *others = converter.target_patterns
            made |= {first.replace(own, other) for other in others}
    wanted = list(parameters)
    lacking = [name for name in wanted if name not in made]
    if lacking:
        raise ModelError(
            f"model.id: no tensor of its files becomes {lacking[0]}, which would receive an adapter "
            f"({len(lacking)} such of {len(wanted)}); they hold {', '.join(sorted(names)[:3])} and "
            f"{max(len(names) - 3, 0)} more. Is this checkpoint of another architecture than its "
            "config.json says?"
        )


def _renamed(model: Any, names: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Each tensor's name, its group's, the pattern that it matched, and the group's converter."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    known, prefix = model.state_dict(), model.base_model_prefix
    for name in sorted(names, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if renamed not in known and name in known:
            renamed, pattern = rename_source_key(name, [], [], prefix, known)
        if pattern is None or renamed not in known:
            yield name, renamed, name, None
        else:
            yield name, renamed, pattern, by_pattern[pattern]


def _stacks_experts(converter: Any) -> bool:
    from transformers.core_model_loading import MergeModulelist

    first = converter.operations[0]
    return isinstance(first, MergeModulelist) and first.dim == 0
