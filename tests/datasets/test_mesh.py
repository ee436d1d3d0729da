"""mesh: the rules on single headings, and the counts on all 3,955 reports."""

from collections import Counter

import pytest

from llamaxr_utils.datasets import images, mesh
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.datasets.reports import load_image_ids


def test_the_status_of_all_reports(studies):
    """Their positives: `test_figures` compares them with Figure 2's."""
    states = studies["mesh"].map(mesh.status)
    assert Counter(states) == {
        "normal": 1391, "abnormal": 2469, "not indexed": 95}
    labels = studies["mesh"].map(mesh.labels)
    has_any = labels.map(lambda named: any(named.values()))
    assert set(states[has_any]) == {"abnormal"}
    assert mesh.status(["No Indexing", "Cardiomegaly"]) == "abnormal"


def test_every_rule_is_used_and_spelled_right(studies):
    """A rule that no heading reaches is a typing mistake."""
    parts = studies["mesh"].explode().dropna().map(mesh._words)
    terms = {term for term, *_ in parts}
    words = {word for _, *rest in parts for word in rest}
    for rule in mesh.RULES:
        assert rule.terms <= terms
        assert rule.need | rule.bar <= words | {"mediastinum"}
        assert rule.conditions <= set(CONDITIONS)
    assert set(mesh.ZONES) | set(mesh.SEVERITIES) <= words


@pytest.mark.parametrize(("heading", "side", "zone", "severity"), [
    ("Pleural Effusion/left/small", "left", "", "mild"),
    ("Opacity/lung/middle lobe", "right", "middle", ""),
    ("Opacity/lung/middle lobe/bilateral", "bilateral", "middle", ""),
    ("Opacity/lung/left/right/large", "bilateral", "", "severe"),
    ("Opacity/lung/base/lower lobe/left", "left", "base", ""),
    ("Mediastinum/paratracheal/enlarged ", "", "mediastinum", ""),
])
def test_place(heading, side, zone, severity):
    finding = mesh.parse_headings([heading])[0]
    assert finding[2:] == (side, zone, severity)
    assert finding.heading == heading


def test_the_followed_study_has_several_findings_and_two_views(studies):
    studies = studies.assign(split=studies["split_r2gen"])
    assert mesh.followed_study(studies) == mesh.FOLLOWED
    views = images.choose_views(load_image_ids())
    assert views["study_id"].eq(mesh.FOLLOWED).sum() == 2
    rest = studies[studies["study_id"].ne(mesh.FOLLOWED)]
    other = rest[rest["study_id"].eq(mesh.followed_study(rest))].iloc[0]
    assert other["split"] == "test"
    assert sum(mesh.labels(other["mesh"]).values()) >= 3
