"""mesh: the rules on single headings, and the counts on all 3,955 reports."""

from collections import Counter

import pytest

from llamaxr_utils.datasets import mesh
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.datasets.reports import load_studies

#: Studies with the condition, of all 3,955: measured, to notice a change.
POSITIVES = {
    "Atelectasis": 332,
    "Cardiomegaly": 397,
    "Consolidation": 30,
    "Edema": 101,
    "Effusion": 163,
    "Emphysema": 151,
    "Enlarged Cardiomediastinum": 110,
    "Fibrosis": 196,
    "Fracture": 86,
    "Hernia": 50,
    "Infiltration": 65,
    "Lung Lesion": 131,
    "Lung Opacity": 652,
    "Mass": 17,
    "Nodule": 467,
    "Pleural Thickening": 60,
    "Pneumonia": 42,
    "Pneumothorax": 27,
}


@pytest.fixture(scope="module")
def studies():
    return load_studies()


def conditions(heading):
    return [f.condition for f in mesh.parse_headings([heading])]


def test_status_of_all_reports(studies):
    assert Counter(studies["mesh"].map(mesh.status)) == {
        "normal": 1391,
        "abnormal": 2469,
        "not indexed": 95,
    }


def test_positives_of_all_reports(studies):
    counts = Counter(
        name
        for headings in studies["mesh"]
        for name, value in mesh.labels(headings).items()
        if value
    )
    assert counts == POSITIVES


def test_only_abnormal_studies_have_a_condition(studies):
    for headings in studies["mesh"]:
        if any(mesh.labels(headings).values()):
            assert mesh.status(headings) == "abnormal"


def test_places_of_all_reports(studies):
    found = [
        f
        for headings in studies["mesh"]
        for f in mesh.parse_headings(headings)
        if f.condition == "Effusion"
    ]
    assert Counter(f.side for f in found) == {
        "bilateral": 65,
        "left": 50,
        "right": 53,
        "": 10,
    }
    assert Counter(f.severity for f in found)["mild"] == 82


def test_every_rule_is_used_and_spelled_right(studies):
    """A rule that no heading reaches is a typing mistake."""
    headings = {h for row in studies["mesh"] for h in row}
    terms = {" ".join(h.split("/")[0].split()).lower() for h in headings}
    words = {
        " ".join(q.split()).lower() for h in headings for q in h.split("/")[1:]
    }
    for rule in mesh.RULES:
        assert set(rule.terms.split(";")) <= terms
        assert rule.need | rule.bar <= words | {"mediastinum"}
        assert set(rule.conditions) <= set(CONDITIONS)
    assert set(mesh.ZONES) | set(mesh.SEVERITIES) <= words


def test_one_heading():
    assert mesh.parse_headings(["Pleural Effusion/left/small"]) == [
        mesh.Finding(
            "Pleural Effusion/left/small",
            "Pleural Effusion",
            "Effusion",
            "left",
            "",
            "mild",
        )
    ]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Nodule/lung/apex/right", ["Lung Lesion", "Nodule"]),
        ("Mass/lung/base/right/large", ["Lung Lesion", "Mass"]),
        ("Mass/breast/large", [""]),
        ("Calcified Granuloma/lung/lingula", ["Nodule"]),
        ("Granuloma/ribs/right/posterior", [""]),
        ("Calcinosis/aorta", [""]),
        ("Calcinosis/lung/hilum/lymph nodes/left", [""]),
        ("Calcinosis/lung/lingula", ["Nodule"]),
        ("Opacity/lung/base/left", ["Lung Opacity"]),
        ("Opacity/ribs/left", [""]),
        ("Density/lung/right/round", ["Lung Opacity", "Nodule"]),
        ("Cicatrix/lung/apex/bilateral", ["Fibrosis"]),
        ("Cicatrix/pleura/left", ["Pleural Thickening"]),
        ("Thickening/pleura/right", ["Pleural Thickening"]),
        ("Thickening/bronchovascular", [""]),
        (
            "Cardiac Shadow/enlarged/mild",
            ["Cardiomegaly", "Enlarged Cardiomediastinum"],
        ),
        ("Cardiac Shadow/obscured/severe", [""]),
        ("Mediastinum/prominent", ["Enlarged Cardiomediastinum"]),
        ("Aorta/tortuous", [""]),
        ("Hydropneumothorax/right", ["Effusion", "Pneumothorax"]),
        ("Subcutaneous  Emphysema/right", [""]),
        ("Bullous Emphysema", ["Emphysema"]),
        ("Lung/hyperdistention", [""]),
        ("Costophrenic Angle/right/blunted", [""]),
        ("Markings/bronchovascular", [""]),
        ("Markings/lung/interstitial/chronic", ["Lung Opacity"]),
        ("Deformity/ribs/right/multiple/healed", ["Fracture"]),
        ("Deformity/thoracic vertebrae", [""]),
        ("normal", [""]),
    ],
)
def test_decisions(heading, expected):
    assert conditions(heading) == expected


@pytest.mark.parametrize(
    ("heading", "side", "zone"),
    [
        ("Opacity/lung/middle lobe", "right", "middle"),
        ("Opacity/lung/lingula", "left", "middle"),
        ("Opacity/lung/middle lobe/bilateral", "bilateral", "middle"),
        ("Opacity/lung/base/lower lobe/left", "left", "base"),
        ("Opacity/lung/left/retrocardiac", "left", "lower"),
        ("Mediastinum/paratracheal/enlarged ", "", "mediastinum"),
        ("Opacity", "", ""),
    ],
)
def test_place(heading, side, zone):
    finding = mesh.parse_headings([heading])[0]
    assert (finding.side, finding.zone) == (side, zone)


@pytest.mark.parametrize(
    ("headings", "expected"),
    [
        (["normal"], "normal"),
        (["No Indexing"], "not indexed"),
        ([], "not indexed"),
        (["Spine/degenerative"], "abnormal"),
        (["normal", "Cardiomegaly"], "abnormal"),
        (["No Indexing", "Cardiomegaly"], "abnormal"),
    ],
)
def test_status(headings, expected):
    assert mesh.status(headings) == expected


def test_labels_are_in_the_papers_order():
    named = mesh.labels(["Cardiomegaly/borderline", "Pneumothorax/left"])
    assert tuple(named) == CONDITIONS
    assert [name for name, value in named.items() if value] == [
        "Cardiomegaly",
        "Pneumothorax",
    ]


def test_one_string_is_refused():
    with pytest.raises(TypeError, match="list of headings"):
        mesh.labels("Cardiomegaly")
