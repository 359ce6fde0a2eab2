import pytest

from tests.data.drawing import draw_shades
from tests.train.small_run import small_model


@pytest.fixture(scope="session")
def shades(tmp_path_factory):
    """Pictures of six people, dark or bright, and a model that has never seen one."""
    folder = draw_shades(tmp_path_factory.mktemp("shades"), lambda number: {"group": f"p{number // 2}"})
    small_model(folder / "small")
    return folder
