"""One exception class per kind of mistake that a user can act on.

Every message says what is wrong, where (a configuration key, or ``file:line``), the value seen,
and what to do about it. ``tools/run.py`` prints the message alone, without a traceback, and exits
with the class's ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Sequence


class FinetuningError(Exception):
    """Base of all errors that are the user's to mend; never raised itself."""

    exit_code = 1


class ConfigError(FinetuningError):
    """The configuration file, or a value given with ``--set``, is wrong."""

    exit_code = 2


class DataError(FinetuningError):
    """A data source cannot be read, or a row in it cannot be trained on."""

    exit_code = 3


class ModelError(FinetuningError):
    """The base model or its tokenizer is missing, incomplete or unsuitable."""

    exit_code = 4


class LoraError(FinetuningError):
    """The LoRA settings do not fit the base model."""

    exit_code = 4


class HardwareError(FinetuningError):
    """This host cannot run what the configuration asks for."""

    exit_code = 5


class DiskError(HardwareError):
    """A disk has too little room for what a run would write, or became full."""

    exit_code = 17


class SetupError(FinetuningError):
    """Something that the set-up installs is missing."""

    exit_code = 6


class TrainingError(FinetuningError):
    """Training went wrong (loss not finite), or cannot be resumed."""

    exit_code = 7


class TrainingStoppedError(TrainingError):
    """Training was asked to stop, and did so after saving a checkpoint.

    ``exit_code`` is 128 + the signal's number where a signal asked, as shells have it.
    """


class InterruptedRunError(FinetuningError):
    """A run was ended by Ctrl-C or SIGTERM where there was no step to finish first.

    ``exit_code`` is 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class LaunchError(FinetuningError):
    """The SageMaker job cannot be launched as asked, or did not complete."""

    exit_code = 8


class AwsUnavailableError(LaunchError):
    """AWS cannot do now what may succeed later: no capacity, out of reach, an error of its own."""

    exit_code = 15


class SecretError(FinetuningError):
    """Something that looks like a secret would leave this machine."""

    exit_code = 9


class RegistryError(FinetuningError):
    """A registered version is not there, or cannot be promoted, rolled back or compared."""

    exit_code = 10


class ExportError(FinetuningError):
    """An export cannot be made, or is not what was trained."""

    exit_code = 11


class UnprovenError(ExportError):
    """An export is not what was trained."""

    def __init__(self, message: str, kinds: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kinds = frozenset(kinds)
        """Which exports: "adapter", "merged_16bit", "gguf"."""


class HubError(FinetuningError):
    """The Hugging Face Hub cannot be asked now."""

    exit_code = 12


class ScheduledRunError(FinetuningError):
    """A scheduled run failed; its log and its alert say why."""

    exit_code = 13


class ReproductionError(FinetuningError):
    """A run cannot be made again from its manifest, or came out otherwise."""

    exit_code = 14


class TalkError(FinetuningError):
    """A finished run's model cannot be found, loaded or asked."""

    exit_code = 16


class ScoringError(FinetuningError):
    """An answer cannot be scored: a scorer of the user's own raised, or gave no number."""

    exit_code = 18
