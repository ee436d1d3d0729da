"""Fetched files and archives, whole; bad ones are the torture suite's."""

import random

import pandas as pd
import pytest
from conftest import tarred, zipped

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course import artifacts
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads, images


def test_an_archive_from_this_machine(folders, monkeypatch, tmp_path, capsys):
    views = pd.DataFrame({"image_id": ["CXR2_IM-0652-1001", "CXR1_IM-0001"]})
    monkeypatch.setattr(images, "known_views", views.copy)
    archive = tmp_path / "xrays.part1.zip"
    archive.write_bytes(zipped(("x/CXR2_IM-0652-1001.png", b"1")))
    assert commands.main(["fetch", "openi", "--from", str(archive)]) == 1
    shown = capsys.readouterr().out
    assert "Missing: 1 images" in shown and "CC BY-NC-ND 4.0" in shown
    assert images.find_images()["path"][0].read_bytes() == b"1"
    with pytest.raises(CourseError, match="HTTPS_PROXY") as caught:
        downloads.fetch_xrays()  # no network
    assert "no connection to https://openi.nlm.nih.gov" in caught.value.why
    assert "wget -c" in caught.value.do


def unpacked(archive, content):
    """Names of the files after an archive of this content is unpacked."""
    archive.write_bytes(content)
    target = downloads.unpack_images(archive, archive.parent / "deep" / "out")
    return {file.name for file in target.rglob("*.png")}


@pytest.mark.parametrize(
    ("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tgz")])
def test_a_new_archive_is_unpacked_again_a_damaged_not(tmp_path, pack, name):
    archive, noise = tmp_path / name, random.Random(1).randbytes(4000)
    whole = pack(("1.png", noise), ("2.png", noise))
    assert unpacked(archive, pack(("x/a.png", b"a"))) == {"a.png"}
    for damaged in (whole[:-30], whole[:60] + b"?" * 400 + whole[460:], b""):
        with pytest.raises(CourseError, match="could not be unpacked"):
            unpacked(archive, damaged)
        assert (tmp_path / "deep/out/x/a.png").read_bytes() == b"a"
    assert unpacked(archive, whole) == {"1.png", "2.png"}


def test_predictions_become_a_table(tmp_path, folders, monkeypatch, capsys):
    raw = tmp_path / "raw.csv"
    raw.write_text('report,dicom_id\n"the lungs, clear.",CXR1_IM-0001\n'
                   "a scar.,CXR2_IM\n")
    source = downloads.Published(
        "https://raw.example.org/reports.csv", artifacts.sha256(raw), 999,
        "peer.csv", "a licence")
    for known in (downloads.FILES, downloads.SOURCES):
        monkeypatch.setitem(known, "peer", source)
    assert commands.main(["fetch", "peer", "--from", str(raw)]) == 0
    assert "peer.csv  (a licence)" in capsys.readouterr().out
    table = pd.read_csv(downloads.cache_folder() / "peer.csv")
    assert table[["id", "generated"]].to_numpy().tolist() == [
        ["CXR1_IM-0001", "the lungs, clear."], ["CXR2_IM", "a scar."]]
    assert commands.main(["fetch", "pear"]) == 1
