"""The real reports, counted; splits; what is no report."""

from __future__ import annotations

import io
import tarfile

import pandas as pd
import pytest

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


FIRST_TEST = ["CXR7", "CXR15", "CXR43", "CXR49", "CXR50"]


@pytest.fixture(scope="module")
def studies():
    return reports.load_studies()


@pytest.fixture(scope="module")
def r2gen(studies):
    """R2Gen's studies in R2Gen's own order."""
    return reports.r2gen_split().merge(studies, on="study_id")


# --- counts -----------------------------------------------------------------


def test_studies_and_sections(studies):
    assert len(studies) == 3955
    assert studies["study_id"].is_unique
    findings, impression = (
        studies[section].ne("") for section in ("findings", "impression")
    )
    assert findings.sum() == 3425
    assert impression.sum() == 3921
    assert (~findings & ~impression).sum() == 28
    assert studies["findings"].str.contains("XXXX").sum() == 1486


def test_images(studies):
    n = studies["n_images"]
    assert n.sum() == len(reports.load_image_ids()) == 7470
    assert reports.load_image_ids()["image_id"].is_unique
    counts = [(n == 0).sum(), (n == 1).sum(), (n == 2).sum(), (n > 2).sum()]
    assert counts == [104, 446, 3208, 197]


def test_words_of_the_findings(studies):
    words = studies["findings"][studies["findings"].ne("")]
    words = words.str.split().map(len)
    assert words.median() == 29
    assert words.quantile(0.95) == 59
    assert words.max() == 169


def test_the_columns_are_the_artifacts(studies):
    from llamaxr_utils.course.artifacts import ARTIFACTS

    columns = set(ARTIFACTS["studies"].columns) - {"split"}  # chosen in 01
    assert set(studies.columns) == columns


def test_studies_are_in_the_order_of_their_numbers(studies):
    numbers = studies["study_id"].str[3:].astype(int)
    assert numbers.is_monotonic_increasing


def test_text_is_folded_and_otherwise_as_it_was(studies):
    for section in reports.SECTIONS:
        folded = studies[section].map(lambda text: " ".join(text.split()))
        assert (folded == studies[section]).all()
    assert studies["findings"].str.contains(r"[A-Z]").sum() > 3400


# --- R2Gen's split ----------------------------------------------------------


def test_r2gens_split(studies):
    assert studies["split_r2gen"].value_counts().to_dict() == {
        "train": 2069,
        "none": 1000,
        "test": 590,
        "val": 296,
    }


def test_r2gens_studies_have_findings_and_two_images(studies):
    usable = studies["findings"].ne("") & studies["n_images"].ge(2)
    assert usable.sum() == 2955
    assert (studies["split_r2gen"].ne("none") == usable).all()


def test_277_test_reports_stand_word_for_word_in_training(r2gen):
    same = r2gen["findings"].map(reports.normalise)
    train = set(same[r2gen["split"] == "train"])
    assert same[r2gen["split"] == "test"].isin(train).sum() == 277


def test_the_first_170_test_studies_are_unlike_the_other_420(r2gen):
    same = r2gen["findings"].map(reports.normalise)
    test = r2gen["split"] == "test"
    verbatim = same[test].isin(set(same[r2gen["split"] == "train"]))
    normal = r2gen["status"][test].eq("normal")
    shares = [
        round(float(100 * part.mean()))
        for part in (
            normal[:170], verbatim[:170], normal[170:], verbatim[170:],
        )
    ]
    assert shares == [88, 96, 37, 27]


# --- the random split -------------------------------------------------------


def test_the_random_split_is_70_10_20_of_the_usable_studies(studies):
    counts = studies["split_random"].value_counts()
    usable = studies["findings"].ne("") & studies["n_images"].gt(0)
    assert counts["none"] == (~usable).sum()
    assert (studies["split_random"].ne("none") == usable).all()
    n = usable.sum()
    assert counts["train"] == round(0.7 * n)
    assert counts["val"] == round(0.1 * n)
    assert counts["train"] + counts["val"] + counts["test"] == n


def test_the_random_split_is_seeded_and_random():
    usable = pd.Series([True, True, False, True] * 50)
    first = reports.random_split(usable, seed=1)
    assert first.equals(reports.random_split(usable, seed=1))
    other = reports.random_split(usable, seed=2)
    assert not first.equals(other)
    assert first.value_counts().to_dict() == other.value_counts().to_dict()
    train = first[first == "train"].index
    assert train.max() > 190  # not the head of the list
    assert (first[~usable] == "none").all()


def test_the_random_split_is_the_same_on_every_machine(studies):
    """Its first studies, written down: numpy's generator is stable."""
    chosen = studies[studies["split_random"] == "test"]["study_id"]
    assert list(chosen[:5]) == FIRST_TEST


# --- files of other sources -------------------------------------------------


def test_a_folder_of_xml(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "10.xml").write_text(xml(10))
    (tmp_path / "9.xml").write_text(xml(9))
    (tmp_path / "readme.txt").write_text("no report")
    found = reports.load_studies("folder", tmp_path)
    assert list(found["study_id"]) == ["CXR9", "CXR10"]
    row = found.iloc[0]
    assert row["findings"] == "The heart is big."
    assert row["comparison"] == "None & none."
    assert row["impression"] == row["indication"] == ""
    assert row["mesh"] == ["Cardiomegaly/mild"]
    assert row["status"] == "abnormal"
    assert row["n_images"] == 2


def archive(path, members):
    with tarfile.open(path, "w:gz") as content:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            content.addfile(info, io.BytesIO(text.encode()))
    return path


def test_an_archive_is_read_in_memory(tmp_path):
    """A path that leads out of it is only a name."""
    inside = tmp_path / "inside"
    inside.mkdir()
    file = archive(
        inside / "a.tgz", {"../../7.xml": xml(7), "/tmp/8.xml": xml(8)}
    )
    found = reports.load_studies("folder", file)
    assert list(found["study_id"]) == ["CXR7", "CXR8"]
    assert {p.name for p in tmp_path.rglob("*")} == {"inside", "a.tgz"}


CORRUPT = {
    "cut": xml()[:300],
    "html": "<html><body>404</body></html>",
    "empty": "",
    "no id": "<eCitation><uId/></eCitation>",
    "no uId": "<eCitation/>",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_report_is_named(tmp_path, kind):
    (tmp_path / "1.xml").write_text(xml(1))
    (tmp_path / "broken.xml").write_text(CORRUPT[kind])
    with pytest.raises(CourseError) as caught:
        reports.load_studies("folder", tmp_path)
    assert "broken.xml could not be read" in caught.value.what
    assert "remove this file" in caught.value.do


def test_an_id_that_is_no_number_is_named(tmp_path):
    (tmp_path / "odd.xml").write_text(xml().replace("CXR7", "CXRseven"))
    with pytest.raises(CourseError, match=r"odd\.xml"):
        reports.load_studies("folder", tmp_path)


BOMBS = {
    "entities": (
        '<!DOCTYPE a [<!ENTITY a "ha">'
        + "".join(
            f'<!ENTITY {b} "{f"&{a};" * 10}">'
            for a, b in zip("abcdefgh", "bcdefghi")
        )
        + "]>"
    ),
    "file": '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">]>',
}


@pytest.mark.parametrize("kind", BOMBS)
def test_entities_are_refused(tmp_path, kind):
    """A few bytes that become gigabytes, or another file's content."""
    head, body = xml(comparison="&i;").split("\n", 1)
    (tmp_path / "bomb.xml").write_text(f"{head}\n{BOMBS[kind]}\n{body}")
    with pytest.raises(CourseError) as caught:
        reports.load_studies("folder", tmp_path)
    assert "Entit" in caught.value.why


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_broken_archive(tmp_path, content):
    file = archive(
        tmp_path / "a.tgz", {f"{i}.xml": xml(i) for i in range(200)}
    )
    if content is None:
        content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    with pytest.raises(CourseError, match=r"a\.tgz could not be read"):
        reports.load_studies("folder", file)


def test_damaged_bytes_in_an_archive_are_an_error_of_the_course(tmp_path):
    """One wrong byte, anywhere: read, or refused with a reason."""
    file = archive(
        tmp_path / "a.tgz", {f"{i}.xml": xml(i) for i in range(50)}
    )
    whole, refused = file.read_bytes(), 0
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


def test_nothing_to_read(tmp_path):
    with pytest.raises(CourseError, match="No reports"):
        reports.load_studies("folder", tmp_path)
    for source, path in (("folder", tmp_path / "no"), ("web", None)):
        with pytest.raises(ValueError, match="is not known"):
            reports.load_studies(source, path)


def test_without_torchxrayvision_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CourseError) as caught:
        reports.bundled_archive()
    assert "make setup" in caught.value.do


def test_what_the_caller_changes_is_not_kept(studies):
    first = reports.load_studies()
    first.loc[0, "findings"] = "Changed."
    first.loc[0, "mesh"].append("Changed")
    again = reports.load_studies()
    assert again.loc[0, "findings"] == studies.loc[0, "findings"]
    assert "Changed" not in again.loc[0, "mesh"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The Heart, is big!", "the heart is big"),
        ("  a\n\tb ", "a b"),
        ("3.5 cm", "3 5 cm"),
        ("", ""),
        ("...", ""),
    ],
)
def test_case_and_punctuation_aside(text, plain):
    assert reports.normalise(text) == plain
