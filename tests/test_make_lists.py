"""The script that makes the lists beside the protocols: near copies of a picture never stand on both sides."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clipact.data.manifest import read_manifest
from tests.data.drawing import blocks


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parent.parent / "eval/make_lists.py"
    found = importlib.util.spec_from_file_location("make_lists", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_copies_of_copies_are_one_cluster(script):
    rows = np.zeros((5, 8), np.uint8)
    rows[1, 0], rows[2, :2], rows[3] = 0b111111, (0b111111, 0b111111), 255  # 6, 12 and 64 bits from the first
    assert script.clusters(rows, 6).tolist() == [0, 0, 0, 3, 0]
    assert script.clusters(rows, 5).tolist() == [0, 1, 2, 3, 0]


def test_near_copies_stay_once_and_those_under_two_labels_go(script, tmp_path):
    folder = tmp_path / "sports22"
    folder.mkdir()
    lines = ["path,label"]
    for number in range(8):
        blocks(number).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'golf' if number % 2 else 'chess'}")
    blocks(0, (45, 40)).save(folder / "x.jpg", quality=60)  # of 0.png, and its label
    blocks(1, (180, 160)).save(folder / "y.jpg", quality=60)  # of 1.png, and another label
    (folder / "labels.csv").write_text("\n".join([*lines, "x.jpg,chess", "y.jpg,chess"]) + "\n")
    script.sports22(tmp_path, tmp_path)
    kept = {sample.path: sample.split for sample in read_manifest(tmp_path / "sports22.csv").samples}
    assert sorted(kept) == ["0.png", "2.png", "3.png", "4.png", "5.png", "6.png", "7.png"]
    assert set(kept.values()) == {"train", "dev", "test"}
