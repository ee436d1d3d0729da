"""The real reports, counted; splits; what is no report."""

import pytest
from conftest import tarred

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import reports

#: Own text in OpenI's form.
XML = """<?xml version="1.0" encoding="utf-8"?>{doctype}
<eCitation><uId id="CXR{number}"/>
<MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">{comparison}</AbstractText>
<AbstractText Label="FINDINGS">The heart is   big. </AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>heart</automatic></MeSH>
<parentImage id="CXR{number}_IM-1"/><parentImage id="CXR{number}_IM-2"/>
</eCitation>"""


def xml(number=7, comparison="None &amp; <b>none</b>.", doctype=""):
    text = XML.format(number=number, comparison=comparison, doctype=doctype)
    return text.encode()


def test_studies_sections_and_images(studies):
    assert len(studies) == 3955
    numbers = studies["study_id"].str[3:].astype(int)
    assert numbers.is_unique and numbers.is_monotonic_increasing
    findings, impression = (studies[section].ne("")
                            for section in ("findings", "impression"))
    assert (findings.sum(), impression.sum()) == (3425, 3921)
    assert (~findings & ~impression).sum() == 28
    assert studies["findings"].str.contains("XXXX").sum() == 1486
    words = studies["findings"][findings].str.split().map(len)
    assert (words.median(), words.quantile(0.95), words.max()) == (29, 59, 169)
    n, ids = studies["n_images"], reports.load_image_ids()
    assert n.sum() == len(ids) == 7470
    assert ids["image_id"].is_unique
    counts = [(n == 0).sum(), (n == 1).sum(), (n == 2).sum(), (n > 2).sum()]
    assert counts == [104, 446, 3208, 197]


def test_r2gens_split(studies):
    listed = studies["split_r2gen"]
    assert listed.value_counts().to_dict() == {
        "train": 2069, "none": 1000, "test": 590, "val": 296}
    usable = studies["findings"].ne("") & studies["n_images"].ge(2)
    assert (listed.ne("none") == usable).all()


def test_copied_reports_and_the_two_parts_of_the_test_list(studies):
    """In R2Gen's own order; shares of normal and of copied, per cent."""
    r2gen = reports.r2gen_split().merge(studies, on="study_id")
    same = r2gen["findings"].map(reports.normalise)
    copied = same.isin(set(same[r2gen["split"] == "train"]))
    r2gen = r2gen.assign(normal=r2gen["status"].eq("normal"), copied=copied)
    test = r2gen.loc[r2gen["split"] == "test", ["normal", "copied"]]
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


def test_reports_of_ones_own_folder_or_archive(tmp_path):
    """Read in memory: a path that leads out of the archive is only a name."""
    archive, deep = tmp_path / "own.tgz", tmp_path / "own" / "deep"
    archive.write_bytes(tarred(
        ("../../10.xml", xml(10)), ("/tmp/9.xml", xml(9)), ("a.txt", b"-")))
    deep.mkdir(parents=True)
    for n in (9, 10):
        (deep / f"{n}.xml").write_bytes(xml(n))
    one, two = (reports.load_studies("folder", place)
                for place in (archive, deep.parent))
    assert {file.name for file in tmp_path.iterdir()} == {"own", "own.tgz"}
    assert list(one["study_id"]) == ["CXR9", "CXR10"] and one.equals(two)
    row = one.iloc[0]
    assert row["findings"] == "The heart is big."
    assert row["comparison"] == "None & none."
    assert row["impression"] == row["indication"] == ""
    assert row["mesh"] == ["Cardiomegaly/mild"]
    assert (row["status"], row["n_images"]) == ("abnormal", 2)


WHOLE = tarred(*((f"{i}.xml", xml(i)) for i in range(50)))
ENTITY = '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(("content", "why"), [
    (tarred(("1.xml", xml(1)), ("2.xml", xml()[:300])), "unclosed"),
    (tarred(("1.xml", xml(1, "&i;", ENTITY))), "EntitiesForbidden"),
    (tarred(), "number"), (b"no archive", "ReadError"),
    (WHOLE[: len(WHOLE) // 2], "EOFError"),
])
def test_a_corrupt_archive_is_refused(tmp_path, content, why):
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(CourseError, match=r"a\.tgz could not be") as caught:
        reports.load_studies("folder", tmp_path / "a.tgz")
    assert why in caught.value.why
