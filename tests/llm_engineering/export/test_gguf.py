"""Tests of ``llm_engineering.export.gguf`` and of how a GGUF is read back; llama.cpp's converter where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import ExportError, SetupError
from llm_engineering.export import gguf, reload
from llm_engineering.export.gguf import CONVERTER, read_metadata, require_converter, write_gguf
from llm_engineering.export.merge import merge

pytestmark = pytest.mark.slow

TEMPLATE = "{{ messages[0]['content'] }}"


class Tokenizer:
    """As much of a tokenizer as is compared."""

    def __init__(self, template: str = TEMPLATE, tokens: tuple[str, ...] = ("a", "b", "</s>")):
        self.chat_template = template
        self.tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A GGUF file without tensors."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_chat_template(TEMPLATE)
    writer.add_token_list(["a", "b", "</s>"])
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tmp_path / "m.gguf"


def test_template_end_token_and_vocabulary_are_the_files_own(file: Path) -> None:
    assert read_metadata(file) == (TEMPLATE, [2], ["a", "b", "</s>"])
    assert reload._gguf_stops(file, Tokenizer()) == [2]


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (Tokenizer(template="{{ 'other' }}"), "its chat template is not the one of training"),
        (Tokenizer(tokens=("a", "c", "</s>")), "1 tokens of its vocabulary differ, as 'c'"),
        (Tokenizer(tokens=("a", "b", "</s>", "d")), "1 tokens of its vocabulary differ, as 'd'"),
    ],
)
def test_another_template_or_vocabulary_is_found(
    tokenizer: Tokenizer, says: str, file: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        reload._gguf_stops(file, tokenizer)


def test_without_the_converter_one_line_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gguf, "CONVERTER", tmp_path / "none.py")
    with pytest.raises(SetupError, match="run `make gguf-converter`"):
        require_converter("q4_k_m")
    gguf.CONVERTER.touch()
    require_converter("q8_0")
    with pytest.raises(SetupError, match=r"q4_k_m needs .* `make gguf-quantiser`; or set bf16"):
        require_converter("q4_k_m")
    gguf.quantiser().mkdir()
    require_converter("q4_k_m")


def test_a_converter_that_refuses_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "convert.py"
    stub.write_text("import sys; sys.exit('ERROR: Model GlmForCausalLM is not supported')")
    monkeypatch.setattr(gguf, "CONVERTER", stub)
    with pytest.raises(ExportError, match="ended with 1: ERROR: Model GlmForCausalLM is not supp"):
        write_gguf(tmp_path, tmp_path / "gguf" / "m.gguf", "f16")


STUB = """
import sys
from pathlib import Path
Path(sys.argv[sys.argv.index("--outfile") + 1]).write_text(sys.argv[-1])
"""


def test_a_k_quant_is_made_of_the_converters_bf16_which_goes_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub, program = tmp_path / "convert.py", tmp_path / "quantise.py"
    stub.write_text(STUB)
    program.write_text(
        "import sys; from pathlib import Path\n"
        "Path(sys.argv[3]).write_text(Path(sys.argv[2]).read_text() + ' as ' + sys.argv[4])"
    )
    (tmp_path / "quantiser").mkdir()
    monkeypatch.setattr(gguf, "CONVERTER", stub)
    monkeypatch.setattr(gguf, "_PROGRAM", program)
    file = tmp_path / "gguf" / "m-q5_k_m.gguf"
    write_gguf(tmp_path, file, "q5_k_m")
    assert file.read_text() == "bf16 as 17"
    assert list(file.parent.iterdir()) == [file]
    program.write_text("import sys; sys.exit('unknown model architecture')")
    with pytest.raises(ExportError, match="the quantiser ended with 1: unknown model architecture"):
        write_gguf(tmp_path, tmp_path / "other" / "m-q4_k_m.gguf", "q4_k_m")
    assert not list((tmp_path / "other").iterdir())


EMBEDDED = Path(__file__).resolve().parents[3] / "models" / "SmolLM2-135M-Instruct"
CHECK = """
import sys
from pathlib import Path
sys.modules["sklearn"] = None
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
merged, file = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
found = model.state_dict()
print(all(torch.equal(t, found[n]) for n, t in load_file(merged / "model.safetensors").items()))
"""


@pytest.mark.skipif(not CONVERTER.is_file(), reason="`make gguf-converter` has not been run")
@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="`make model` has not been run")
def test_the_real_converter_keeps_every_bit_of_the_merged_weights(
    make_adapter: Any, tmp_path: Path
) -> None:
    merged, file = tmp_path / "merged", tmp_path / "gguf" / "m.gguf"
    merge(EMBEDDED, make_adapter(EMBEDDED, r=2), merged, stop_ids=(2,))

    write_gguf(merged, file, "bf16")

    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(merged), str(file)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr[-2000:]
    template, ends, _ = read_metadata(file)
    assert template == (EMBEDDED / "chat_template.jinja").read_text()
    assert ends == [2]


HELD = """
import sys
from pathlib import Path
sys.modules["sklearn"] = None
import torch
from transformers import AutoModelForCausalLM
from llm_engineering.export.stored_tensors import compare_gguf
merged, file, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
print(compare_gguf(model, merged, kind).fault)
weight = model.model.layers[3].self_attn.v_proj.weight.data
weight.copy_(weight.roll(1, 0))
print(compare_gguf(model, merged, kind).fault)
"""


@pytest.mark.skipif(not CONVERTER.is_file(), reason="`make gguf-converter` has not been run")
@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="`make model` has not been run")
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q5_k_m", "q4_k_m"])
def test_the_real_converters_tensors_are_the_merged_models_and_others_are_not(
    kind: str, make_adapter: Any, tmp_path: Path
) -> None:
    if kind in gguf.K_QUANTS and not gguf.quantiser().is_dir():
        pytest.skip("`make gguf-quantiser` has not been run")
    merged, file = tmp_path / "merged", tmp_path / "gguf" / f"m-{kind}.gguf"
    merge(EMBEDDED, make_adapter(EMBEDDED, r=2), merged, stop_ids=(2,))
    write_gguf(merged, file, kind)

    done = subprocess.run(
        [sys.executable, "-c", HELD, str(merged), str(file), kind],
        cwd=EMBEDDED.parents[1],
        capture_output=True,
        text=True,
    )

    sound, rolled = done.stdout.splitlines()
    assert sound == "None", done.stderr[-2000:]
    assert rolled.startswith("model.layers.3.self_attn.v_proj.weight is ")
    assert rolled.endswith(
        f" off the merged model's, where {kind} is within {0.08 if kind[1] == '5' else 0.12:.0%}"
        if kind in gguf.K_QUANTS
        else f" not the merged model's, beyond what {kind} is"
    )
