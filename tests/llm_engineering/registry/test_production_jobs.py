"""Which jobs production came from; what is not known is never taken for none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from llm_engineering.errors import RegistryError
from llm_engineering.registry.production_jobs import production_jobs


@pytest.fixture
def versions(monkeypatch):
    """The versions in production."""
    import zenml.utils.pagination_utils as pages

    found = []
    monkeypatch.setattr(pages, "depaginate", lambda *args, **asked: list(found))
    return found


def version(**metadata):
    return SimpleNamespace(name="v", run_metadata={"adapter_digest": "a", **metadata})


def test_jobs_are_noted_with_their_versions(versions):
    versions += [version(job_name="job-1"), version(job_name=""), version(job_name="job-2")]
    assert production_jobs() == {"job-1", "job-2"}


def test_an_older_version_is_asked_by_its_manifest(versions, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"job": {"name": "job-3"}}))
    versions.append(version(output_folder=str(folder)))
    assert production_jobs() == {"job-3"}
    (folder / "manifest.json").write_text(json.dumps({"job": None}))
    assert production_jobs() == set()


def test_where_neither_tells_nothing_may_be_removed(versions, tmp_path):
    versions.append(version(output_folder=str(tmp_path / "gone")))
    with pytest.raises(RegistryError, match=r"is not noted, and .* does not tell"):
        production_jobs()


def test_versions_of_other_projects_are_passed_over(versions):
    versions.append(SimpleNamespace(name="theirs", run_metadata={}))
    assert production_jobs() == set()
