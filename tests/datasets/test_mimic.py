"""MIMIC-CXR-JPG's folders become the tables of notebook 01."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import artifacts
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images, mesh, mimic

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
def mimic_copy(folders, monkeypatch):
    """Four studies in MIMIC-CXR-JPG's layout; all text is our own."""
    folder = folders.parent / "data" / "mimic"
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
    return folder


def test_mimic_becomes_studies_and_views(mimic_copy):
    studies, views = mimic.load_mimic(mimic_copy)
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


def test_mimic_labels_reach_the_course_as_headings(mimic_copy):
    studies, _ = mimic.load_mimic(mimic_copy)
    assert studies["status"].tolist() == ["abnormal", "normal",
                                          "not indexed"]
    found = mesh.labels(studies["mesh"][0])
    assert [c for c, is_there in found.items() if is_there] == [
        "Cardiomegaly", "Effusion"]  # doubtful edema is not there
    assert not any(mesh.labels(studies["mesh"][1]).values())
    own = {"Pleural Effusion": "Effusion"}
    for label, heading in mimic.HEADINGS.items():
        labels = mesh.labels([heading])
        assert [c for c in labels if labels[c]] == [own.get(label, label)]


def test_mimic_without_labels_is_not_indexed(mimic_copy):
    (mimic_copy / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    studies, _ = mimic.load_mimic(mimic_copy)
    assert set(studies["status"]) == {"not indexed"}
    assert not any(mesh.labels(studies["mesh"][0]).values())


def test_mimic_tables_are_the_inputs_of_notebook_02(mimic_copy, folders):
    studies, views = mimic.load_mimic(mimic_copy)
    folder = mimic.save_mimic_run(studies, views, "smoke")
    assert folder == folders / "smoke-real"
    assert len(artifacts.load(folder, "views")) == 4
    assert len(artifacts.load(folder, "studies")) == 3
    with pytest.raises(CourseError, match="There is a run"):
        mimic.save_mimic_run(studies, views, "smoke")


def test_mimic_says_what_is_missing(mimic_copy, tmp_path):
    with pytest.raises(CourseError, match="has its report under"):
        mimic.load_mimic(mimic_copy, reports=tmp_path)
    (mimic_copy / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    with pytest.raises(CourseError, match="metadata.csv.gz was not found"):
        mimic.load_mimic(mimic_copy)
