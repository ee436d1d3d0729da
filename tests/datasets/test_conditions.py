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


def test_the_orders_are_the_alphabet_and_torchxrayvisions():
    import torchxrayvision as xrv

    assert list(CONDITIONS) == sorted(set(NATIVE_ORDER))
    assert len(CONDITIONS) == 18
    assert xrv.datasets.default_pathologies == SPELLED
    assert list(xrv.models.DenseNet.targets) == SPELLED
    # A mix-up is nearly everywhere wrong, and easy to overlook.
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
    ("n", "names"),
    [
        (17, NATIVE_ORDER[:-1]),
        (18, (*NATIVE_ORDER[:-1], "Covid")),
        (18, (*NATIVE_ORDER[:-1], NATIVE_ORDER[0])),
        (19, (*NATIVE_ORDER, "Hernia")),
        (18, [""] * 18),
        (17, NATIVE_ORDER),
    ],
    ids=["17", "foreign", "twice", "19", "empty", "a value less"],
)
def test_names_that_are_not_the_18_are_refused(n, names):
    with pytest.raises(ValueError, match="not the 18 conditions"):
        conditions.by_name(range(n), names)


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


def wrong_names(scores):
    return [
        name
        for place, name in enumerate(NATIVE_ORDER)
        if abs(scores[name] - (place / 20 + 0.01)) > 1e-5
    ]


def test_output_k_of_a_network_gets_name_k_unless_named_by_place(
    constant_network, monkeypatch
):
    for names in (NATIVE_ORDER, SPELLED):
        constant_network.pathologies = list(names)
        scores = scored(constant_network)
        assert list(scores.index) == list(CONDITIONS)
        assert wrong_names(scores) == []
    # The mistake put back, as the numbers in the paper's Figure 4 were.
    monkeypatch.setattr(
        features, "by_name", lambda values, _: dict(zip(CONDITIONS, values))
    )
    assert len(wrong_names(scored(constant_network))) == 16


def test_a_network_without_names_is_refused(constant_network, monkeypatch):
    names = ["a", *NATIVE_ORDER[1:]]
    monkeypatch.setattr(constant_network, "pathologies", names)
    with pytest.raises(ValueError, match=r"model\.pathologies"):
        scored(constant_network)
