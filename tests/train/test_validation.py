import csv
from pathlib import Path

import pytest
import torch

from clipact.cache import Cache
from clipact.data.sources import SourceConfig, label_id, read_sources, read_validation_examples
from clipact.errors import ConfigError, DataError
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import unit
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.recipe import DataConfig, ValidationConfig, ValidationSet
from clipact.train.validation import metric_names, validate
from tests.data.drawing import draw_data, write_manifest


def _encoded(small, drawn, tmp_path, source, cached_sides=(), **tables):
    encoder = load_checkpoint(small)
    data = DataConfig(sources=(source,), workers=0, **tables)
    return EncodedBatches(
        encoder,
        read_sources([source], drawn),
        data,
        chunk=3,
        seed=0,
        cached_sides=cached_sides,
        unreadable_files={},
        cache=Cache(tmp_path),
        unaugmented=True,
    )


@pytest.mark.parametrize("cached_sides", [(), ("visual", "text")])
def test_retrieval_is_what_sorting_by_hand_says(small, drawn, tmp_path, cached_sides):
    encoded = _encoded(small, drawn, tmp_path, SourceConfig(manifest=Path("pictures.csv"), split="train"), cached_sides)
    figures = validate(encoded, {})
    examples, encoder = encoded.examples, encoded.encoder
    ids, clips = encoded.embed_clips()
    assert ids == [example.visual_id for example in examples]
    said = [(sentence, i) for i, example in enumerate(examples) for sentence in example.sentences]
    with torch.no_grad():
        scores = encoder.encode_text([sentence for sentence, _ in said]) @ clips.T
    hits = [own in row.topk(5).indices for row, (_, own) in zip(scores, said, strict=True)]
    assert figures["text_to_visual_recall_5"] == pytest.approx(sum(hits) / len(hits))
    owners = torch.tensor([own for _, own in said])
    hits = [bool((owners[column.topk(5).indices] == i).any()) for i, column in enumerate(scores.T)]
    assert figures["visual_to_text_recall_5"] == pytest.approx(sum(hits) / len(hits))
    assert tuple(figures) == metric_names(0)
    assert next(iter(figures)) == "text_to_visual_recall_1"


def test_labels_are_recognised_by_the_mean_of_their_prompts_and_clips(small, drawn, tmp_path):
    encoded = _encoded(small, drawn, tmp_path, SourceConfig(manifest=Path("clips.csv"), frames=4, clips=2, sentences=2))
    figures = validate(encoded, {example.label_id: example.sentences for example in encoded.examples})
    first = {example.label_id: example.sentences for example in encoded.examples}
    with torch.no_grad():
        labels = torch.cat([unit(encoded.encoder.encode_text(said).sum(0, keepdim=True)) for said in first.values()])
    _, clips = encoded.embed_clips()
    best = (clips @ labels.T).argmax(1).tolist()
    truth = [list(first).index(example.label_id) for example in encoded.examples]
    assert figures["top_1"] == pytest.approx(sum(a == b for a, b in zip(best, truth, strict=True)) / len(truth))
    assert tuple(figures) == metric_names(len(first)) == ("top_1",)


def test_top_5_is_of_more_than_five_labels():
    assert [metric_names(count) for count in (1, 5, 6)] == [("top_1",), ("top_1",), ("top_1", "top_5")]


def test_labels_are_chosen_from_the_whole_table_whatever_the_split_holds(small, drawn, tmp_path):
    """A split with one label: among that alone every answer would be right."""
    rows = list(csv.DictReader((drawn / "clips.csv").read_text().splitlines()))
    own, labels = rows[0]["label"], {row["label"] for row in rows}
    for row in rows:
        row["split"] = "dev" if row["label"] == own else "train"
    write_manifest(drawn / "one_label.csv", *rows)
    source = SourceConfig(manifest=Path("one_label.csv"), split="dev", frames=4)
    held = read_validation_examples(source, drawn)
    assert {example.label for example in held.examples} == {own}
    assert set(held.label_sentences) == {label_id(label) for label in labels}
    assert set(held.absent_labels) == labels - {own}
    encoded = _encoded(small, drawn, tmp_path, source)
    with torch.no_grad():
        words = [unit(encoded.encoder.encode_text(said).sum(0)[None]) for said in held.label_sentences.values()]
    _, clips = encoded.embed_clips()
    best = (clips @ torch.cat(words).T).argmax(1).tolist()
    right = [list(held.label_sentences)[number] == label_id(own) for number in best]
    assert validate(encoded, held.label_sentences)["top_1"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize("cached_sides", [(), ("visual", "text")])
def test_a_set_of_which_nothing_can_be_read_is_an_error(small, tmp_path, cached_sides):
    folder = draw_data(tmp_path / "broken")
    for path in (folder / "clips").iterdir():
        path.write_bytes(b"no")
    encoded = _encoded(small, folder, tmp_path / "store", SourceConfig(manifest=Path("clips.csv")), cached_sides)
    with pytest.raises(DataError, match="1 files could not be read, more than max_unreadable = 0"):
        validate(encoded, {})
    allowed = _encoded(
        small, folder, tmp_path / "store", SourceConfig(manifest=Path("clips.csv")), cached_sides, max_unreadable=3
    )
    with pytest.raises(DataError, match="none of the files to evaluate on could be read"):
        validate(allowed, {})
    assert len(allowed.unreadable_files) == 3


def test_the_best_step_is_marked_by_the_figure_that_was_asked_for():
    figures = {"dev.text_to_visual_recall_1": 0.2, "dev.text_to_visual_recall_5": 0.4}
    assert ValidationConfig().monitored(figures) == 0.2
    assert ValidationConfig(monitor="dev.text_to_visual_recall_5").monitored(figures) == 0.4
    assert ValidationConfig().monitored({}) is None
    with pytest.raises(ConfigError, match="did you mean 'dev.text_to_visual_recall_1'"):
        ValidationConfig(monitor="dev.text_to_visual_recal_1").check_monitor(tuple(figures))
    with pytest.raises(ConfigError, match="each needs its own"):
        ValidationConfig(
            sets=(ValidationSet(name="a", manifest=Path("x")), ValidationSet(name="a", manifest=Path("y")))
        )
