"""What every section of the configuration shares: unknown keys are refused, and numbers have ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticKnownError

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy takes no larger one
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # a folder's too
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A section of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def one_of(value: str, names: Iterable[str]) -> str:
    """The value, if it is one of the names; else what pydantic says of a ``Literal``."""
    known = [repr(name) for name in names]
    if repr(value) not in known:
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return value
