"""Every kind of secret is found and never shown; nothing in this repository is taken for one.

The secrets here are made up, and put together at run time so that no scanner takes this file for
a leak.
"""

from __future__ import annotations

import hashlib
import random
import string
import subprocess
from pathlib import Path

import pytest

from llm_engineering.errors import SecretError
from llm_engineering.sagemaker.secret_scan import _is_random, find_secrets, require_no_secrets

ROOT = Path(__file__).resolve().parents[3]


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits, seed: int = 5) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
AWS_SECRET = drawn(40, string.ascii_letters + string.digits + "/+")

SECRETS = {
    "Hugging Face": ("Hugging Face token", "login({!r})", "hf" + "_" + drawn(34)),
    "Hugging Face, letters only": (
        "Hugging Face token",
        "HF={}",
        "hf" + "_" + drawn(34, string.ascii_letters),
    ),
    "AWS long-term id": ("AWS access key id", "id {}", "AK" + "IA" + drawn(16, UPPER)),
    "AWS temporary id": ("AWS access key id", "id {}", "AS" + "IA" + drawn(16, UPPER)),
    "AWS secret in a profile": (
        "AWS secret access key",
        "aws_secret_" + "access_key = {}",
        AWS_SECRET,
    ),
    "AWS secret in JSON": ("AWS secret access key", '{{"SecretAccess' + 'Key": "{}"}}', AWS_SECRET),
    "GitHub classic": ("GitHub token", "{}", "gh" + "p_" + drawn(36)),
    "GitHub OAuth": ("GitHub token", "{}", "gh" + "o_" + drawn(36)),
    "GitHub fine-grained": ("GitHub token", "{}", "github" + "_pat_" + drawn(22) + "_" + drawn(59)),
    "OpenAI": ("OpenAI or Anthropic API key", "{}", "sk" + "-proj-" + drawn(48)),
    "Anthropic": ("OpenAI or Anthropic API key", "{}", "sk" + "-ant-api03-" + drawn(80)),
    "Slack bot": ("Slack token", "{}", "xo" + "xb-1234567890-" + drawn(24)),
    "Slack hook": (
        "Slack token",
        "https://hooks.slack.com" + "/services/{}",
        f"T{drawn(8, UPPER)}/B{drawn(8, UPPER)}/{drawn(24)}",
    ),
    "Google": ("Google API key", "?key={}", "AI" + "za" + drawn(35)),
    "W&B": ("Weights & Biases or Comet API key", "WANDB_API_KEY={}", drawn(40, HEX)),
    "Comet": ("Weights & Biases or Comet API key", "COMET_API_KEY: '{}'", drawn(25)),
    "W&B, new": ("Weights & Biases API key", "{}", "wandb" + "_v1_" + drawn(60)),
    "PEM": ("private key (PEM)", "{}", "-----BEGIN " + "RSA PRIVATE KEY-----"),
    "PEM, PKCS 8": ("private key (PEM)", "{}", "-----BEGIN " + "PRIVATE KEY-----"),
    "JWT": (
        "JSON web token",
        "{}",
        f"ey{'J'}{drawn(20)}.ey{'J'}{drawn(40)}.{drawn(43)}",
    ),
    "URL": ("password in a URL", "postgresql://app:" + "{}@db.internal/runs", "s3cret-pw"),
    "YAML": ("random value of a name with 'token'", "  mlflow_" + "token: {}", drawn(32)),
    "JSON": ("random value of a name with 'secret'", '"client_' + 'secret": "{}"', drawn(24)),
    "escaped JSON": ("random value of a name with 'password'", r"\"password\": \"{}\"", drawn(20)),
    "hex": ("random value of a name with 'api_key'", "API_" + "KEY={}", drawn(32, HEX)),
    "UUID": (
        "random value of a name with 'api-key'",
        "--api" + "-key {}",
        "-".join(drawn(size, HEX) for size in (8, 4, 4, 4, 12)),
    ),
    "header": (
        "random value of a name with 'authorization'",
        "Authorization: " + "Bearer {}",
        drawn(40),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "line", "secret"), SECRETS.values(), ids=SECRETS)
def test_a_secret_is_found_once_and_not_shown(kind: str, line: str, secret: str) -> None:
    text = f"first\nsecond\n{line.format(secret)}\nfourth\n"

    findings = find_secrets(text)

    assert [(finding.line, finding.kind) for finding in findings] == [(3, kind)]
    shown = findings[0].redacted.partition("...")[0]
    assert secret.startswith(shown)
    assert len(shown) == min(4, len(secret) // 4)
    assert f"({len(secret)} characters)" in findings[0].redacted
    assert secret[4:9] not in findings[0].redacted


@pytest.mark.parametrize(
    "line",
    [
        "tokenizer = AutoTokenizer.from_pretrained('HuggingFaceTB/SmolLM2-135M-Instruct')",
        "max_new_tokens: 64",
        "eos_token: '<|im_end|>'",
        "token = read_token_from_v2_store1a2b(path)",
        "HF_TOKEN: prod/llm-engineering/hugging-face-token-2",
        "secret: arn:aws:secretsmanager:eu-west-1:123456789012:secret:hf-token-AbC1d2",
        "token: ${HUGGING_FACE_HUB_TOKEN_V2}",
        "api_key = os.environ['COMET_API_KEY_V2_2024']",
        "password = getpass.getpass('Password for the v2 server')",
        "postgresql://user:password@localhost/db",
        "postgresql://user:{password}@localhost/db",
        "postgresql://user:$PGPASSWORD@localhost/db",
        "git+ssh://git@github.com/huggingface/trl.git@v1.15.0",
        "time: 2026-11-24T21:09:05, see http://localhost:8237/a@b",
        "the task-specific-token-classification-head-of-2024-model",
        f"hash = 'sha256:{hashlib.sha256(b'wheel').hexdigest()}'",
        f"token_digest: {hashlib.sha256(b'rows').hexdigest()}",
        f"adapter_digest: {hashlib.sha256(b'adapter').hexdigest()}",
        f"git_commit: {hashlib.sha1(b'commit').hexdigest()}",
        "api_key: 0a0a0a0a0a0a0a0a0a0a0a0a",
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_what_only_resembles_a_secret_is_left_alone(line: str) -> None:
    assert find_secrets(line) == []


@pytest.mark.parametrize("alphabet", [HEX, string.ascii_letters + string.digits])
def test_nearly_all_random_values_are_found(alphabet: str) -> None:
    values = [drawn(32, alphabet, seed) for seed in range(1000)]
    found = sum(bool(find_secrets("API_" + f"KEY={value}")) for value in values)
    assert found >= 980


@pytest.mark.parametrize(
    ("value", "random"),
    [
        ("a1b2c3d4a1b2c3d4", True),  # eight characters as often: 3 bits
        ("a1b2c3d4a1a1a1a1", False),
        ("a1b2-c3de", True),  # five changes between letters and digits
        ("a1bc-d2ef", False),
        ("a1b-c2d-e3f-g4h", False),  # parts of three tell nothing
        ("abcd1ef2", True),  # three in a part of eight
        ("abcd1efg-hijk", False),
        ("abc1de2-hijk", False),
        ("aBcDeFgHijklmnopqrst", True),  # eight changes of case in twenty
        ("ABcDeFgHijklmnopqrst", False),
        ("aBcDeFgHijklmnopqrs", False),
    ],
)
def test_where_random_begins(value: str, random: bool) -> None:
    assert _is_random(value) is random


def test_secrets_are_told_in_the_texts_order_each_with_its_line() -> None:
    text = f"\npass{'word'}: {drawn(32, seed=6)}\n\n{'hf' + '_' + drawn(34)}\n"

    assert [(found.line, found.kind[:7]) for found in find_secrets(text)] == [
        (2, "random "),
        (4, "Hugging"),
    ]


def test_the_refusal_names_place_kind_and_remedy_and_shows_no_secret() -> None:
    first, second = "hf" + "_" + drawn(34), drawn(32, seed=6)
    text = f"a: 1\nb: {first}\n\npass" + f"word: {second}\n"

    with pytest.raises(SecretError) as caught:
        require_no_secrets("configs/finetuning.yaml", text)

    assert caught.value.exit_code == 9
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "configs/finetuning.yaml:2: looks like a secret: Hugging Face token, "
        f"{first[:4]}... (37 characters)"
    )
    assert lines[1].startswith("configs/finetuning.yaml:4: looks like a secret: random value")
    assert lines[2] == (
        "put it into AWS Secrets Manager and name it under sagemaker.secrets; nothing was sent"
    )
    assert first[5:] not in str(caught.value)
    assert second[5:] not in str(caught.value)


def test_a_text_without_secrets_passes() -> None:
    require_no_secrets("requirements.txt", "torch==2.13.0\ntokenizers==0.23.3\n")


def test_nothing_in_this_repository_looks_like_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    texts = [name for name in listed if name and (ROOT / name).is_file()]
    texts.remove("tests/llm_engineering/sagemaker/test_secret_scan.py")
    assert "poetry.lock" in texts
    found = {
        name: findings
        for name in texts
        if (findings := find_secrets((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}
