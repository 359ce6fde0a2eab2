import pytest

from tests.data.drawing import draw_data
from tests.train.small_run import small_model


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The folder of a small drawn data set; read it, do not write to it."""
    return draw_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The folder of a model of one convolution; read it, do not write to it."""
    return small_model(tmp_path_factory.mktemp("model") / "small")
