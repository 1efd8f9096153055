"""The proof by stored tensors: an export's files hold what was trained, whatever its outputs can tell.

An adapter that changes little (few steps, a preference objective's small rate) moves the outputs by
less than 16-bit arithmetic does, and an empty or negated one would pass a comparison of outputs. Its
tensors are compared to the bit instead. Merged weights are computed once more, on a few rows of every
module and of every expert, from the base model's files, the trained tensors and the trained scaling: by
none of the code that merged them. Of a matrix whose tokens were trained every row is compared: those
tokens' are the adapter's, all others the base model's. Where transformers makes one parameter of several tensors, both
models' are loaded as it does. A GGUF's are compared with the merged model's, within what its type can hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS
from llm_engineering.model.adapted_parameters import (
    Adapted,
    adapted_parameters,
    read_peft_config,
)
from llm_engineering.model.base_model import weight_files
from llm_engineering.model.evaluation.trained_tensors import (
    TrainedTensors,
    is_of_adapter,
    stored_digests,
)
from llm_engineering.model.file_tensors import FileTensors, file_shapes
from llm_engineering.model.meta import meta_model

ROWS = 16
"""Rows of each matrix that are compared, spread evenly from the first to the last."""

_ROWS_AT_ONCE = 4096
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HALF_STEP = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 0.0}
"""Half the step of a type at 1: the largest relative error of rounding once to it."""
_SMALLEST = {"F16": 2.0**-25}
"""Half the distance of the smallest numbers of a type, where it is not next to nothing."""
_ARITHMETIC = 2.0**-18
"""Relative error of a product in 32 bit, for another order of summing, with much to spare."""
_KEPT = 0.5
_OF_K_QUANTS = {"q5_k_m": 0.08, "q4_k_m": 0.12}
"""Largest difference of a matrix's sampled rows, of their size (both Frobenius norms): 0.053 and 0.052 were seen of
SmolLM2-135M-Instruct, another row in a row's place makes about 1."""


@dataclass(frozen=True)
class Finding:
    """What the comparison of stored tensors found."""

    tensors: int = 0
    """How many were compared and found to be right."""
    fault: str | None = None
    """What is wrong, in words; None: nothing."""
    update_kept: float | None = None
    """Share (0 to 1) of the adapter's change that the rounding of merged weights leaves; None: the
    base model is not stored in the merged model's type, so that rounding loses nothing on average."""


def compare_adapter(
    folder: Path,
    trained: TrainedTensors,
    scaling: Mapping[str, float],
    names: list[str],
    token_rows: Mapping[str, list[int]] = MappingProxyType({}),
) -> Finding:
    """Hold an adapter's file against the tensors of the run's memory, to the bit.

    Args:
        folder: The adapter's.
        trained: The trained model's tensors.
        scaling: What PEFT, having read the folder, multiplies each module's ``B A`` by.
        names: Names in the file of the tensors that PEFT computes with.
        token_rows: Which rows of each module PEFT puts the trained tokens in.
    """
    try:
        stored = stored_digests(folder / _WEIGHTS)
    except Exception as error:  # whatever safetensors makes of a broken file
        return Finding(fault=f"its tensors cannot be read: {type(error).__name__}: {error}")
    ours = trained.digests
    for what, wrong in (
        ("are missing from its file", ours.keys() - stored.keys()),
        ("in its file were not trained", stored.keys() - ours.keys()),
        (
            "in its file are not to the bit those that were trained",
            {name for name in ours.keys() & stored.keys() if ours[name] != stored[name]},
        ),
        (
            "in its file are not used by PEFT, by its adapter_config.json",
            {name for name in ours if is_of_adapter(name)} - set(names),
        ),
    ):
        if wrong:
            return Finding(fault=f"{len(wrong)} tensors {what}, as {min(wrong)}")
    for module, factor in sorted(trained.scaling.items()):
        found = scaling.get(module)
        if found is None or abs(found - factor) > 1e-6 * abs(factor):
            return Finding(
                fault=f"its adapter_config.json gives {module} the scaling {found}, not {factor:g} "
                "as trained"
            )
    for module, ids in sorted(trained.token_rows.items()):
        if token_rows.get(module) != ids:
            return Finding(
                fault=f"its adapter_config.json puts the trained tokens of {module} in the rows "
                f"{token_rows.get(module)}, not {ids} as trained"
            )
    return Finding(len(stored))


def compare_merged(
    base: Path,
    adapter: Path,
    merged: Path,
    trained: TrainedTensors,
    *,
    trust_remote_code: bool = False,
) -> Finding:
    """Compute sampled rows of every merged tensor once more, and hold the merged files against them.

    A target's row is ``W + s B A``, with DoRA scaled to its magnitude; a trained bias is the
    adapter's; all else is the base model's. It must be that, rounded once to the stored type.

    Args:
        base: Folder of the base model.
        adapter: Folder of the adapter; its tensors must be those that were trained.
        merged: Folder of the merged model.
        trained: The trained model's tensors, and the scaling of each module.
        trust_remote_code: Whether to run the code that the model brings, to know its modules.
    """
    compared, kept = 0, _Kept()
    files = FileTensors(meta_model(base, trust_remote_code=trust_remote_code), file_shapes(base))
    targets = adapted_parameters(
        meta_model(base, trust_remote_code=trust_remote_code), read_peft_config(adapter)
    )
    with _tensors(weight_files(base)) as old, _tensors(weight_files(merged)) as new:
        if wrong := old.keys() ^ new.keys():
            return Finding(
                fault=f"{len(wrong)} tensors are not in both it and the base model, as {min(wrong)}"
            )
        for name in sorted(new):
            ours, theirs = new[name][0].get_shape(), old[name][0].get_shape()
            if list(ours) != list(theirs):
                return Finding(
                    fault=f"{name} has the shape {tuple(ours)}, the base model's {tuple(theirs)}"
                )
        with _tensors([adapter / _WEIGHTS]) as stored:
            change = _Change(stored, trained, targets)
            of_several: set[str] = set()
            for name in sorted(new):
                made = files.parameters_of(name)
                if of_several & set(made):  # compared with the first of its tensors
                    compared += 1
                    continue
                if files.is_one(name) or not change.waiting & set(made):
                    parts = [(name, made[0], _view(old[name]), _view(new[name]))]
                else:
                    of_several |= set(made)
                    parts = [
                        (f"{parameter} ({name} and others)", parameter,
                         files.load(parameter, lambda one: _whole(old, one)),
                         files.load(parameter, lambda one: _whole(new, one)))
                        for parameter in made
                    ]  # fmt: skip
                for told, parameter, before, after in parts:
                    if parameter in change.rows:
                        fault = _compare_rows(told, parameter, before, after, change)
                    else:
                        fault = _compare(told, parameter, before, after, change, kept)
                    if fault:
                        return Finding(fault=fault)
                compared += 1
            if change.waiting:
                return Finding(
                    fault=f"the adapter changes {min(change.waiting)}, which no tensor of it is "
                    "named by"
                )
    share = kept.share
    if share is not None and share < _KEPT:
        return Finding(
            fault=f"rounding to 16 bit leaves only {max(share, 0.0):.0%} of what the adapter "
            "changes, so that it is nearly the base model; train on, or export the adapter alone "
            "(export.merged_16bit: false)",
            update_kept=share,
        )
    return Finding(compared, update_kept=share)


def compare_gguf(
    model: Any,
    merged: Path,
    kind: str,
    token_rows: Mapping[str, list[int]] = MappingProxyType({}),
) -> Finding:
    """Hold the tensors of a GGUF, as transformers read it, against the merged model's sampled rows.

    Args:
        model: What transformers built of the file.
        merged: Folder of the model that it was made of.
        kind: ``export.gguf``. Of q8_0, each 32 numbers of a row share a scale of their
            largest over 127, itself stored in 16 bit (llama.cpp, ``block_q8_0``). A k-quant's scales are
            chosen for the least error of a block, not of a number: its matrices are held to a share of
            their own size (``_OF_K_QUANTS``).
        token_rows: Rows of some matrices that are compared too, by the tensor's name.
    """
    import torch

    found = model.state_dict()
    compared = 0
    with _tensors(weight_files(merged)) as tensors:
        if wrong := tensors.keys() - found.keys():
            return Finding(
                fault=f"it lacks {len(wrong)} tensors of the merged model, as {min(wrong)}"
            )
        for name, (view, _) in tensors.items():
            shape = view.get_shape()
            more = token_rows.get(name, ())
            expected = _rows(view, shape, more).float()
            value = found[name]
            if list(value.shape) != list(shape):
                return Finding(
                    fault=f"{name} has the shape {tuple(value.shape)}, not {tuple(shape)}"
                )
            rows = _rows(value, shape, more).float().cpu()
            read_as = _HALF_STEP["F32" if value.dtype == torch.float32 else "BF16"]
            size = expected.abs()
            allowed = size * (read_as + _HALF_STEP["F16" if kind == "f16" else "BF16"])
            if kind == "q8_0" and len(shape) > 1 and shape[-1] % 32 == 0:
                blocks = size.unflatten(-1, (-1, 32))
                step = blocks.amax(-1, keepdim=True).expand_as(blocks).flatten(-2)
                allowed = size * read_as + step * (0.5 / 127 + 2.0**-10)
            if kind in _OF_K_QUANTS and len(shape) > 1:
                off, within = float((rows - expected).norm() / expected.norm()), _OF_K_QUANTS[kind]
                if not off <= within:
                    told = f"{off:.0%} off the merged model's, where {kind} is within {within:.0%}"
                    return Finding(fault=f"{name} is {told}")
            elif not bool(((rows - expected).abs() - allowed - 2e-6 <= 0).all()):
                # A NaN is no fault of rounding either.
                return Finding(fault=f"{name} is not the merged model's, beyond what {kind} is")
            compared += 1
    return Finding(compared)


class _Kept:
    """How much of the adapter's change is left in merged weights: its projection on itself."""

    def __init__(self) -> None:
        self._left = self._whole = 0.0

    def add(self, found: Any, base: Any, change: Any) -> None:
        self._left += float(((found - base) * change).double().sum())
        self._whole += float((change * change).double().sum())

    @property
    def share(self) -> float | None:
        return self._left / self._whole if self._whole else None


class _Change:
    """What an adapter makes of the rows of a base model's parameter, from its file and its scaling."""

    def __init__(
        self,
        stored: Mapping[str, Any],
        trained: TrainedTensors,
        targets: Adapted,
    ) -> None:
        self._stored = stored
        self._targets = {
            targets.factors[name].parameter: (module, factor, targets.factors[name])
            for module, factor in trained.scaling.items()
            if (name := module.removeprefix(_PREFIX)) in targets.factors
        }
        own = {f"{module}{TRAINED_ROWS}": ids for module, ids in trained.token_rows.items()}
        self.rows = {
            name: (one.tensor, own[one.tensor])
            for name, one in targets.rows.items()
            if one.tensor in own
        }
        """By parameter: the trained tensor that holds rows of it, and which rows those are."""
        self._biases = {
            name.removeprefix(_PREFIX).replace(".base_layer.bias", ".bias"): name
            for name in trained.digests
            if name.endswith(".bias") and ".lora_" not in name
        }
        modules = {module.removeprefix(_PREFIX) for module in trained.scaling}
        unknown = {f"{module}.weight" for module in modules - targets.factors.keys()}
        with_rows = {f"{module.removeprefix(_PREFIX)}.weight" for module in trained.token_rows}
        self.waiting = set(self._targets) | set(self._biases) | with_rows | unknown
        """Names of what it changes, and was not asked for yet."""

    def of(self, name: str, rows: list[int], weight: Any) -> tuple[Any, Any]:
        """The changed rows, and the sizes that their rounding errors in 32 bit go with.

        Args:
            name: Of the parameter.
            rows: Which, of each expert where it holds those.
            weight: They, as the base model has them, in 32 bit.
        """
        import torch

        if name in self._biases:
            return self._whole(self._biases[name]), weight.abs()
        module, factor, target = self._targets[name]
        a = self._whole(f"{module}.lora_A.weight")
        b = self._whole(f"{module}.lora_B.weight")
        if (
            weight.ndim == 3
        ):  # rank by rank within an expert in A, expert by expert within a rank in B
            a = a.unflatten(0, (target.experts, -1))
            b = b.unflatten(1, (-1, target.experts)).permute(2, 0, 1)
        if target.transposed:
            a, b = b.transpose(-1, -2), a.transpose(-1, -2)
        b = b[..., rows, :]
        changed = weight + factor * (b @ a)
        size = weight.abs() + abs(factor) * (b.abs() @ a.abs())
        magnitude = f"{module}.lora_magnitude_vector"
        if magnitude in self._stored:
            grown = self._whole(magnitude)[rows] / torch.linalg.vector_norm(changed, dim=1)
            changed, size = changed * grown[:, None], size * grown.abs()[:, None]
        return changed, size

    def rows_of(self, name: str) -> tuple[list[int], Any]:
        """The rows of a parameter that were trained, and their values."""
        tensor, ids = self.rows[name]
        return ids, self._whole(tensor)

    def _whole(self, name: str) -> Any:
        return _whole(self._stored, name).float()


def _compare(
    told: str, parameter: str, old: Any, new: Any, change: _Change, kept: _Kept
) -> str | None:
    """What is wrong with a merged tensor, by sampled rows; None: nothing.

    Args:
        told: Its name in a message.
        parameter: The parameter that it is.
        old: The base model's: a tensor, or a view of one in a file.
        new: The merged model's.
        change: What the adapter makes of it.
        kept: Learns what rounding left.
    """
    import torch

    shape = list(new.shape)
    found, base = _rows(new, shape), _rows(old, shape)
    stored_as, base_as = _stored_as(found), _stored_as(base)
    if not found.is_floating_point():
        return None if bool((found == base).all()) else f"{told} is not the base model's"
    changed = parameter in change.waiting
    change.waiting.discard(parameter)
    if changed:
        found, base = found.float(), base.float()
        expected, size = change.of(parameter, _indices(_row_count(shape)), base)
        _, exponent = torch.frexp(expected)
        at_one = torch.ldexp(torch.ones_like(expected), exponent - 1)  # the power of two below it
        allowed = at_one * _HALF_STEP[stored_as] + size * _ARITHMETIC
        allowed += _SMALLEST.get(stored_as, 0.0)
        wrong = ~((found - expected).abs() <= allowed)  # so that a NaN is wrong
    else:
        wrong = found != base.to(found.dtype)
    if bool(wrong.any()):
        what = "base model + adapter" if changed else "the base model's"
        where = ""
        if wrong.ndim == 3:
            experts = wrong.flatten(1).any(1).nonzero().flatten().tolist()
            where = f" (expert {', '.join(map(str, experts[:4]))})"
        return (
            f"{told} is not {what}, rounded once to {stored_as}, at {int(wrong.sum())} of the "
            f"{wrong.numel()} numbers that were computed again{where}"
        )
    if changed and len(shape) > 1 and stored_as == base_as:
        kept.add(found, base, expected - base)
    return None


def _compare_rows(told: str, parameter: str, old: Any, new: Any, change: _Change) -> str | None:
    """As ``_compare``, of a matrix whose tokens were trained: each of its rows, to the bit."""
    change.waiting.discard(parameter)
    ids, values = change.rows_of(parameter)
    places = {id_: place for place, id_ in enumerate(ids)}
    for begin in range(0, new.shape[0], _ROWS_AT_ONCE):
        found = new[begin : begin + _ROWS_AT_ONCE]
        expected = old[begin : begin + _ROWS_AT_ONCE].to(found.dtype, copy=True)
        for id_ in (id_ for id_ in ids if begin <= id_ < begin + len(expected)):
            expected[id_ - begin] = values[places[id_]].to(found.dtype)
        wrong = [begin + i for i in (~(found == expected)).any(1).nonzero().flatten().tolist()]
        if wrong:
            what = "the trained token's" if wrong[0] in places else "the base model's"
            return f"row {wrong[0]} of {told} is not {what}, rounded once to {_stored_as(found)}"
    return None


def _stored_as(tensor: Any) -> str:
    """safetensors' name of a floating type."""
    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
    return names.get(str(tensor.dtype).removeprefix("torch."), "")


class _View:
    """A tensor in a file, which is read row by row as it is asked for."""

    def __init__(self, view: Any) -> None:
        self._view = view
        self.shape = view.get_shape()

    def __getitem__(self, index: Any) -> Any:
        return self._view[index]


def _view(stored: tuple[Any, Any]) -> _View:
    return _View(stored[0])


def _whole(tensors: Mapping[str, tuple[Any, Any]], name: str) -> Any:
    return tensors[name][1].get_tensor(name)


@contextmanager
def _tensors(files: list[Path]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Every tensor of some safetensors files: a view that reads what it is asked for, and its file."""
    from safetensors import safe_open

    with ExitStack() as stack:
        found = {}
        for path in files:
            file = stack.enter_context(safe_open(path, framework="pt"))
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                found[name] = (file.get_slice(name), file)
        yield found


def _indices(count: int) -> list[int]:
    """Up to ``ROWS`` of ``count`` rows, evenly spread, the first and the last among them."""
    if count <= ROWS:
        return list(range(count))
    return [index * (count - 1) // (ROWS - 1) for index in range(ROWS)]


def _row_count(shape: Sequence[int]) -> int:
    """Rows of a matrix, or of an expert's."""
    return shape[1] if len(shape) == 3 else shape[0]


def _rows(view: Any, shape: Sequence[int], more: Sequence[int] = ()) -> Any:
    """The sampled rows of a matrix, of every expert's where there are three dimensions; all of a vector.

    Args:
        view: The tensor.
        shape: Its.
        more: Rows of a matrix beside those.
    """
    import torch

    if len(shape) < 2:
        return view[:]
    rows = _indices(_row_count(shape))
    if len(shape) == 3:
        return torch.cat([view[:, row : row + 1] for row in rows], dim=1)
    return torch.cat([view[row : row + 1] for row in [*rows, *more]])
