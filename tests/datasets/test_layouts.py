"""X-rays on disk: every layout's names, archives that want out or broke."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads, layouts, reports

DICOM = bytes(128) + b"DICM" + bytes(60)


@pytest.fixture
def data(folders, tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(*parts, content=b"x"):
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rows(table):
    return table[["study_id", "image_id", "layout"]].to_numpy().tolist()


# --- names ------------------------------------------------------------------


def test_every_image_id_of_the_collection_is_recognised_under_both_names():
    ids = list(reports.load_image_ids()["image_id"])
    assert len(ids) == 7470
    assert [layouts.openi_id(i) for i in ids] == ids
    kaggle = [f"{i.removeprefix('CXR').replace('1_1_', '1_')}.dcm"
              for i in ids if i.startswith("CXR1_")] + [
              f"{i.removeprefix('CXR')}.dcm"
              for i in ids if not i.startswith("CXR1_")]  # fmt: skip
    assert {layouts.openi_id(k) for k in kaggle} == set(ids)
    assert set(layouts.known_views()["image_id"]) <= set(ids)


@pytest.mark.parametrize(
    "stem", ["holiday", "0", "CXR2", "CXR2_frontal", "CXR2_IM-0652", "IM-1-1"]
)
def test_other_names_are_no_image_ids(stem):
    assert layouts.openi_id(stem) is None


def test_each_layout_is_told_by_its_names(data):
    put(data, "CXR1_1_IM-0001-3001.png")
    put(data, "images/images_normalized/2_IM-0652-1001.dcm.png")
    put(data, "NLMCXR_dcm/3/3_IM-1384-1001.dcm", content=DICOM)
    put(data, "dicom/CXR4_IM-2050-1001", content=DICOM)
    put(data, "iu_xray/images/CXR2384_IM-0942/0.png")
    put(data, "iu_xray/images/CXR2384_IM-0942/1.png")
    put(data, "CXR5_IM-2117-1001.txt")
    put(data, "CXR6_IM-2192-1001")  # no ending, and no DICOM
    put(data, "holiday/0.jpg")
    found = layouts.find_images()
    assert rows(found) == [
        ["CXR1", "CXR1_1_IM-0001-3001", "openi"],
        ["CXR2", "CXR2_IM-0652-1001", "kaggle"],
        ["CXR3", "CXR3_IM-1384-1001", "dicom"],
        ["CXR4", "CXR4_IM-2050-1001", "dicom"],
        ["CXR2384", "CXR2384_IM-0942/0", "r2gen"],
        ["CXR2384", "CXR2384_IM-0942/1", "r2gen"],
    ]
    assert [Path(p).name for p in found.attrs["ignored"]] == ["0.jpg"]
    assert all(path.is_file() for path in found["path"])


def test_r2gens_numbers_give_no_view_and_no_image_id(data):
    """0.png need not be the frontal: nothing here may say so."""
    folder = data / "iu_xray" / "CXR2384_IM-0942"
    for i in range(2):
        put(folder, f"{i}.png")
    found = layouts.find_images(data / "iu_xray")
    assert list(found.columns) == ["study_id", "image_id", "path", "layout"]
    assert not set(found["image_id"]) & set(layouts.known_views()["image_id"])
    with pytest.raises(CourseError, match="2 images there have other names"):
        layouts.find_xrays(data / "iu_xray")


def test_the_second_image_of_a_study_may_well_be_the_frontal_one():
    """What "the first is frontal" would get wrong."""
    ids = reports.load_image_ids().merge(layouts.known_views())
    ids = ids[ids["study_id"].isin(reports.r2gen_split()["study_id"])]
    both = ids.groupby("study_id")["view"].transform("nunique") == 2
    first = ids[both].groupby("study_id")["view"].first()
    assert 100 < (first == "lateral").sum() < len(first) / 2


def test_images_without_a_listed_view_are_found_too(data):
    put(data, "CXR16_IM-0389-1001.png")
    assert list(layouts.find_xrays()) == ["CXR16_IM-0389-1001"]


def test_hidden_half_written_and_drawn_files_do_not_count(data):
    put(data, "CXR2_IM-0652-1001.png")
    put(data, ".work/CXR3_IM-1384-1001.png")
    put(data, ".CXR3_IM-1384-1001.png.part77")
    put(data, "__MACOSX/._CXR3_IM-1384-1001.png")
    put(data, "phantoms/v1-64/CXR3_frontal.png")
    found = layouts.find_images()
    assert list(found["image_id"]) == ["CXR2_IM-0652-1001"]
    assert found.attrs["ignored"] == []


def test_an_image_that_is_there_twice_counts_once(data):
    first = put(data, "a/CXR2_IM-0652-1001.png")
    put(data, "b/2_IM-0652-1001.dcm.png")
    assert layouts.find_xrays() == {"CXR2_IM-0652-1001": first}


def test_an_empty_folder_gives_an_empty_table(data):
    found = layouts.find_images()
    assert found.empty and "image_id" in found
    with pytest.raises(CourseError, match="fetch openi"):
        layouts.find_xrays()


# --- archives ---------------------------------------------------------------


def zipped(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, body in entries:
            content.writestr(name, body)
    return path


def tarred(path, *entries):
    """Entries: (name, bytes) or a TarInfo."""
    with tarfile.open(path, "w:gz") as content:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                content.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            content.addfile(info, io.BytesIO(entry[1]))
    return path


PACKERS = pytest.mark.parametrize(
    ("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tgz")]
)


def unpacked(folder):
    return {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != layouts.NOTE
    }


@PACKERS
def test_only_images_are_unpacked(tmp_path, pack, name):
    archive = pack(
        tmp_path / name,
        ("x/1.png", b"one"),
        ("2.JPG", b"two"),
        ("run.sh", b"no"),
        ("__MACOSX/._2.jpg", b"no"),
    )
    target = layouts.unpack_images(archive, tmp_path / "out")
    assert unpacked(target) == {"x/1.png", "2.JPG"}
    assert (target / "2.JPG").read_bytes() == b"two"
    (target / "2.JPG").unlink()  # a folder that is there is not redone
    assert layouts.unpack_images(archive, target) == target
    assert not (target / "2.JPG").exists()


@PACKERS
def test_an_archive_in_the_data_folder_is_unpacked_once(data, pack, name):
    pack(data / name, ("deep/CXR2_IM-0652-1001.png", b"1"))
    found = layouts.find_xrays()
    assert list(found) == ["CXR2_IM-0652-1001"]
    written = found["CXR2_IM-0652-1001"].stat().st_mtime_ns
    again = layouts.find_xrays()["CXR2_IM-0652-1001"]
    assert again.stat().st_mtime_ns == written


@PACKERS
def test_a_new_archive_of_the_same_name_is_unpacked(tmp_path, pack, name):
    out = tmp_path / "out"
    pack(tmp_path / name, ("1.png", b"1"))
    layouts.unpack_images(tmp_path / name, out)
    whole = pack(tmp_path / name, ("1.png", b"1"), ("2.png", b"22"))
    content = whole.read_bytes()
    whole.write_bytes(content[:-20])  # half of it: what was there stays
    with pytest.raises(CourseError, match="could not be unpacked"):
        layouts.unpack_images(whole, out)
    assert unpacked(out) == {"1.png"}
    whole.write_bytes(content)
    layouts.unpack_images(whole, out)
    assert unpacked(out) == {"1.png", "2.png"}


def test_a_folder_that_a_person_unpacked_is_left_alone(tmp_path):
    put(tmp_path, "out/mine.png")
    archive = zipped(tmp_path / "a.zip", ("1.png", b"1"))
    layouts.unpack_images(archive, tmp_path / "out")
    assert unpacked(tmp_path / "out") == {"mine.png"}


@PACKERS
@pytest.mark.parametrize(
    "bad", ["../out.png", "/out.png", "x/../../o.png", "..\\o.png", "../a.txt"]
)
def test_no_path_leads_out(tmp_path, pack, name, bad):
    archive = pack(tmp_path / name, ("good.png", b"1"), (bad, b"2"))
    with pytest.raises(CourseError, match="not safe to unpack") as caught:
        layouts.unpack_images(archive, tmp_path / "deep" / "out")
    assert repr(bad) in caught.value.why
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [name]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
             tarfile.BLKTYPE, tarfile.FIFOTYPE],
)  # fmt: skip
def test_links_and_devices_are_refused(tmp_path, kind):
    entry = tarfile.TarInfo("x.png")
    entry.type, entry.linkname = kind, "/etc/hostname"
    archive = tarred(tmp_path / "a.tgz", ("good.png", b"1"), entry)
    with pytest.raises(CourseError, match="a link or a device"):
        layouts.unpack_images(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("x.png")
    link.external_attr = 0o120777 << 16
    archive = zipped(tmp_path / "a.zip", (link, b"/etc/hostname"))
    with pytest.raises(CourseError, match="a link or a device"):
        layouts.unpack_images(archive, tmp_path / "out")


@PACKERS
def test_a_damaged_archive_leaves_nothing(tmp_path, pack, name):
    noise = random.Random(1).randbytes(4000)
    archive = pack(tmp_path / name, ("1.png", noise), ("2.png", noise))
    whole = archive.read_bytes()
    damaged = whole[:60] + b"?" * 400 + whole[460:]
    for content in (whole[:-30], damaged, b"", b"PK", b"<html>Log in</html>"):
        archive.write_bytes(content)
        with pytest.raises(CourseError, match="could not be unpacked"):
            layouts.unpack_images(archive, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == [name]


@PACKERS
def test_an_archive_that_would_fill_the_disk(
    tmp_path, monkeypatch, pack, name
):
    archive = pack(tmp_path / name, ("1.png", b"1" * 1000))
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CourseError, match=f"not enough space for {name}"):
        layouts.unpack_images(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
