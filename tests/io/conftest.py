"""What several tests of inputs stand on."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of temporary folders during a test: empty whenever no zip is open."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
