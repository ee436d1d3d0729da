"""The snippet of bring_mimic_cxr.md on MIMIC-CXR-JPG's layout."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import artifacts
from llamaxr_utils.datasets import images, mesh

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with cough.

 COMPARISON:  None.

 FINDINGS:

 The heart is enlarged.  There is a
 small left pleural effusion.

 IMPRESSION:

 Small effusion.
"""


@pytest.fixture
def tables(folders):
    """Four studies in MIMIC-CXR-JPG's layout; all text is our own."""
    folder = folders.parent / "data"
    meta, split, labels = [], [], []
    plan = [  # study, patient, views, report, split, labels
        (50000001, 10000001, ["LL", "AP", "PA"], REPORT, "train",
         {"Cardiomegaly": 1, "Pleural Effusion": 1, "Edema": -1}),
        (50000002, 10000001, ["AP"], REPORT, "train", {"No Finding": 1}),
        (50000003, 10000002, ["LATERAL", ""], " IMPRESSION: Normal.",
         "validate", {}),
        (50000004, 10000002, ["PA"], None, "test", {"Support Devices": 1}),
    ]
    for study, patient, views, report, part, known in plan:
        place = folder / f"files/p{str(patient)[:2]}/p{patient}"
        (place / f"s{study}").mkdir(parents=True)
        for i, view in enumerate(views):
            name = f"{study}-{i}"
            Image.fromarray(np.full((8, 8), 99, np.uint8)).save(
                place / f"s{study}" / f"{name}.jpg")
            meta.append((name, patient, study, view))
            split.append((name, study, patient, part))
        if report:
            (place / f"s{study}.txt").write_text(report)
        labels.append({"subject_id": patient, "study_id": study, **known})
    meta.append(("gone", 10000003, 50000009, "PA"))  # not on this disk
    names = ["dicom_id", "subject_id", "study_id", "ViewPosition"]
    for table, name in (
        (pd.DataFrame(meta, columns=names), "metadata"),
        (pd.DataFrame(split, columns=["dicom_id", "study_id", "subject_id",
                                      "split"]), "split"),
        (pd.DataFrame(labels), "chexpert"),
    ):
        table.to_csv(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", index=False)
    page = Path(__file__).parents[2] / "notebooks" / "bring_mimic_cxr.md"
    code = page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    exec(textwrap.dedent(code), {})  # noqa: S102 (our page)
    run = folders / "t4"
    return artifacts.load(run, "studies"), artifacts.load(run, "views")


def test_mimic_becomes_studies_and_views(tables):
    studies, views = tables
    assert studies["study_id"].tolist() == ["s50000001", "s50000002",
                                            "s50000003"]
    first = studies.iloc[0]
    assert first["findings"] == (
        "The heart is enlarged. There is a small left pleural effusion.")
    assert first["impression"] == "Small effusion."
    assert (first["indication"], first["comparison"]) == (
        "___ year old with cough.", "None.")
    assert studies["split"].tolist() == ["train", "train", "none"]
    seen = views.set_index(["study_id", "view"])["image_id"].to_dict()
    assert seen == {
        ("s50000001", "frontal"): "50000001-2",  # PA before AP
        ("s50000001", "lateral"): "50000001-0",
        ("s50000002", "frontal"): "50000002-0",
        ("s50000003", "lateral"): "50000003-0",
    }
    for path in views["path"]:
        assert images.read_grey(images.locate(path), 8).shape == (8, 8)


def test_mimic_labels_reach_the_course_as_headings(tables):
    studies, _ = tables
    assert studies["status"].tolist() == ["abnormal", "normal",
                                          "not indexed"]
    labels = mesh.labels(studies["mesh"][0])
    assert [c for c, is_there in labels.items() if is_there] == [
        "Cardiomegaly", "Effusion"]  # doubtful edema is not there
    assert not any(mesh.labels(studies["mesh"][1]).values())
