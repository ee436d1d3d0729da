"""What the tests of image networks share."""

import pytest


@pytest.fixture
def data(folders):
    """An empty data folder."""
    place = folders.parent / "data"
    place.mkdir()
    return place
