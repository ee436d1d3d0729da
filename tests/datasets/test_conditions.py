"""The order trap: scores are told apart by name, never by place."""

from types import SimpleNamespace

import numpy as np
import pytest

from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.vision import features

#: torchxrayvision's own spelling and order.
SPELLED = [name.replace("Pleural Thickening", "Pleural_Thickening")
           for name in NATIVE_ORDER]


def test_the_orders_are_the_alphabet_and_torchxrayvisions():
    import torchxrayvision as xrv

    assert list(CONDITIONS) == sorted(set(NATIVE_ORDER))
    assert len(CONDITIONS) == 18
    assert xrv.datasets.default_pathologies == SPELLED
    assert list(xrv.models.DenseNet.targets) == SPELLED


@pytest.mark.parametrize("names", [NATIVE_ORDER, CONDITIONS])
def test_values_follow_their_names(names):
    model = SimpleNamespace(pathologies=list(names))
    named = features.by_condition(model, np.arange(36).reshape(2, 18))
    assert list(named) == list(CONDITIONS)
    for place, name in enumerate(names):
        assert named[name].tolist() == [place, 18 + place]
