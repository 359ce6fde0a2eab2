"""UCF101's and HMDB51's protocols on a drawn tree: the archives' folders, the published names, a few of each split."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from clipact.data.fingerprint import file_digest
from clipact.data.protocol import load_protocol
from clipact.evaluate import read_samples
from clipact.evaluate.metric_values import metric_values
from clipact.evaluate.results import identical, load_result
from clipact.evaluate.run_protocol import run_protocol
from clipact.models.zoo import load_model as load_model
from tests.evaluate.conftest import draw


@pytest.fixture(params=["ucf101", "hmdb51"])
def protocol(request, tmp_path):
    """The shipped protocol, its lists cut to a few lines of each, and those files drawn below tmp_path/data."""
    protocol = load_protocol(request.param)
    drawn, parts = {}, []
    for number, part in enumerate(protocol.data.parts):
        with (protocol.folder / part.list).open(newline="") as file:
            rows = list(csv.DictReader(file))[3 + number :: len(protocol.data.parts) * 150]
        rows += drawn.get("first", [])[:1] if number == 2 else []  # one sample in two splits
        drawn.setdefault("first", rows)
        for row in rows:
            path = tmp_path / "data" / row["path"]
            if not path.exists():
                colour = np.random.default_rng(len(row["path"]) + number).integers(0, 255, 3)
                draw(path, tuple(int(c) for c in colour), frames=6)
        name = f"cut{number}.csv"
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label"])
            writer.writeheader()
            writer.writerows(rows)
        parts.append(replace(part, list=name, sha256=file_digest(tmp_path / name), count=len(rows)))
    return replace(protocol, data=replace(protocol.data, parts=tuple(parts), count=None), folder=tmp_path)


def test_the_figure_is_the_mean_over_three_splits(protocol, tiny, tmp_path):
    samples = read_samples(protocol, tmp_path / "data")
    result, folder = run_protocol(protocol, samples, load_model(str(tiny), device="cpu"), tmp_path / "out")
    assert identical(load_result(folder), result)
    assert list(result.parts) == ["split 1", "split 2", "split 3"]
    assert sum(map(len, result.parts.values())) == len(result.samples) + 1
    assert len(result.labels) == {"ucf101": 101, "hmdb51": 51}[protocol.name]
    assert all(result.labels[i] == name.split("/")[0] for i, name in zip(result.truth, result.samples, strict=True))
    assert result.groups is not None
    assert all(group in name for group, name in zip(result.groups, result.samples, strict=True))
    if protocol.name == "hmdb51":
        assert not any(f"_{result.labels[i]}" in group for i, group in zip(result.truth, result.groups, strict=True))
    assert result.run["views"]["views"] == 3
    assert result.run["prompts"]["name"] == "clip-kinetics700"
    right = result.scores.argmax(1) == result.truth
    (first, *_) = metric_values(result, draws=20)
    assert first.name == "top-1"
    assert first.spread is not None
    assert first.value == pytest.approx(np.mean([right[rows].mean() for rows in result.parts.values()]))
