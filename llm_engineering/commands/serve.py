"""``--serve``: a trained model's answers to programs, by the engine that this host has."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from llm_engineering.commands.trained_version import TrainedVersion, trained_version
from llm_engineering.configuration import load_config
from llm_engineering.errors import TalkError
from llm_engineering.serving.endpoint import Endpoint

_PATIENCE = 30
"""Seconds that an engine has to end after a signal."""


def run(
    where: str,
    host: str,
    port: int,
    config_path: Path,
    overrides: Sequence[str],
    *,
    dry_run: bool = False,
) -> None:
    """Serve until Ctrl-C.

    Args:
        where: As of ``trained_version``.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        config_path: Says which model is meant, and where runs are.
        overrides: Of its keys.
        dry_run: Print what would be run, and what is missing for it.

    Raises:
        KeyboardInterrupt: It was ended.
        RegistryError: There is no such version.
        SetupError: Packages are missing.
        TalkError: The model cannot be found or loaded, the port is taken, or the engine failed.
    """
    config = load_config(config_path, overrides)
    if dry_run:
        with trained_version(where, config) as version:
            _print_plan(version, host, port)
        return

    from llm_engineering.serving import vllm_command

    uses_vllm = vllm_command.is_installed() and _has_gpu()
    with trained_version(where, config) as version:
        print(version.text, file=sys.stderr)
        if uses_vllm:
            _serve_by_vllm(version, Endpoint(host, port, version.model))
        else:
            _serve_by_transformers(version, host, port)


def _serve_by_transformers(version: TrainedVersion, host: str, port: int) -> None:
    from llm_engineering.commands.ask import quiet_libraries
    from llm_engineering.serving.endpoint import listen
    from llm_engineering.serving.transformers_server import require_packages, serve
    from llm_engineering.training_stack import require_training_stack

    require_training_stack()
    require_packages()
    quiet_libraries()
    with closing(listen(host, port)) as taken:
        endpoint = Endpoint(host, taken.getsockname()[1], version.model)

        from llm_engineering.talk.answering_model import load_answering_model

        model = load_answering_model(version.run)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        serve(model, endpoint, taken, lambda: _announce(endpoint, _engine(version)))


def _serve_by_vllm(version: TrainedVersion, endpoint: Endpoint) -> None:
    from llm_engineering.model.base_model import model_folder
    from llm_engineering.serving.vllm_command import command

    if not endpoint.port:
        raise TalkError("--port 0: vLLM takes no free port by itself; name one")
    base = model_folder(version.run.base, weights=True)
    line, notes = command(version.run, str(base), endpoint)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(shlex.join(line), file=sys.stderr)
    _announce(endpoint, "vLLM, once it says that it has started")
    # In this process's group, so that a terminal's Ctrl-C reaches it too.
    engine = subprocess.Popen(line)
    try:
        code = engine.wait()
    except KeyboardInterrupt:
        engine.terminate()
        try:
            engine.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            engine.kill()
        raise
    if code:
        raise TalkError(f"vLLM ended with {code}; it says above why")


def _print_plan(version: TrainedVersion, host: str, port: int) -> None:
    from llm_engineering.serving import vllm_command
    from llm_engineering.serving.transformers_server import missing_packages
    from llm_engineering.training_stack import has_pytorch

    endpoint = Endpoint(host, port, version.model)
    lacks = [] if vllm_command.is_installed() else ["vllm"]
    lacks += [] if _has_gpu() else ["an NVIDIA GPU"]
    here = missing_packages() + ([] if has_pytorch() else ["torch"])
    chosen = "transformers serve" if lacks else "vLLM"
    print(f"model          {version.text}")
    print(f"engine         {chosen}" + (f" (vLLM: missing {', '.join(lacks)})" if lacks else ""))
    if lacks:
        print(f"               {_engine(version)}")
        print(f"missing        {', '.join(here) or 'nothing'}")
    print(f"served as      {endpoint.model} at {endpoint.url}")
    try:
        line, notes = vllm_command.command(version.run, version.run.base.id, endpoint)
    except TalkError as error:
        print(f"by vLLM        not at all: {error}")
    else:
        print(f"by vLLM        {shlex.join(line)}")
        for note in notes:
            print(f"               note: {note}")
    print(f"to try it      {endpoint.curl()}")


def _engine(version: TrainedVersion) -> str:
    how = "base + adapter, not merged" if version.run.kind == "adapter" else "merged"
    return f"transformers serve, one request at a time; weights: {how}"


def _announce(endpoint: Endpoint, engine: str) -> None:
    print(f"serving        {endpoint.model} at {endpoint.url}", flush=True)
    print(f"engine         {engine}")
    print(f"to try it      {endpoint.curl()}")
    if not endpoint.is_local:
        print(
            f"note: {endpoint.host} is reached from other hosts, and nothing asks for a password",
            file=sys.stderr,
        )
    print("Ctrl-C ends it; it goes on with this version whatever is promoted meanwhile", flush=True)


def _has_gpu() -> bool:
    from llm_engineering.training_stack import has_pytorch

    if not has_pytorch():
        return False
    from llm_engineering.planning.hardware import has_gpu

    return has_gpu()
