"""Where a training's ranks run: in this process, on the GPUs of one host, or on several hosts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

RENDEZVOUS_PORT = 29400


class Placement(BaseModel):
    """The ranks of a training, and which of its hosts this one is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranks_per_host: int = Field(1, ge=1)
    hosts: tuple[str, ...] = Field(
        ("localhost",), description="Names by which they find each other."
    )
    host: int = Field(0, description="This one's place among them; the first keeps the results.")

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.ranks_per_host * len(self.hosts)

    @property
    def is_first_host(self) -> bool:
        """Whether the first rank, which writes the results, runs here."""
        return self.host == 0

    @property
    def on_each(self) -> str:
        """The number of ranks, to be read after a plan."""
        if self.ranks == 1:
            return ""
        hosts = f" on {len(self.hosts)} hosts" if len(self.hosts) > 1 else ""
        return f" on each of {self.ranks} ranks{hosts}"


HERE = Placement()
"""One rank: this process itself."""
