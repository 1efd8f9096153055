"""llama.cpp's own quantiser, by its C interface, as a program: a crash of it ends no run.

    python gguf_quantiser.py LIBRARIES SOURCE TARGET TYPE

LIBRARIES is a folder with ``libllama``, ``libggml`` and ``libggml-base`` (``make gguf-quantiser``), TYPE
a number of llama.h's ``llama_ftype``.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


class _Parameters(ctypes.Structure):
    """``llama_model_quantize_params``: its first two fields; the library fills in the others itself."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("others", ctypes.c_uint8 * 1016),
    )


def main(libraries: str, source: str, target: str, kind: str) -> int:
    """Quantise ``source`` into ``target``; the library's status, 0 if all is well."""
    for name in ("libggml-base", "libggml", "libllama"):  # each needs those before
        (path,) = Path(libraries).glob(f"{name}.*so")
        library = ctypes.CDLL(str(path.resolve()), mode=ctypes.RTLD_GLOBAL)
    defaults, quantise = library.llama_model_quantize_default_params, library.llama_model_quantize
    defaults.restype = _Parameters
    quantise.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters))
    quantise.restype = ctypes.c_uint32
    parameters = defaults()
    parameters.type = int(kind)
    return int(quantise(source.encode(), target.encode(), ctypes.byref(parameters)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
