"""The order trap: scores are told apart by name, never by place."""

import pytest

from llamaxr_utils.datasets import conditions
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER

#: torchxrayvision's own spelling and order.
SPELLED = [name.replace("Pleural Thickening", "Pleural_Thickening")
           for name in NATIVE_ORDER]


def test_the_orders_are_the_alphabet_and_torchxrayvisions():
    import torchxrayvision as xrv

    assert list(CONDITIONS) == sorted(set(NATIVE_ORDER))
    assert len(CONDITIONS) == 18
    assert xrv.datasets.default_pathologies == SPELLED
    assert list(xrv.models.DenseNet.targets) == SPELLED


@pytest.mark.parametrize("names", [NATIVE_ORDER, SPELLED, CONDITIONS])
def test_values_follow_their_names(names):
    named = conditions.by_name(range(18), names)
    assert list(named) == list(CONDITIONS)
    for place, name in enumerate(names):
        assert named[conditions.plain_name(name)] == place
        assert type(named[conditions.plain_name(name)]) is float


@pytest.mark.parametrize(("n", "names"), [
    (17, NATIVE_ORDER[:-1]),
    (18, (*NATIVE_ORDER[:-1], "Covid")),
    (18, (*NATIVE_ORDER[:-1], NATIVE_ORDER[0])),
    (19, (*NATIVE_ORDER, "Hernia")),
    (18, [""] * 18),
    (17, NATIVE_ORDER),
])
def test_names_that_are_not_the_18_are_refused(n, names):
    with pytest.raises(ValueError, match="not the 18 conditions"):
        conditions.by_name(range(n), names)
