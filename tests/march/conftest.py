import pytest

from commands import CONFIG
from kernelfield.cli import app


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a configuration, and no compilation cache switched on for later tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path
