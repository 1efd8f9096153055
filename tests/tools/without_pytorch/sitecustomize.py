"""First on PYTHONPATH, this makes a host of ``make setup-launcher``: it has no training stack.

Nothing of that stack is found or named as installed, and importing it fails, in this process and those that it starts.
"""

import importlib.metadata
import importlib.util
import sys

MISSING = {
    "accelerate", "bitsandbytes", "gguf", "peft", "sagemaker", "torch", "triton", "trl", "unsloth",
    "unsloth_zoo", "xformers",
}  # fmt: skip
_find_spec = importlib.util.find_spec
_from_name = importlib.metadata.Distribution.from_name


class _Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _find(name, package=None):
    # The SDK's table of images is found, and the SDK never imported.
    if name.partition(".")[0] in MISSING - {"sagemaker"}:
        return None
    return _find_spec(name, package)


def _distribution(name):
    # ZenML asks by this which of its integrations it can import.
    if name.replace("-", "_") in MISSING - {"sagemaker"}:
        raise importlib.metadata.PackageNotFoundError(name)
    return _from_name(name)


sys.meta_path.insert(0, _Missing)
importlib.util.find_spec = _find
importlib.metadata.Distribution.from_name = staticmethod(_distribution)
