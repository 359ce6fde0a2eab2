"""The engine gives what a straight loop gives, whatever is beside a row, ahead of it or kept of it."""

import functools
import io
import itertools
import os
import random
import socket
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipact.cache import Cache
from clipact.embed import embed_clips as engine
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.options import EmbedOptions
from clipact.errors import UsageError, VideoError
from clipact.video.augment import Augment
from clipact.video.collect import Wanted
from clipact.video.load import load_clip, load_wanted
from tests.embed.straight_loop import SPEC, clip_encoder, counting, embed, embed_straight, everything

UNREADABLE = {"broken.mp4", "gone.mp4"}
straight = functools.cache(embed_straight)


def on_gpu(encoder):
    """As the engine treats what is encoded elsewhere: workers decode, whoever asks encodes."""
    return replace(encoder, on_cpu=False)


def assert_straight(found, rows, tower, **what):
    """Each row has the straight loop's embeddings, or its error in its place."""
    assert [one.name for one in found] == [row.name for row in rows]
    assert [one.span for one in found] == [(row.start_seconds, row.end_seconds) for row in rows]
    for one, row in zip(found, rows, strict=True):
        if row.name in UNREADABLE:
            assert (one.embeddings, one.features) == (None, None)
            assert isinstance(one.error, VideoError)
            assert row.name in str(one.error)
        else:
            assert one.error is None
            expected = straight(tower, row, **what)
            assert one.embeddings.shape == expected.shape
            assert len(one.stamps) == what.get("clips", 1)
            np.testing.assert_allclose(one.embeddings, expected, rtol=0, atol=1e-5)


def film_frames(film):
    with av.open(str(film)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("tower", ["frames", "mean colour", "vivit"])
@pytest.mark.parametrize(("workers", "frames_at_once"), [(1, 1), (2, 4), (5, 8), (2, 100), (5, 1), (1, 8)])
@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_workers_and_any_batch_is_the_straight_loop(tower, workers, frames_at_once, threads, mixed):
    found = embed(mixed, clip_encoder(tower), workers=workers, frames_at_once=frames_at_once, threads=threads)
    assert_straight(found, mixed, tower)


@pytest.mark.parametrize("tower", ["quick frames", "vivit"])
@pytest.mark.parametrize(("clips", "crops"), [(3, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize("sampling", ["segment_centers", "strided"])
def test_clips_and_crops_are_those_of_the_straight_loop(tower, clips, crops, sampling, mixed):
    what = {"spec": replace(SPEC, sampling=sampling, stride=5), "clips": clips, "crops": crops}
    encoder, rows = clip_encoder(tower, **what), mixed[1:5]
    for frames_at_once in (1, 8, 100):
        assert_straight(embed(rows, encoder, frames_at_once=frames_at_once), rows, tower, **what)
    assert_straight(embed(rows, on_gpu(encoder)), rows, tower, **what)


@pytest.mark.parametrize("tower", ["i3d", "efficientnet", "shifted frames"])
@pytest.mark.parametrize("frames_at_once", [8, 16])
def test_towers_of_some_size(tower, frames_at_once, mixed):
    rows = [mixed[0], mixed[2], mixed[8]]
    assert_straight(embed(rows, clip_encoder(tower), frames_at_once=frames_at_once), rows, tower)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_rows_does_not_matter(seed, mixed):
    encoder = clip_encoder("quick frames")
    order = random.Random(seed).sample(range(len(mixed)), len(mixed))
    expected = everything(embed(mixed, encoder, frames_at_once=8, workers=1))
    assert everything(embed([mixed[i] for i in order], encoder, frames_at_once=8, workers=3)) == [
        expected[i] for i in order
    ]


@pytest.mark.parametrize("gpu", [False, True])
def test_the_mean_of_a_videos_clips(gpu, source):
    rows = [source("a.mp4"), source("b.mp4")]
    encoder = clip_encoder("quick frames", clips=3)
    request = EmbedRequest(encoder=on_gpu(encoder) if gpu else encoder, keep_clips=False)
    for row, found in zip(rows, embed(rows, request), strict=True):
        mean = embed_straight("quick frames", row, clips=3).mean(0)
        np.testing.assert_allclose(found.embeddings, (mean / np.linalg.norm(mean))[None], rtol=0, atol=1e-5)


@pytest.mark.parametrize("clips", [1, 3])
@pytest.mark.parametrize("gpu", [False, True])
def test_frames_that_repeat_are_encoded_once(gpu, clips, source):
    row, spec, seen = source("c.mp4"), SPEC.with_frames(20), []
    encoder = counting(clip_encoder("quick frames", spec=spec, clips=clips), seen)
    (found,) = embed([row], on_gpu(encoder) if gpu else encoder, frames_at_once=4)
    assert_straight([found], [row], "quick frames", spec=spec, clips=clips)
    assert [len(batch) for batch in seen] == [4, 1]  # of a video of five frames
    assert "repeat" in found.notes[0]


def test_a_clip_of_more_frames_than_a_batch_never_holds_them_all(source):
    seen, spec = [], SPEC.with_frames(37)
    (found,) = embed([source("a.mp4")], counting(clip_encoder("quick frames", spec=spec), seen), frames_at_once=8)
    assert_straight([found], [source("a.mp4")], "quick frames", spec=spec)
    assert [len(batch) for batch in seen] == [8, 8, 8, 8, 5]


def test_batches_are_of_as_many_frames_as_were_asked_for(mixed):
    for tower, sizes in {"quick frames": {(8, 1)}, "mean colour": {(2, 4)}}.items():
        seen = []
        embed(mixed, counting(clip_encoder(tower), seen), frames_at_once=8, workers=1)
        assert {batch.shape[:2] for batch in seen} == sizes
        assert len(seen) == 5  # two rows a unit; where one cannot be read, the batch is filled up


@pytest.mark.parametrize("kind", ["array", "bytes", "file object", "folder of pictures", "text path"])
def test_all_kinds_of_sources(kind, films, source, tmp_path):
    frames = film_frames(films / "b.mp4")
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number:04}.png")
    sources = {
        "array": frames,
        "bytes": (films / "b.mp4").read_bytes(),
        "file object": io.BytesIO((films / "b.mp4").read_bytes()),
        "folder of pictures": tmp_path,
        "text path": str(films / "b.mp4"),
    }
    row = ClipSource(source=sources[kind], name=kind)
    (found,) = embed([row], clip_encoder("quick frames"), cache=Cache(tmp_path / "cache"))
    assert_straight([replace(found, name="b.mp4")], [source("b.mp4")], "quick frames")
    assert (found.name, found.digest != "") == (kind, kind == "text path")
    again = embed([row], clip_encoder("quick frames"), cache=Cache(tmp_path / "cache"))
    assert everything(again) == everything([found])


def test_standard_input_is_not_the_file_of_that_name(films, source, tmp_path, monkeypatch, cache):
    encoder, row = clip_encoder("quick frames"), ClipSource(source="-", name="-")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes((films / "c.mp4").read_bytes())
    for name in ("a.mp4", "b.mp4"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((films / name).read_bytes())))
        (found,) = embed([row], encoder, cache=cache)
        assert found.digest == ""
        assert_straight([replace(found, name=name)], [source(name)], "quick frames")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, cache, source):
    os.mkfifo(tmp_path / "pipe.mp4")
    rows = [ClipSource(source=tmp_path / "pipe.mp4", name="pipe.mp4"), source("c.mp4")]
    pipe, film = embed(rows, clip_encoder("quick frames"), cache=cache, workers=1)
    assert "it is a pipe" in str(pipe.error)
    assert film.error is None


def test_no_workers_and_no_frames_at_once_are_wrong_usage():
    with pytest.raises(UsageError, match="frames_at_once"):
        EmbedOptions(frames_at_once=0)
    with pytest.raises(UsageError, match="workers"):
        EmbedOptions(workers=0)


@pytest.mark.parametrize("tower", ["frames", "mean colour"])
@pytest.mark.parametrize("frames_at_once", [4, 12])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_cold_a_warm_and_no_cache_give_the_same_bits(tower, frames_at_once, gpu, mixed, cache, decodings):
    seen = []
    encoder = counting(clip_encoder(tower), seen)
    encoder = on_gpu(encoder) if gpu else encoder
    without = everything(embed(mixed, encoder, frames_at_once=frames_at_once, workers=1))
    batches, at_first = len(seen), len(decodings)
    cold = everything(embed(mixed, encoder, frames_at_once=frames_at_once, cache=cache, workers=2))
    assert batches < len(seen)
    del seen[:], decodings[:]
    assert everything(embed(mixed, encoder, frames_at_once=frames_at_once, cache=cache)) == cold
    assert seen == []
    assert set(decodings) == UNREADABLE  # these are tried again
    assert at_first == len(mixed)
    if gpu:  # there a batch is as large as what is missing
        assert [{**one, "embeddings": 0} for one in cold] == [{**one, "embeddings": 0} for one in without]
    else:
        assert cold == without


@pytest.mark.parametrize("frames_at_once", [4, 100])
@pytest.mark.parametrize("workers", [1, 4])
def test_rows_of_the_same_bytes_are_computed_once(frames_at_once, workers, source, cache, decodings):
    rows = [source(name) for name in ("a.mp4", "twin.mp4", "a.mp4", "twin.mp4")]
    found = embed(rows, clip_encoder("frames"), frames_at_once=frames_at_once, workers=workers, cache=cache)
    assert len(decodings) == 1
    assert [one.name for one in found] == [row.name for row in rows]
    assert len({one.embeddings.tobytes() for one in found}) == 1


def test_another_part_other_frames_and_another_tower_are_not_taken_for_what_is_kept(source, cache):
    for tower in ("quick frames", "mean colour"):
        for spec, clips in ((SPEC, 1), (SPEC.with_frames(5), 1), (replace(SPEC, size=(24, 24)), 1), (SPEC, 2)):
            rows = [source("a.mp4"), source("a.mp4", 0.0, 2.0), source("a.mp4", 0.5)]
            found = embed(rows, clip_encoder(tower, spec=spec, clips=clips), cache=cache)
            assert_straight(found, rows, tower, spec=spec, clips=clips)


def test_a_cache_that_cannot_be_written_is_said_once_and_costs_no_answer(mixed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cache") as warned:
        found = embed(mixed, clip_encoder("quick frames"), cache=Cache(tmp_path / "file"), workers=3)
    assert len(warned) == 1
    assert_straight(found, mixed, "quick frames")


@pytest.mark.parametrize("tower", ["frames", "vivit"])
@pytest.mark.parametrize("frames_at_once", [1, 8, 100])
def test_the_way_of_a_gpu_is_the_straight_loop(tower, frames_at_once, mixed, monkeypatch):
    encoder = on_gpu(clip_encoder(tower))
    assert_straight(embed(mixed, encoder, frames_at_once=frames_at_once, workers=3), mixed, tower)
    monkeypatch.setattr(engine, "_FRAMES_HELD", 3)  # clips too large to wait whole: decoded by whoever encodes
    monkeypatch.setattr(engine, "load_wanted", lambda *a, **k: pytest.fail("a large clip was loaded whole"))
    assert_straight(embed(mixed, encoder, frames_at_once=frames_at_once, workers=3), mixed, tower)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("frames_at_once", [4, 8])
def test_what_is_decoded_ahead_is_not_decoded_again(gpu, frames_at_once, mixed, decodings):
    encoder = clip_encoder("quick frames", clips=2)
    decoded = {}
    for number, row in enumerate(mixed[:4]):
        decoded[number] = Future()
        wanted = Wanted(spec=SPEC, clips=2, start_seconds=row.start_seconds, end_seconds=row.end_seconds)
        try:
            decoded[number].set_result(load_wanted(row.source, wanted))
        except VideoError as error:
            decoded[number].set_exception(error)
    request = EmbedRequest(encoder=on_gpu(encoder) if gpu else encoder, decoded=decoded)
    found = embed(mixed, request, frames_at_once=frames_at_once)
    assert_straight(found, mixed, "quick frames", clips=2)
    assert sorted(decodings) == sorted(row.name for row in mixed[4:])
    plain = everything(embed(mixed, request.encoder, frames_at_once=frames_at_once))
    assert [{**one, "embeddings": 0} for one in everything(found)] == [{**one, "embeddings": 0} for one in plain]


def test_a_time_limit_changes_no_bit_and_ends_what_takes_longer(source):
    rows, encoder = [source("a.mp4"), source("broken.mp4")], clip_encoder("quick frames", clips=2, crops=3)
    limited = embed(rows, encoder, time_limit_seconds=100.0, workers=2)
    assert everything(limited) == everything(embed(rows, encoder))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        (late,) = embed([ClipSource(source=address, name=address)], encoder, time_limit_seconds=0.5)
    assert "0.5 seconds" in late.cause


@pytest.mark.parametrize("tower", ["frames", "vivit", "mean colour"])
@pytest.mark.parametrize("gpu", [False, True])
def test_features_are_what_the_head_makes_embeddings_of(tower, gpu, mixed, cache):
    encoder = clip_encoder(tower, clips=2)
    encoder = on_gpu(encoder) if gpu else encoder
    request = EmbedRequest(encoder=encoder, features=True)
    embedded = embed(mixed, encoder, cache=cache)
    for features in (embed(mixed, request), embed(mixed, request, cache=cache)):
        for one, other in zip(features, embedded, strict=True):
            assert one.embeddings is None
            if one.error is None:
                assert one.features.shape[: 1 + encoder.by_frame] == ((2, 4) if encoder.by_frame else (2,))
                np.testing.assert_allclose(encoder.head(one.features), other.embeddings, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tower", ["quick frames", "vivit"])
@pytest.mark.parametrize("gpu", [False, True])
def test_augmented_clips_are_those_that_a_rows_draw_seeds(tower, gpu, source, cache):
    augment = Augment(drift=1.0, brightness=0.3)
    rows = [source(name, draw=draw) for draw in (3, 4) for name in ("a.mp4", "b.mp4", "broken.mp4")]
    encoder = clip_encoder(tower, clips=2)
    request = EmbedRequest(encoder=on_gpu(encoder) if gpu else encoder, augment=augment)
    found = embed(rows, request, cache=cache, workers=2)
    for one, row in zip(found, rows, strict=True):
        if row.name not in UNREADABLE:
            generator = np.random.default_rng(row.draw)
            expected = embed_straight(tower, row, clips=2, generator=generator, augment=augment)
            np.testing.assert_allclose(one.embeddings, expected, rtol=0, atol=1e-5)
    assert not np.allclose(found[0].embeddings, found[3].embeddings, atol=1e-3)
    assert everything(embed(rows[::-1], request, cache=cache)) == everything(found[::-1])


def test_rows_are_taken_as_they_are_needed(source):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield source("c.mp4")

    for encoder in (clip_encoder("quick frames"), on_gpu(clip_encoder("quick frames"))):
        taken.clear()
        found = embed_clips(endless(), encoder, EmbedOptions(workers=2, frames_at_once=8))
        assert taken == []
        assert_straight(list(itertools.islice(found, 5)), [source("c.mp4")] * 5, "quick frames")
        assert len(taken) <= 5 + 2 * 2 * 16 + 2  # two rows a unit, sixteen units a worker
        found.close()


def test_no_worker_is_left_behind(source):
    before = set(threading.enumerate())
    found = embed_clips([source("b.mp4")] * 40, clip_encoder("quick frames"), EmbedOptions(workers=4))
    next(found)
    assert set(threading.enumerate()) - before
    found.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    assert set(threading.enumerate()) <= before


def test_what_is_known_is_neither_decoded_nor_encoded(mixed, decodings):
    seen = []
    encoder = counting(clip_encoder("quick frames"), seen)
    known = {row.name: one for row, one in zip(mixed, embed(mixed, encoder), strict=True) if row.name == "c.mp4"}
    del seen[:], decodings[:]
    for one in (encoder, on_gpu(encoder)):
        request = EmbedRequest(encoder=one, known=lambda row: known.get(row.name))
        assert_straight(embed(mixed, request, frames_at_once=8), mixed, "quick frames")
    assert "c.mp4" not in decodings


def test_where_the_time_went_is_told(mixed, cache):
    rows = [row for row in mixed if row.name not in UNREADABLE]
    for encoder in (clip_encoder("quick frames"), on_gpu(clip_encoder("mean colour"))):
        cold, warm = {}, {}
        list(embed_clips(rows, encoder, EmbedOptions(cache=cache), seconds=cold))
        list(embed_clips(rows, encoder, EmbedOptions(cache=cache), seconds=warm))
        assert set(cold) == {"lookup", "decode", "encode", "store"}
        assert min(cold.values()) > 0
        assert warm["lookup"] > 0
        assert warm["encode"] == 0


# What is beside a row

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 1, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def alone():
    """The features of each picture, embedded by itself."""
    encoder = clip_encoder("efficientnet", spec=SPEC.with_frames(1))
    request = EmbedRequest(encoder=encoder, features=True)
    rows = [ClipSource(source=picture, name=str(number)) for number, picture in enumerate(PICTURES)]
    found = [embed([row], request, frames_at_once=8)[0] for row in rows]
    return request, [one.features.tobytes() for one in found]


@settings(max_examples=12)
@given(st.lists(st.integers(-2, len(PICTURES) - 1), min_size=1, max_size=18), st.integers(1, 3))
def test_on_a_cpu_no_picture_depends_on_those_beside_it(alone, order, workers):
    """In units of eight, in any order, with any missing (below zero: unreadable), the bits are the same."""
    request, expected = alone
    rows = [ClipSource(source=b"no video" if number < 0 else PICTURES[number], name=str(number)) for number in order]
    found = embed(rows, request, frames_at_once=8, workers=workers)
    assert [one.features is None for one in found] == [number < 0 for number in order]
    assert [one.features.tobytes() for one in found if one.features is not None] == [
        expected[number] for number in order if number >= 0
    ]


def test_clips_decoded_by_hand_are_the_engines(source):
    """`load_clip` and the engine see the same frames of a stretch."""
    (found,) = embed([source("a.mp4", 1.0, 2.0)], clip_encoder("quick frames"))
    clip = load_clip(source("a.mp4").source, 1.0, 2.0, spec=SPEC)
    assert found.stamps == (clip.stamps,)
    assert found.decoder == clip.decoder
    assert found.duration_seconds == pytest.approx(4.0)
