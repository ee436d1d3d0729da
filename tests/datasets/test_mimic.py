"""The snippet of bring_mimic_cxr.md on MIMIC-CXR-JPG's layout."""

import textwrap
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import artifacts
from llamaxr_utils.datasets import images, mesh

REPORT = """                                 FINAL REPORT
 INDICATION:  ___ year old with cough.

 FINDINGS:

 The heart is enlarged.  There is a
 small left pleural effusion.

 IMPRESSION:  Small effusion.
"""


@pytest.fixture
def tables(folders):
    """Four studies in MIMIC-CXR-JPG's layout; all text is our own."""
    folder = folders.parent / "data"
    plan = [  # study, patient, views, report, split, labels
        (50000001, 10000001, ["LL", "AP", "PA"], REPORT, "train",
         {"Cardiomegaly": 1, "Pleural Effusion": 1, "Edema": -1}),
        (50000002, 10000001, ["AP"], REPORT, "train", {"No Finding": 1}),
        (50000003, 10000002, ["LATERAL", ""], " IMPRESSION: Normal.",
         "validate", {}),
        (50000004, 10000002, ["PA"], None, "test", {"Support Devices": 1}),
    ]
    rows = [("gone", 10000003, 50000009, "PA", "train")]  # not on this disk
    for study, patient, views, report, part, _ in plan:
        place = folder / f"files/p{str(patient)[:2]}/p{patient}"
        (place / f"s{study}").mkdir(parents=True)
        for i, view in enumerate(views):
            file = place / f"s{study}" / f"{study}-{i}.jpg"
            Image.new("L", (8, 8), 99).save(file)
            rows.append((file.stem, patient, study, view, part))
        if report:
            (place / f"s{study}.txt").write_text(report)
    names = ["dicom_id", "subject_id", "study_id", "ViewPosition", "split"]
    table = pd.DataFrame(rows, columns=names)
    labels = pd.DataFrame({"subject_id": patient, "study_id": study, **known}
                          for study, patient, *_, known in plan)
    for name, part in (("metadata", table[names[:4]]), ("chexpert", labels),
                       ("split", table.drop(columns="ViewPosition"))):
        part.to_csv(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", index=False)
    page = Path(__file__).parents[2] / "notebooks" / "bring_mimic_cxr.md"
    code = page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(textwrap.dedent(code), {})  # noqa: S102 (our page)
    run = folders / "t4"
    return artifacts.load(run, "studies"), artifacts.load(run, "views")


def test_mimic_becomes_studies_and_views(tables):
    studies, views = tables
    studies = studies.set_index("study_id")
    assert list(studies.index) == ["s50000001", "s50000002", "s50000003"]
    assert studies.iloc[0, :4].to_dict() == {
        "findings": "The heart is enlarged. There is a small left pleural "
        "effusion.", "impression": "Small effusion.",
        "indication": "___ year old with cough.", "comparison": ""}
    assert studies["split"].tolist() == ["train", "train", "none"]
    assert views.set_index(["study_id", "view"])["image_id"].to_dict() == {
        ("s50000001", "frontal"): "50000001-2",  # PA before AP
        ("s50000001", "lateral"): "50000001-0",
        ("s50000002", "frontal"): "50000002-0",
        ("s50000003", "lateral"): "50000003-0"}
    assert len(images.read_views(views, 8)[1]) == 4
    # The labels reach the course as headings; doubtful edema is not there.
    assert list(studies["status"]) == ["abnormal", "normal", "not indexed"]
    labels = studies["mesh"].map(mesh.labels)
    assert [c for c, is_there in labels.iloc[0].items() if is_there] == [
        "Cardiomegaly", "Effusion"]
    assert not any(labels.iloc[1].values())
