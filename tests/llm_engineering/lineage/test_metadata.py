"""What a step shows must never end a training, and is complete once ZenML answers again."""

from __future__ import annotations

import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlparse

import pytest
from zenml.metadata.metadata_types import StorageSize, Uri
from zenml.zen_stores.rest_zen_store import RestZenStore

from llm_engineering.lineage import metadata
from llm_engineering.lineage.links import not_a_link
from llm_engineering.lineage.metadata import show, shown, training_progress
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.finetuning.record import HeldOutPoint, TrainingPoint, TrainingRecord


def record(steps: int, *, ended: bool = False) -> TrainingRecord:
    metrics = HeldOutMetrics(loss=2.0, token_accuracy=0.5, tokens=10, rows=2)
    points = [
        TrainingPoint(step=step, loss=3.0, learning_rate=0.1, grad_norm=1.0, tokens_per_second=10.0)
        for step in range(1, steps + 1)
    ]
    held_out = [HeldOutPoint(step=0, metrics=metrics)]
    if ended:
        held_out.append(HeldOutPoint(step=steps, metrics=metrics))
    return TrainingRecord(
        points=points, held_out=held_out, steps=steps, peak_memory_bytes=5 * 10**9
    )


class Server:
    """ZenML's, as far as figures go: down or up."""

    def __init__(self) -> None:
        self.up = True
        self.asked = 0
        self.error: Exception = ConnectionError("connection refused")
        self.written: list[dict] = []

    def log_metadata(self, metadata, **_):
        self.asked += 1
        if not self.up:
            for _attempt in range(5):
                logging.getLogger("urllib3.connectionpool").warning("Retrying")
            raise self.error
        self.written.append(metadata)


@pytest.fixture
def server(monkeypatch):
    import zenml

    server = Server()
    monkeypatch.setattr(zenml, "log_metadata", server.log_metadata)
    monkeypatch.setattr(metadata.LossCurve, "draw", lambda *_: None)
    monkeypatch.setattr(metadata, "_SECONDS_BETWEEN", 0.02)
    monkeypatch.setattr(metadata, "_LONGEST_PAUSE_S", 0.05)
    return server


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_training_goes_on_while_the_server_is_gone_and_says_so_once(server, caplog):
    caplog.set_level(logging.INFO)
    with training_progress() as progress:
        progress(record(1))
        until(lambda: server.written)
        server.up = False
        for step in (2, 3, 4):
            before = server.asked
            progress(record(step))
            until(lambda before=before: server.asked > before)
        server.up = True
        until(lambda: server.written[-1]["training"]["train_steps"] == 4)
        progress(record(5, ended=True))
    assert server.written[-1]["training"]["train_steps"] == 5
    assert "held_out_loss_after" in server.written[-1]["training"]
    told = [line for line in caplog.messages if "does not take this step's figures" in line]
    assert len(told) == 1
    assert "ConnectionError: connection refused" in told[0]
    assert "ZenML takes this step's figures again" in caplog.messages
    assert caplog.messages.count("Retrying") == 5, "those of the first request alone"


def test_a_step_that_ends_waits_for_the_server(server, monkeypatch, caplog):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        server.up = len(pauses) == 3

    with training_progress() as progress:
        server.up = False
        progress(record(2, ended=True))
        until(lambda: server.asked)
        monkeypatch.setattr(metadata.time, "sleep", sleep)
    assert server.written[-1]["training"]["train_steps"] == 2
    assert len(pauses) == 3
    assert sum("waiting for it" in line for line in caplog.messages) == 1
    assert caplog.messages.count("Retrying") <= 10
    assert not logging.getLogger("urllib3.connectionpool").level


def test_what_zenml_refuses_is_told_and_not_tried_again(server, caplog):
    server.up, server.error = False, ValueError("too long")
    show("data", {"rows": 1})
    assert server.asked == 1
    assert "ValueError: too long" in caplog.text


def test_a_training_that_fails_is_not_kept_waiting(server):
    server.up = False
    with pytest.raises(KeyboardInterrupt), training_progress() as progress:  # noqa: PT012
        progress(record(1))
        raise KeyboardInterrupt
    assert server.written == []


def test_figures_are_in_groups_rounded_and_of_zenmls_types():
    found = shown(
        "training",
        {"loss": 1.23456789, "steps": 3, "peak_memory_bytes": 7e9, "console": "https://a.b/c"},
    )
    assert found == {
        "training": {"loss": 1.2346, "steps": 3, "peak_memory": "7.0 GB"},
        "peak_memory": 7e9,
        "console": "https://a.b/c",
    }
    assert (type(found["peak_memory"]), type(found["console"])) == (StorageSize, Uri)


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("adapter: logits within 1e-06", "adapter – logits within 1e-06"),
        ("passed, adapter: logits within 1e-06", "passed, adapter: logits within 1e-06"),
        ("https://a.b/c", "https://a.b/c"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_no_sentence_reads_as_a_link_that_leads_nowhere(text, shown_as):
    assert not_a_link(text) == shown_as
    if "://" not in text:
        assert not urlparse(shown_as).scheme
        assert shown("checks", {"parity": text}) == {"checks": {"parity": shown_as}}


@pytest.mark.parametrize("name", ["arn:aws:sagemaker:us-east-1:1:training-job/x", "sha256:0f"])
def test_a_name_with_colons_can_be_copied(name):
    assert not_a_link(name) == name


class Starting(BaseHTTPRequestHandler):
    """A gateway whose server has not started yet."""

    def do_POST(self):
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(params=["nobody listens", "a gateway without its server"])
def gone(request):
    """Address of a server that is not there, or not yet."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        if request.param == "nobody listens":
            server.server_close()
            yield url
            return
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url
        server.shutdown()


def test_what_zenmls_client_raises_in_an_outage_is_one(gone, monkeypatch):
    """Its own session, with its own retries, of which only the pauses are left out."""
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    settings = SimpleNamespace(verify_ssl=True, connection_pool_size=1)
    client = SimpleNamespace(_session_lock=threading.RLock(), _session=None, config=settings)
    session = RestZenStore.session.fget(client)
    with pytest.raises(Exception, match="Max retries exceeded") as raised:
        session.post(f"{gone}/api/v1/run-metadata", json={})
    assert metadata._is_outage(raised.value)
    assert not metadata._is_outage(RuntimeError("500 HTTP Error received from server"))
