"""Which of several ranks' failures is told."""

import pytest
import torch

from llm_engineering.errors import HardwareError, TrainingError
from llm_engineering.training.failure import Failure, first_cause


def fail(folder, rank, error):
    try:
        raise error
    except BaseException as caught:
        Failure.of(rank, caught).write(folder)


def test_an_error_of_ours_is_told_as_it_was_raised(tmp_path):
    fail(tmp_path, 0, RuntimeError("Connection closed by peer"))  # found out before the cause
    fail(tmp_path, 1, HardwareError("too small"))
    cause = first_cause(tmp_path, 2, {0: 1, 1: 1})
    assert type(cause) is HardwareError
    assert str(cause) == "too small"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_is_told_as_such(tmp_path, error):
    fail(tmp_path, 1, error)
    assert isinstance(first_cause(tmp_path, 2, {1: 1}), torch.OutOfMemoryError)


def test_a_rank_that_was_killed_counts_before_those_that_noticed(tmp_path):
    fail(tmp_path, 0, RuntimeError("Connection closed by peer"))
    cause = first_cause(tmp_path, 2, {0: 1, 1: -9})
    assert "rank 1 of 2 was killed by SIGKILL" in str(cause)


def test_another_exception_comes_with_its_rank_and_traceback(tmp_path):
    fail(tmp_path, 1, ZeroDivisionError("by zero"))
    fail(tmp_path, 0, RuntimeError("Connection closed by peer"))
    cause = first_cause(tmp_path, 2, {0: 1, 1: 1})
    assert isinstance(cause, TrainingError)
    assert str(cause).startswith("rank 1 of 2 failed:\nTraceback")
    assert "in fail\n" in str(cause)
    assert "ZeroDivisionError: by zero" in str(cause)


def test_an_end_without_a_word_shows_the_end_of_the_log(tmp_path):
    log = tmp_path / "run" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("much\n" * 50 + "Fatal Python error: Segmentation fault\n")
    cause = str(first_cause(tmp_path, 2, {1: 1}))
    assert "rank 1 of 2 ended with exit code 1" in cause
    assert cause.endswith("Segmentation fault")


def test_an_abort_is_told_with_the_end_of_its_log_and_what_else_failed(tmp_path):
    log = tmp_path / "run" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("Fatal Python error: Aborted\n")
    fail(tmp_path, 0, RuntimeError("Connection closed by peer"))
    cause = str(first_cause(tmp_path, 2, {0: 1, 1: -6}))
    assert "rank 1 of 2 was ended by SIGABRT; the end of its log:\nFatal Python error" in cause
    assert "rank 0 failed too:\nTraceback" in cause
    assert cause.endswith("Connection closed by peer\nContinue with --resume")
