import shutil

import pytest
import torch

from clipact.cache import Cache
from clipact.data.sources import read_sources
from clipact.models.checkpoint import load_checkpoint
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.freezing import Freezing
from tests.data.drawing import draw_data, draw_picture, write_manifest
from tests.train.small_run import small_recipe


@pytest.fixture
def encoded(small, drawn, tmp_path):
    """Batches of frozen backbones: `encoded(cached_sides, data=..., **data tables)`."""

    def make(*cached_sides, folder=drawn, encoder=None, sentences=1, precision="fp32", **tables):
        tables = {"augment": None} | tables
        heads = {"visual": {"trainable": "head"}, "text": {"trainable": "head"}}
        recipe = small_recipe(small, sentences=sentences, data=tables, **heads)
        encoder = encoder or load_checkpoint(small)
        Freezing(visual=recipe.visual, text=recipe.text).apply(encoder, step=0)
        examples = read_sources(recipe.data.sources, folder)
        return EncodedBatches(
            encoder,
            examples,
            recipe.data,
            chunk=8,
            seed=0,
            cached_sides=cached_sides,
            unreadable_files={},
            cache=Cache(tmp_path / "store"),
            precision=precision,
        )

    return make


@torch.no_grad()
def _embedded(encoded, batch):
    visual, text = encoded.encoders
    clips = torch.cat([visual.encode(piece) for piece in batch.visual])
    return clips.repeat_interleave(torch.tensor(batch.repeats), dim=0), text.encode(batch.sentences)


@pytest.mark.parametrize("sentences", [1, 2])
def test_kept_features_give_the_batches_and_the_embeddings_of_frames_and_sentences(encoded, sentences):
    kept, plain = encoded("visual", "text", sentences=sentences), encoded(sentences=sentences)
    kept.encoder.eval()
    plain.encoder.eval()
    batches = zip(kept.batches(0, 4, batch=6), plain.batches(0, 4, batch=6), strict=True)
    for ours, theirs in batches:
        # Of a batch, pieces of one shape come together; which shape is first may differ.
        order = [sorted(range(len(b)), key=lambda i: (b.visual_ids[i].item(), b.sentences[i])) for b in (ours, theirs)]
        assert [ours.sentences[i] for i in order[0]] == [theirs.sentences[i] for i in order[1]]
        for name in ("visual_ids", "text_ids", "label_ids"):
            assert torch.equal(getattr(ours, name)[order[0]].unique(), getattr(theirs, name)[order[1]].unique())
        for a, b in zip(_embedded(kept, ours), _embedded(plain, theirs), strict=True):
            # A file's clips share id and sentence, in the order of the file on both sides.
            torch.testing.assert_close(a[order[0]], b[order[1]])


def test_kept_features_give_varied_sentences_too(encoded, drawn, tmp_path):
    rows = [{"path": f"pictures/{i}.png", "caption": f"A boy in a red hat is number {i} ."} for i in range(6)]
    rows += [{"path": f"pictures/{i}.png", "caption": f"A boy holds {i} and runs to a car ."} for i in range(6)]
    write_manifest(tmp_path / "said.csv", *rows)
    caption_augmentation = {"tense": 0.7, "person": 0.5, "subject": 0.2, "colours": 0.5}
    sources = [
        {"manifest": str(tmp_path / "said.csv"), "root": str(drawn), "caption_augmentation": caption_augmentation}
    ]
    kept, plain = encoded("visual", "text", sources=sources), encoded(sources=sources)
    said = set()
    for ours, theirs in zip(kept.batches(0, 8, batch=6), plain.batches(0, 8, batch=6), strict=True):
        assert ours.sentences == theirs.sentences
        assert torch.equal(ours.text_ids, theirs.text_ids)
        assert kept.embed_sentences(ours.sentences).shape[0] == 6
        said |= set(ours.sentences)
    assert len(said) > 12


def test_clips_are_embedded_alike_with_and_without_the_store(encoded):
    kept, plain = encoded("visual", "text"), encoded()
    for one in (kept, plain):
        one.encoder.eval()
    with torch.no_grad():
        (ids, rows), (other_ids, other_rows) = kept.embed_clips(), plain.embed_clips()
    other = dict(zip(other_ids, other_rows, strict=True))
    assert set(ids) == set(other)
    torch.testing.assert_close(rows, torch.stack([other[i] for i in ids]))


def test_what_is_kept_is_what_the_bodies_make_at_the_precision_of_the_steps(encoded):
    full, half, learning = encoded("visual", "text"), encoded("visual", "text", precision="bf16"), encoded()
    for one in (full, half, learning):
        one.encoder.eval()
    (at_half,), (at_full,) = ([*one.batches(0, 1, batch=6)] for one in (half, full))
    assert at_half.sentences == at_full.sentences
    assert not any(torch.equal(a, b) for a, b in zip(_embedded(half, at_half), _embedded(full, at_full), strict=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = split_backbone_head(learning.encoder.text).body(
            learning.encoder.text.tokenize(list(at_half.sentences))
        )
    torch.testing.assert_close(half.sentence_features.of(at_half.sentences), narrow.float())


def test_what_is_in_the_store_is_not_read_again(encoded, monkeypatch):
    first = encoded("visual", "text").clip_features

    def never(*_, **__):
        raise AssertionError("a file was decoded again")

    monkeypatch.setattr("clipact.train.loader.load_clips", never)
    again = encoded("visual", "text").clip_features
    assert again.places == first.places
    assert all(torch.equal(a, b) for a, b in zip(again.groups, first.groups, strict=True))


def test_a_sentence_that_is_in_the_store_is_not_encoded_again(encoded, monkeypatch):
    said = encoded("visual", "text")
    assert said.sentence_features is not None
    later = encoded("visual", "text")

    def never(self, ids):
        raise AssertionError("a sentence was encoded again")

    monkeypatch.setattr(type(later.encoder.text), "features", never)
    assert later.sentence_features is not None


def test_another_picture_under_the_same_name_is_encoded_anew(encoded, tmp_path):
    folder = draw_data(tmp_path / "own")
    before = encoded("visual", folder=folder).clip_features
    draw_picture(folder / "pictures/4.png", shade=255)
    after = encoded("visual", folder=folder)
    changed = next(e.visual_id for e in after.examples if e.file == "pictures/4.png")
    for visual_id, (group, row) in before.places.items():
        same = torch.equal(before.groups[group][:, row], after.clip_features.groups[group][:, row])
        assert same == (visual_id != changed)


def test_the_key_is_of_the_body_not_of_the_head(small):
    encoder = load_checkpoint(small)
    before = [hash_backbone(tower) for tower in (encoder.visual, encoder.text)]
    with torch.no_grad():
        encoder.visual.image.head.project.weight.add_(1)
        encoder.text.head.project.weight.add_(1)
    assert [hash_backbone(tower) for tower in (encoder.visual, encoder.text)] == before
    with torch.no_grad():
        encoder.visual.image.norm.running_mean.add_(1)
        encoder.text.layers[0].fc1.bias.add_(1)
    assert all(a != b for a, b in zip(before, map(hash_backbone, (encoder.visual, encoder.text)), strict=True))


def test_files_that_cannot_be_read_are_left_out_named_each_time_and_never_kept(encoded, tmp_path):
    folder = tmp_path / "broken"
    draw_data(folder)
    (folder / "pictures/2.png").write_bytes(b"no")
    shutil.copy(folder / "pictures/2.png", folder / "clips/0.mp4")
    for _ in range(2):
        one = encoded("visual", "text", folder=folder, max_unreadable=2)
        (batch,) = one.batches(0, 1, batch=len(one.examples))
        assert sorted(path.rpartition("/")[2] for path in one.unreadable_files) == ["0.mp4", "2.png"]
        assert len(batch) == 9 + 2 * 2


def test_the_first_view_is_the_clip_as_it_is_and_each_turn_shows_one_of_them(encoded):
    plain = encoded("visual", "text").clip_features
    one = encoded("visual", "text", augment={"brightness": 0.5}, cached_augmentations=3)
    assert one.clip_features.places == plain.places
    for ours, theirs in zip(one.clip_features.groups, plain.groups, strict=True):
        assert len(ours) == 3
        torch.testing.assert_close(ours[:1], theirs)
        assert not torch.allclose(ours[0], ours[1])
        assert not torch.allclose(ours[1], ours[2])
    shown = torch.cat(
        [piece for batch in one.batches(0, 20, batch=13) for piece in batch.visual if piece.shape[1] == 1]
    )
    pictures = next(group for group in one.clip_features.groups if group.shape[3] == 1)
    assert len(shown.flatten(1).unique(dim=0)) == len(pictures.flatten(0, 2).flatten(1).unique(dim=0))
