"""First on PYTHONPATH, this makes a host of ``make setup-launcher``: it has no training stack.

Nothing of that stack is found, and importing it fails, in this process and those that it starts.
"""

import importlib.util
import sys

MISSING = {
    "accelerate", "bitsandbytes", "gguf", "peft", "sagemaker", "torch", "triton", "trl", "unsloth",
    "unsloth_zoo", "xformers",
}  # fmt: skip
_find_spec = importlib.util.find_spec


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


sys.meta_path.insert(0, _Missing)
importlib.util.find_spec = _find
