import pytest

from tests.data.drawing import draw_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folder of a small drawn data set; read it, do not write to it."""
    return draw_data(tmp_path_factory.mktemp("data"))
