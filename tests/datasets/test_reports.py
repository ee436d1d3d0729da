"""The real reports, counted; splits; what is no report."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise

import pandas as pd
import pytest

from llamaxr_utils.course.artifacts import ARTIFACTS
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import reports

#: Own text in OpenI's form.
XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{number}"/>
<MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">{comparison}</AbstractText>
<AbstractText Label="FINDINGS">The heart is   big. </AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>heart</automatic></MeSH>
<parentImage id="CXR{number}_IM-1"/><parentImage id="CXR{number}_IM-2"/>
</eCitation>"""


def xml(number=7, comparison="None &amp; <b>none</b>."):
    return XML.format(number=number, comparison=comparison)


@pytest.fixture(scope="module")
def studies():
    return reports.load_studies()


# --- counts and splits ------------------------------------------------------


def test_studies_sections_and_images(studies):
    columns = set(ARTIFACTS["studies"].columns) - {"split"}  # chosen in 01
    assert set(studies.columns) == columns
    assert len(studies) == 3955
    numbers = studies["study_id"].str[3:].astype(int)
    assert numbers.is_unique and numbers.is_monotonic_increasing
    findings, impression = (
        studies[section].ne("") for section in ("findings", "impression")
    )
    assert findings.sum() == 3425
    assert impression.sum() == 3921
    assert (~findings & ~impression).sum() == 28
    assert studies["findings"].str.contains("XXXX").sum() == 1486
    words = studies["findings"][findings].str.split().map(len)
    assert (words.median(), words.quantile(0.95), words.max()) == (29, 59, 169)
    n, ids = studies["n_images"], reports.load_image_ids()
    assert n.sum() == len(ids) == 7470
    assert ids["image_id"].is_unique
    counts = [(n == 0).sum(), (n == 1).sum(), (n == 2).sum(), (n > 2).sum()]
    assert counts == [104, 446, 3208, 197]


def test_what_the_caller_changes_is_not_kept(studies):
    first = reports.load_studies()
    first.loc[0, "findings"] = "Changed."
    first.loc[0, "mesh"].append("Changed")
    again = reports.load_studies()
    assert again.loc[0, "findings"] == studies.loc[0, "findings"]
    assert "Changed" not in again.loc[0, "mesh"]


def test_r2gens_split(studies):
    listed = studies["split_r2gen"]
    assert listed.value_counts().to_dict() == {
        "train": 2069, "none": 1000, "test": 590, "val": 296,
    }  # fmt: skip
    usable = studies["findings"].ne("") & studies["n_images"].ge(2)
    assert (listed.ne("none") == usable).all()


def test_copied_reports_and_the_two_parts_of_the_test_list(studies):
    """In R2Gen's own order; shares of normal and of copied, per cent."""
    r2gen = reports.r2gen_split().merge(studies, on="study_id")
    same = r2gen["findings"].map(reports.normalise)
    copied = same.isin(set(same[r2gen["split"] == "train"]))
    test = pd.DataFrame({
        "normal": r2gen["status"].eq("normal"), "copied": copied,
    })[r2gen["split"] == "test"]  # fmt: skip
    assert test["copied"].sum() == 277
    edge = reports.FIRST_PART
    shares = [100 * part.mean() for part in (test[:edge], test[edge:])]
    assert [list(share.round()) for share in shares] == [[88, 96], [37, 27]]


def test_the_random_split_is_seeded_70_10_20_of_the_usable(studies):
    split = studies["split_random"]
    usable = studies["findings"].ne("") & studies["n_images"].gt(0)
    assert (split.ne("none") == usable).all()
    counts, n = split.value_counts(), usable.sum()
    assert counts["train"] == round(0.7 * n)
    assert counts["val"] == round(0.1 * n)
    # Its first studies, written down: numpy's generator is stable.
    first = studies["study_id"][split == "test"].head(5)
    assert list(first) == ["CXR7", "CXR15", "CXR43", "CXR49", "CXR50"]
    assert not reports.random_split(usable, seed=2).equals(split)


# --- files of other sources -------------------------------------------------


def archive(path, members):
    with tarfile.open(path, "w:gz") as content:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            content.addfile(info, io.BytesIO(text.encode()))
    return path


def test_a_folder_of_xml_or_an_archive_read_in_memory(tmp_path):
    """In an archive a path that leads out of it is only a name."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "10.xml").write_text(xml(10))
    (tmp_path / "in" / "9.xml").write_text(xml(9))
    (tmp_path / "in" / "readme.txt").write_text("no report")
    table = reports.load_studies("folder", tmp_path / "in")
    assert list(table["study_id"]) == ["CXR9", "CXR10"]
    row = table.iloc[0]
    assert row["findings"] == "The heart is big."
    assert row["comparison"] == "None & none."
    assert row["impression"] == row["indication"] == ""
    assert row["mesh"] == ["Cardiomegaly/mild"]
    assert (row["status"], row["n_images"]) == ("abnormal", 2)

    before = set(tmp_path.rglob("*"))
    file = archive(
        tmp_path / "in" / "a.tgz", {"../../7.xml": xml(7), "/tmp/8.xml": xml()}
    )
    table = reports.load_studies("folder", file)
    assert list(table["study_id"]) == ["CXR7", "CXR7"]
    assert set(tmp_path.rglob("*")) == before | {file}


#: A few bytes that become gigabytes, and another file's content.
BOMBS = [
    '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefgh")
    ),
    '<!ENTITY i SYSTEM "file:///etc/hostname">',
]  # fmt: skip


def bomb(content):
    head, body = xml(comparison="&i;").split("\n", 1)
    return f"{head}\n<!DOCTYPE a [{content}]>\n{body}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (xml()[:300], "unclosed"),
        ("<html><body>404</body></html>", "No OpenI report"),
        (xml().replace("CXR7", "CXRseven"), "seven"),
        (bomb(BOMBS[0]), "EntitiesForbidden"),
        (bomb(BOMBS[1]), "EntitiesForbidden"),
    ],
)
def test_a_corrupt_report_is_named(tmp_path, text, why):
    (tmp_path / "1.xml").write_text(xml(1))
    (tmp_path / "broken.xml").write_text(text)
    with pytest.raises(CourseError, match=r"broken\.xml could not") as caught:
        reports.load_studies("folder", tmp_path)
    assert why in caught.value.why


def test_a_broken_archive(tmp_path):
    """Cut, none at all, or one wrong byte: refused with a reason, or read."""
    file = archive(tmp_path / "a.tgz", {f"{i}.xml": xml(i) for i in range(50)})
    whole, refused = file.read_bytes(), 0
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(CourseError, match=r"a\.tgz could not be read"):
            reports.load_studies("folder", file)
    for place in range(0, len(whole), len(whole) // 40):
        broken = bytearray(whole)
        broken[place] ^= 255
        copy = tmp_path / f"{place}.tgz"
        copy.write_bytes(broken)
        try:
            reports.load_studies("folder", copy)
        except CourseError:
            refused += 1
    assert refused > 20
