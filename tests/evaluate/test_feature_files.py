"""Embeddings of a feature file stand for those of the videos in evaluations, probes and comparisons."""

from dataclasses import replace

import numpy as np
import pytest

from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.embed import embed_clips as room
from clipact.embed.named_videos import read_sources_table
from clipact.embed.options import EmbedOptions
from clipact.embed.write_features import write_features
from clipact.errors import FeatureFileError, UsageError
from clipact.evaluate import EvalOptions, evaluate, manifest_protocol, read_samples
from clipact.evaluate.fit_probes import ProbeConfig, fit_probes
from clipact.models.zoo import load_model

pytest.importorskip("pyarrow")


@pytest.fixture
def samples(tree):
    read = read_samples(manifest_protocol(tree / "table.csv"), tree)
    return replace(read, items=tuple(item for item in read.items if "05" not in item.name))


@pytest.fixture
def model(tiny):
    return load_model(str(tiny), device="cpu")


def write(model, tree, path, **options):
    rows = read_sources_table(tree / "table.csv")
    return list(write_features(path, rows, model, options=EmbedOptions(), **options))


def decoded_nothing(monkeypatch):
    def refuse(source, *_, **__):
        raise AssertionError(f"{source} was decoded")

    monkeypatch.setattr(room, "collect_frames", refuse)


@pytest.mark.parametrize("per_frame", [False, True])
def test_evaluation_reads_the_file_and_decodes_nothing(
    classifier, model, samples, tree, tmp_path, monkeypatch, per_frame
):
    expected = evaluate(classifier, samples)
    found = write(model, tree, tmp_path / "f.parquet", per_frame=per_frame)
    assert [one.name for one in found if one.cause] == ["videos/05.mp4"]
    decoded_nothing(monkeypatch)
    again = evaluate(classifier, samples, options=EvalOptions(features=tmp_path / "f.parquet"))
    assert again.samples == expected.samples
    np.testing.assert_allclose(again.scores, expected.scores, atol=1e-5, rtol=0)
    assert again.run["data"]["files_sha256"] == expected.run["data"]["files_sha256"]
    assert again.run["views"]["decoded_by"] == {"features of f.parquet": 13}


def test_probes_read_the_file(model, samples, tree, tmp_path, monkeypatch):
    (expected,) = fit_probes(model, samples, ProbeConfig(kind="nearest"))
    write(model, tree, tmp_path / "f.parquet")
    decoded_nothing(monkeypatch)
    options = EvalOptions(features=tmp_path / "f.parquet")
    (found,) = fit_probes(model, samples, ProbeConfig(kind="nearest"), options=options)
    np.testing.assert_allclose(found.probe.vectors, expected.probe.vectors, atol=1e-6)


def test_a_video_that_is_another_by_now_is_decoded(classifier, model, samples, tree, tmp_path):
    write(model, tree, tmp_path / "f.parquet")
    other = tmp_path / "00.mp4"
    other.write_bytes((tree / "videos" / "01.mp4").read_bytes())
    changed = replace(samples, items=(replace(samples.items[0], path=other), samples.items[1]))
    found = evaluate(classifier, changed, options=EvalOptions(features=tmp_path / "f.parquet"))
    assert found.run["views"]["decoded_by"] == {"pyav": 1, "features of f.parquet": 1}
    np.testing.assert_allclose(found.scores, evaluate(classifier, changed).scores, atol=1e-5, rtol=0)


def test_files_of_other_clips_or_other_videos_are_refused(classifier, model, samples, tree, tmp_path):
    path = tmp_path / "f.parquet"
    write(model, tree, path)
    more = ZeroShotClassifier(model, classifier.label_set, clips=2)
    for one, options, said in (
        (more, {}, "clips is 1, not 2"),
        (ZeroShotClassifier(model, classifier.label_set, frames=3), {}, "clip frames is 4, not 3"),
    ):
        with pytest.raises(FeatureFileError, match=said):
            evaluate(one, samples, options=EvalOptions(features=path), **options)
    write(model, tree, path, clips=2)
    assert evaluate(more, samples, options=EvalOptions(features=path)).run["views"]["decoded_by"] == {
        "features of f.parquet": 13
    }
    with pytest.raises(UsageError, match="the mean over the 2 clips"):
        evaluate(more, samples, averaging="logits", options=EvalOptions(features=path))
    strangers = replace(samples, items=tuple(replace(item, name=f"x/{item.name}") for item in samples.items))
    with pytest.raises(FeatureFileError, match=r"not one of 13 samples .* such as videos/00.mp4"):
        evaluate(more, strangers, options=EvalOptions(features=path))
