"""Fixtures that several parts of the tests use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder of development data that is not in the repository; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder} (set NUCLEISEG_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch, tmp_path_factory):
    """What tests open is not remembered as a project of whoever runs them."""
    path = tmp_path_factory.getbasetemp() / "projects.json"
    monkeypatch.setattr("napari_nucleiseg.core.store.finding.registry_path", lambda: path)
