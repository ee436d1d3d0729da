"""The order trap: scores are told apart by name, never by place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.datasets import conditions
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.vision import backbones, features

#: torchxrayvision's own spelling and order.
SPELLED = [name.replace("Pleural Thickening", "Pleural_Thickening")
           for name in NATIVE_ORDER]


@pytest.fixture(scope="module")
def constant_network():
    """A network whose output k is k / 20, whatever it sees."""
    import torch

    model = backbones.build("densenet-small@random")
    wanted = torch.arange(18) / 20 + 0.01
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.logit(wanted))
    return model


def test_the_papers_order_is_alphabetical():
    assert list(CONDITIONS) == sorted(CONDITIONS)
    assert len(set(CONDITIONS)) == 18


def test_the_native_order_is_torchxrayvisions():
    import torchxrayvision as xrv

    native = [conditions.plain_name(n) for n in xrv.models.DenseNet.targets]
    assert native == list(NATIVE_ORDER)
    assert xrv.datasets.default_pathologies == SPELLED
    assert sorted(native) == list(CONDITIONS)


def test_two_conditions_keep_their_place():
    """So a mix-up is nearly everywhere wrong, and easy to overlook."""
    same = [a for a, b in zip(CONDITIONS, NATIVE_ORDER) if a == b]
    assert same == ["Atelectasis", "Emphysema"]


@pytest.mark.parametrize("names", [NATIVE_ORDER, SPELLED, CONDITIONS])
def test_values_follow_their_names(names):
    named = conditions.by_name(range(18), names)
    assert list(named) == list(CONDITIONS)
    for place, name in enumerate(names):
        assert named[conditions.plain_name(name)] == place
        assert type(named[conditions.plain_name(name)]) is float


@pytest.mark.parametrize(
    "names",
    [
        NATIVE_ORDER[:-1],
        (*NATIVE_ORDER[:-1], "Covid"),
        (*NATIVE_ORDER[:-1], NATIVE_ORDER[0]),
        (*NATIVE_ORDER, "Hernia"),
        [""] * 18,
    ],
    ids=["17", "foreign", "twice", "19", "empty"],
)
def test_names_that_are_not_the_18_are_refused(names):
    with pytest.raises(ValueError, match="not the 18 conditions"):
        conditions.by_name(range(len(names)), names)


def test_as_many_values_as_names():
    with pytest.raises(ValueError):
        conditions.by_name(range(17), NATIVE_ORDER)


def test_a_vector_has_the_order_asked_for():
    scores = {name: place for place, name in enumerate(NATIVE_ORDER)}
    assert list(conditions.as_vector(scores, NATIVE_ORDER)) == list(range(18))
    papers = conditions.as_vector(scores)
    assert papers[CONDITIONS.index("Pneumothorax")] == 3
    assert papers.dtype == np.float64


# --- through a network ------------------------------------------------------


def scored(model) -> pd.Series:
    grey = np.zeros((1, model.resolution, model.resolution), np.uint8)
    return features._named(model, backbones.predict(model, grey)).iloc[0]


@pytest.mark.parametrize("names", [NATIVE_ORDER, SPELLED])
def test_output_k_of_a_network_gets_name_k(constant_network, names):
    constant_network.pathologies = list(names)
    found = scored(constant_network)
    assert list(found.index) == list(CONDITIONS)
    for place, name in enumerate(NATIVE_ORDER):
        assert found[name] == pytest.approx(place / 20 + 0.01, abs=1e-5)


def test_the_mistake_put_back_is_seen(constant_network, monkeypatch):
    """Naming by place, as the numbers in the paper's Figure 4 were."""
    monkeypatch.setattr(
        features, "by_name", lambda values, _: dict(zip(CONDITIONS, values))
    )
    constant_network.pathologies = list(NATIVE_ORDER)
    found = scored(constant_network)
    wrong = [
        name
        for place, name in enumerate(NATIVE_ORDER)
        if abs(found[name] - (place / 20 + 0.01)) > 1e-3
    ]
    assert len(wrong) == 16
    assert "Pleural Thickening" in wrong


def test_a_network_without_names_is_refused(constant_network, monkeypatch):
    names = ["a", *NATIVE_ORDER[1:]]
    monkeypatch.setattr(constant_network, "pathologies", names)
    with pytest.raises(ValueError, match=r"model\.pathologies"):
        scored(constant_network)
