"""The archive for a room without a network, but for its wheels."""

import sys
import tarfile

import bundle
import pytest

from llamaxr_utils.course import artifacts, run

RECORD = dict(knobs={}, inputs={}, outputs={}, seconds=1, peak_memory_gb=1)


def test_a_bundle_holds_the_repository_a_run_and_how_to_start(
    folders, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(bundle, "wheels", lambda place, _: place.mkdir())
    with pytest.raises(SystemExit, match="make course, then make bundle"):
        bundle.bundle(tmp_path)
    for name in run.NOTEBOOKS[:7]:
        record = folders / "cpu" / "records" / f"{name}.json"
        artifacts.write_json(record, RECORD)
    (folders / "cpu" / "checkpoints").mkdir()
    (data / "phantoms").mkdir()
    (data / "phantoms" / "CXR1.png").touch()
    path = bundle.bundle(tmp_path / "out", "win_amd64")
    assert list(path.parent.iterdir()) == [path]
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        start = archive.extractfile(f"{bundle.NAME}/START.txt").read().decode()
    assert {"Makefile", "wheels", "data/phantoms/CXR1.png", "START.txt",
            f"runs/cpu/records/{run.NOTEBOOKS[6]}.json"} <= names
    assert not any("checkpoints" in name or ".git/" in name for name in names)
    assert "Python {}.{} on win_amd64".format(*sys.version_info) in start
    assert "CC BY-NC-ND" in start and "not for diagnosis" in start
