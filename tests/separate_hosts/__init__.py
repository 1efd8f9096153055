"""A ZenML stack of hosts that share nothing but an artifact store, on this one machine.

Each step is a process of its own, in a folder of its own, and where this user may make one in a mount
namespace of its own, in which the caller's outputs are not there. The artifact store is no folder to
its users: its paths begin with ``bucket://``.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def be_importable() -> None:
    """Let ZenML find this folder as ``tests.separate_hosts``, the name that it gives it by its place.

    A package of the SageMaker SDK brings a ``tests`` of its own, which would hide this one.
    """
    import sys

    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    import tests

    if str(ROOT / "tests") not in tests.__path__:
        tests.__path__.append(str(ROOT / "tests"))
