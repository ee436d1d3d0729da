"""What a server, a mirror, an archive or a copy can do to `fetch`."""

import contextlib
import gzip
import pickle
import tarfile
import time

import pytest
from conftest import send, serving, tarred
from test_downloads import FILES, zipped

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import artifacts
from llamaxr_utils.datasets import downloads

WEIGHTS = b"weights" * 9999


def refused(command, capsys, *words):
    """An error in three parts, of one command."""
    began = time.monotonic()
    assert main(command) == 1
    shown = capsys.readouterr().err.replace("\n", " ")
    assert all(f" {part}: " in shown for part in ("What", "Why", "Do"))
    assert all(word in shown for word in words), shown
    assert time.monotonic() - began < 9


@pytest.fixture
def published(folders, monkeypatch):
    """A file whose first copies are none."""
    name = "cvt2distilgpt2"
    folder = downloads.cache_folder() / "predictions"
    content = b"dicom_id,report\nCXR1,Clear.\n" + WEIGHTS
    (folder.parent / "content").parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "content").write_bytes(content)
    monkeypatch.setitem(downloads.FILES, name, downloads.FILES[name]._replace(
        sha256=artifacts.sha256(folder.parent / "content"),
        size=len(content)))
    monkeypatch.setattr(downloads, "DEADLINE", 1)
    monkeypatch.setattr(downloads, "SILENCE", 1)
    return name, folder / downloads.file_name(name), content
