import pytest

from tests.data.drawing import draw_picture, write_manifest
from tests.training.small_run import small_model


@pytest.fixture(scope="session")
def shades(tmp_path_factory):
    """Pictures of six people, dark or bright, and a model that has never seen one."""
    folder = tmp_path_factory.mktemp("shades")
    rows = []
    for number in range(12):
        label, shade = ("Bright_day", 190) if number % 2 else ("dark", 30)
        draw_picture(folder / f"pictures/{number}.png", shade=shade + 3 * number)
        rows.append({"path": f"pictures/{number}.png", "label": label, "group": f"p{number // 2}"})
    write_manifest(folder / "shades.csv", *rows)
    small_model(folder / "small")
    return folder
