import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipact.cache import Cache
from clipact.data.fingerprint import seed_from
from clipact.data.sources import read_sources
from clipact.embed import embed_clips as engine
from clipact.errors import DataError
from clipact.evaluate import EvalOptions, manifest_protocol, read_samples
from clipact.evaluate.run_protocol import run_protocol
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import computing, normalise_frames
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.zoo import load_model
from clipact.train.drawn_inputs import ClipKey
from clipact.train.encoded_batches import EncodedBatches
from clipact.train.freezing import Freezing
from clipact.video.load import load_clips
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


@pytest.mark.parametrize("cached_sides", [(), ("visual",)])
def test_an_embedding_is_the_mean_of_those_of_the_clips(encoded, cached_sides):
    one = encoded(*cached_sides, workers=2)
    one.encoder.eval()
    examples = {example.visual_id: example for example in one.examples}
    with torch.no_grad():
        found = dict(zip(*one.embed_clips(), strict=True))
        assert found.keys() == examples.keys()
        for visual_id, example in examples.items():
            clips = load_clips(example.path, one.encoder.spec.with_frames(example.frames), clips=example.clips)
            views = [one.encoder.encode_video(normalise_frames(clip.frames, one.encoder.spec)[None]) for clip in clips]
            expected = torch.nn.functional.normalize(torch.cat(views).mean(0), dim=0)
            torch.testing.assert_close(found[visual_id], expected, rtol=0, atol=1e-6)


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


def _encode_all(encoded):
    """Every clip in every view, and every sentence: (example, view) -> features."""
    encoded.encode(0, 2 * len(encoded.examples), batch=1)
    keys = [ClipKey.of(example, view) for example in encoded.examples for view in range(encoded.views)]
    return {key: encoded.visual_features.of([key]) for key in keys if key in encoded.visual_features}


def _refuse(what):
    def refuse(*_, **__):
        raise AssertionError(what)

    return refuse


def test_what_is_in_the_cache_is_neither_decoded_nor_encoded_again(encoded, monkeypatch):
    tables = {"augment": {"brightness": 0.5}, "cached_augmentations": 2}
    first = _encode_all(encoded("visual", "text", **tables))
    for name in ("collect_frames", "load_wanted"):
        monkeypatch.setattr(engine, name, _refuse("a file was decoded again"))
    again = encoded("visual", "text", **tables)
    monkeypatch.setattr(type(again.encoder.text), "features", _refuse("a sentence was encoded again"))
    found = _encode_all(again)
    assert len(found) == len(first) == 2 * 13
    assert all(torch.equal(features, first[key]) for key, features in found.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trained_first", [False, True])
def test_evaluation_and_training_share_the_features_of_a_file(
    encoded, small, drawn, tmp_path, monkeypatch, precision, trained_first
):
    """The same body, frames and clips: whoever comes second decodes nothing."""
    model, store = load_model(str(small), device="cpu", precision=precision), Cache(tmp_path / "store")
    protocol = manifest_protocol(drawn / "clips.csv")
    protocol = replace(protocol, views=replace(protocol.views, frames=4, views=2))
    samples, options = read_samples(protocol, drawn), EvalOptions(cache=store)
    one = encoded("visual", precision=precision, sources=[{"manifest": "clips.csv", "frames": 4, "clips": 2}])
    runs = [lambda: _encode_all(one), lambda: run_protocol(protocol, samples, model, tmp_path, options=options)]
    counted = []
    decode = engine.collect_frames
    monkeypatch.setattr(engine, "collect_frames", lambda *a, **b: counted.append(a[0]) or decode(*a, **b))
    for run in runs if trained_first else runs[::-1]:
        run()
        assert len(counted) == 3
    assert len(_encode_all(one)) == 3


def test_another_precision_is_another_entry(encoded, monkeypatch):
    _encode_all(encoded("visual"))
    counted, decode = [], engine.collect_frames
    monkeypatch.setattr(engine, "collect_frames", lambda *a, **b: counted.append(a[0]) or decode(*a, **b))
    _encode_all(encoded("visual", precision="bf16"))
    assert len(counted) == 13


def _by_hand(encoder, example, *, augment, view, precision="fp32"):
    """Decode, normalise, and run the body on one clip after the other."""
    drawn = seed_from(0, "sample", view, example.name, "")
    clips = load_clips(
        example.path,
        encoder.spec.with_frames(example.frames),
        clips=example.clips,
        generator=np.random.default_rng(drawn) if view else None,
        augment=augment if view else None,
    )
    body = split_backbone_head(encoder.visual).body
    with torch.no_grad(), computing(precision, torch.device("cpu")):
        return torch.cat([body(normalise_frames(clip.frames, encoder.spec)[None]).float() for clip in clips])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("workers", [0, 3])
def test_features_are_what_the_body_makes_of_each_clip_by_itself(encoded, precision, workers):
    tables = {"augment": {"brightness": 0.5, "drift": 0.5}, "cached_augmentations": 3, "workers": workers}
    one = encoded("visual", precision=precision, **tables)
    found = _encode_all(one)
    assert len(found) == 3 * 13
    assert {key.clips for key in found} == {1, 2}
    examples = {example.visual_id: example for example in one.examples}
    for key, features in found.items():
        expected = _by_hand(
            one.encoder, examples[key.visual_id], augment=one.data.augment, view=key.view, precision=precision
        )
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


def test_a_file_in_two_shapes_has_features_of_both(encoded):
    """As a picture and as a clip: the rows of a batch are as many as its own source says."""
    sources = [{"manifest": "clips.csv"}, {"manifest": "clips.csv", "frames": 4, "clips": 2}]
    one = encoded("visual", "text", sources=sources)
    (batch,) = one.batches(0, 1, batch=6)
    assert [piece.shape[:2] for piece in batch.visual] == [(3, 1), (6, 4)]
    assert len(batch) == len(batch.repeats) == 9


def test_steps_encode_what_they_draw_and_no_more(encoded):
    tables = {"augment": {"brightness": 0.5}, "cached_augmentations": 3}
    whole, one = encoded("visual", "text", **tables), encoded("visual", "text", **tables)
    expected = list(whole.batches(0, 20, batch=5))
    one.encode(0, 1, batch=4)
    drawn = one.draw(0, 1, batch=4)
    keys = [ClipKey.of(example, view) for example in one.examples for view in range(3)]
    assert [key for key in keys if key in one.visual_features] == [key for key in keys if key in drawn.clips]
    assert len(drawn.clips) == 4
    assert [said for example in one.examples for said in example.sentences if said in one.sentence_features]
    assert sum(said in one.sentence_features for said in {s for e in one.examples for s in e.sentences}) <= 4
    for ours, theirs in zip(one.batches(0, 20, batch=5), expected, strict=True):
        assert ours.sentences == theirs.sentences
        assert all(torch.equal(a, b) for a, b in zip(ours.visual, theirs.visual, strict=True))


def test_another_tokenizer_is_another_entry(encoded, tmp_path):
    """The weights do not say which words their rows stand for."""
    one, other = encoded("text"), encoded("text")
    table = json.loads(other.encoder.text.tokenizer_file.read_text())
    words = table["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    other.encoder.text.tokenizer_file = tmp_path / "swapped.json"
    other.encoder.text.tokenizer_file.write_text(json.dumps(table))
    for each in (one, other):
        each.encoder.eval()
        each.encode_sentences(["a", "b"])
    assert not torch.equal(one.sentence_features.of(["a"]), other.sentence_features.of(["a"]))
    torch.testing.assert_close(one.sentence_features.of(["a", "b"]), other.sentence_features.of(["b", "a"]))


def test_another_picture_under_the_same_name_is_encoded_anew(encoded, tmp_path):
    folder = draw_data(tmp_path / "own")
    before = _encode_all(encoded("visual", folder=folder))
    draw_picture(folder / "pictures/4.png", shade=255)
    after = encoded("visual", folder=folder)
    changed = next(e.visual_id for e in after.examples if e.file == "pictures/4.png")
    for key, features in _encode_all(after).items():
        assert torch.equal(features, before[key]) == (key.visual_id != changed)


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


def test_more_unreadable_files_than_allowed_end_the_run_and_are_named(encoded, tmp_path):
    folder = draw_data(tmp_path / "broken")
    (folder / "pictures/2.png").write_bytes(b"no")
    for cached_sides in (("visual", "text"), ()):
        one = encoded(*cached_sides, folder=folder)
        with pytest.raises(DataError, match=r"1 files could not be read, more than max_unreadable = 0; .*2\.png: .*"):
            list(one.batches(0, 1, batch=len(one.examples)))


def test_the_first_view_is_the_clip_as_it_is_and_each_turn_shows_one_of_them(encoded):
    plain = _encode_all(encoded("visual", "text"))
    one = encoded("visual", "text", augment={"brightness": 0.5}, cached_augmentations=3)
    found = _encode_all(one)
    assert len(found) == 3 * len(plain)
    for key, features in plain.items():
        torch.testing.assert_close(found[key], features)
    pictures = [[found[key._replace(view=view)] for key in plain if key.frames == 1] for view in range(3)]
    assert not torch.allclose(torch.cat(pictures[0]), torch.cat(pictures[1]))
    assert not torch.allclose(torch.cat(pictures[1]), torch.cat(pictures[2]))
    shown = torch.cat(
        [piece for batch in one.batches(0, 20, batch=13) for piece in batch.visual if piece.shape[1] == 1]
    )
    different = torch.cat([row for view in pictures for row in view]).flatten(1).unique(dim=0)
    assert len(shown.flatten(1).unique(dim=0)) == len(different)
