from pathlib import Path

import pytest
import torch

from clipact.cache import Cache
from clipact.data.sources import SourceConfig, read_sources
from clipact.errors import ConfigError
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import unit
from clipact.train.encoded_batches import DataConfig, EncodedBatches
from clipact.train.validation import ValidationConfig, ValidationSet, metric_names, validate


def _feed(small, drawn, tmp_path, source, keeps=()):
    encoder = load_checkpoint(small)
    data = DataConfig(sources=(source,), workers=0)
    return EncodedBatches(
        encoder,
        read_sources([source], drawn),
        data,
        chunk=3,
        seed=0,
        keeps=keeps,
        unreadable_files={},
        cache=Cache(tmp_path),
        watch=lambda items, total, what: items,
        judging=True,
    )


@pytest.mark.parametrize("keeps", [(), ("visual", "text")])
def test_retrieval_is_what_sorting_by_hand_says(small, drawn, tmp_path, keeps):
    feed = _feed(small, drawn, tmp_path, SourceConfig(manifest=Path("pictures.csv"), split="train"), keeps)
    figures = validate(feed)
    entries, encoder = feed.entries, feed.encoder
    ids, clips = feed.embed_clips()
    assert ids == [entry.visual_id for entry in entries]
    said = [(sentence, i) for i, entry in enumerate(entries) for sentence in entry.sentences]
    with torch.no_grad():
        scores = encoder.encode_text([sentence for sentence, _ in said]) @ clips.T
    hits = [own in row.topk(5).indices for row, (_, own) in zip(scores, said, strict=True)]
    assert figures["text_to_visual_recall_5"] == pytest.approx(sum(hits) / len(hits))
    owners = torch.tensor([own for _, own in said])
    hits = [bool((owners[column.topk(5).indices] == i).any()) for i, column in enumerate(scores.T)]
    assert figures["visual_to_text_recall_5"] == pytest.approx(sum(hits) / len(hits))
    assert tuple(figures) == metric_names(entries)
    assert next(iter(figures)) == "text_to_visual_recall_1"


def test_labels_are_recognised_by_the_mean_of_their_prompts_and_clips(small, drawn, tmp_path):
    feed = _feed(small, drawn, tmp_path, SourceConfig(manifest=Path("clips.csv"), frames=4, clips=2, sentences=2))
    figures = validate(feed)
    first = {entry.label_id: entry.sentences for entry in feed.entries}
    with torch.no_grad():
        labels = torch.cat([unit(feed.encoder.encode_text(said).sum(0, keepdim=True)) for said in first.values()])
    _, clips = feed.embed_clips()
    best = (clips @ labels.T).argmax(1).tolist()
    truth = [list(first).index(entry.label_id) for entry in feed.entries]
    assert figures["top_1"] == pytest.approx(sum(a == b for a, b in zip(best, truth, strict=True)) / len(truth))
    assert figures["top_5"] == 1.0
    assert tuple(figures) == metric_names(feed.entries)


def test_the_best_step_is_marked_by_the_figure_that_was_asked_for():
    figures = {"dev.text_to_visual_recall_1": 0.2, "dev.text_to_visual_recall_5": 0.4}
    assert ValidationConfig().pick(figures) == 0.2
    assert ValidationConfig(monitor="dev.text_to_visual_recall_5").pick(figures) == 0.4
    assert ValidationConfig().pick({}) is None
    with pytest.raises(ConfigError, match="did you mean 'dev.text_to_visual_recall_1'"):
        ValidationConfig(monitor="dev.text_to_visual_recal_1").check_monitor(tuple(figures))
    with pytest.raises(ConfigError, match="each needs its own"):
        ValidationConfig(
            sets=(ValidationSet(name="a", manifest=Path("x")), ValidationSet(name="a", manifest=Path("y")))
        )
