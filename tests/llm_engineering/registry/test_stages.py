"""Tests of ``llm_engineering.registry.stages``: forward, by hand, back, and two at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from llm_engineering.errors import RegistryError
from llm_engineering.registry import stages as module
from llm_engineering.registry.stages import promote_by_hand, promote_if_unchallenged, roll_back
from llm_engineering.registry.versions import all_versions, find_version, production_version

AddVersion = Callable[..., str]


def stages(model: str) -> dict[str, str | None]:
    return {str(v.name): v.stage for v in all_versions(model)}


def promote(model: str, version: str) -> None:
    current = production_version(model)
    expected = str(current.name) if current else None
    assert promote_if_unchallenged(model, version, expected=expected, reason="better")


def test_the_old_version_is_archived_and_the_reason_kept(
    model: str, add_version: AddVersion
) -> None:
    for name in ("one", "two"):
        promote(model, add_version(name))

    assert stages(model) == {"two": "production", "one": "archived"}
    kept = find_version(model, "two").run_metadata
    assert (kept["promotion_reason"], kept["replaced"]) == ("better", "one")


def test_a_version_that_was_compared_with_another_is_not_promoted(
    model: str, add_version: AddVersion
) -> None:
    for name in ("one", "two", "three"):
        add_version(name)
    promote(model, "one")
    promote(model, "two")

    assert not promote_if_unchallenged(model, "three", expected="one", reason="better than one")
    assert stages(model) == {"three": None, "two": "production", "one": "archived"}


def test_back_and_further_back(model: str, add_version: AddVersion) -> None:
    for name in ("one", "two", "three"):
        promote(model, add_version(name))

    assert roll_back(model) == ("three", "two")
    assert roll_back(model) == ("two", "one")
    assert stages(model) == {"three": "archived", "two": "archived", "one": "production"}
    with pytest.raises(RegistryError, match="one is the first production version"):
        roll_back(model)


def test_by_hand_by_name_or_number(model: str, add_version: AddVersion) -> None:
    for name in ("one", "two"):
        add_version(name)

    assert promote_by_hand(model, "1") == ("one", None)
    assert promote_by_hand(model, "two") == ("two", "one")
    with pytest.raises(RegistryError, match="two is the production version"):
        promote_by_hand(model, "2")
    with pytest.raises(RegistryError, match=r"has no version 3; newest: 2 \(two\), 1 \(one\)"):
        promote_by_hand(model, "3")


def test_promoting_by_hand_forgives_a_rollback(model: str, add_version: AddVersion) -> None:
    for name in ("one", "two"):
        promote(model, add_version(name))
    roll_back(model)
    assert find_version(model, "two").run_metadata["rolled_back"] is True

    promote_by_hand(model, "two")

    assert find_version(model, "two").run_metadata["rolled_back"] is False


def test_what_cannot_be_loaded_is_not_put_into_production(
    model: str, add_version: AddVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        promote(model, add_version(name))
    gone = {"one"}

    def require(version: object, artifact: str) -> None:
        if version.name in gone:
            raise RegistryError(f"the {artifact} of {version.name} is not in the store any more")

    monkeypatch.setattr(module, "require_artifact", require)
    with pytest.raises(RegistryError, match="the adapter of one is not in the store"):
        roll_back(model)
    with pytest.raises(RegistryError, match="the adapter of one is not in the store"):
        promote_by_hand(model, "one")
    assert stages(model) == {"two": "production", "one": "archived"}


def test_nothing_to_roll_back(model: str, add_version: AddVersion) -> None:
    with pytest.raises(RegistryError, match="has no production version"):
        roll_back(model)


def test_two_processes_promote_at_once_and_one_wins(model: str, add_version: AddVersion) -> None:
    for name in ("one", "two"):
        add_version(name)
    code = (
        "import sys\n"
        "from zenml.client import Client\n"
        "from llm_engineering.registry.stages import promote_if_unchallenged\n"
        "Client().active_project\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"won = promote_if_unchallenged({model!r}, sys.argv[1], expected=None, reason='first')\n"
        "print('won' if won else 'lost')\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=60)[0].strip() for process in both]

    assert sorted(outcomes) == ["lost", "won"]
    winner = ("one", "two")[outcomes.index("won")]
    assert [name for name, stage in stages(model).items() if stage == "production"] == [winner]
