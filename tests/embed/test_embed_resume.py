"""A run that was stopped goes on bit for bit as it would have, and takes no other run's journal."""

import itertools
import os
from dataclasses import replace

import pytest

from clipact.cache import Cache
from clipact.embed import embed_clips as engine
from clipact.embed import options as embed_options
from clipact.embed.clip_source import ClipSource
from clipact.embed.embed_clips import EmbedRequest, embed_clips
from clipact.embed.options import EmbedOptions
from clipact.errors import ResultError
from tests.embed.straight_loop import clip_encoder, embed, everything


@pytest.mark.parametrize(("tower", "frames_at_once"), [("frames", 4), ("frames", 12), ("vivit", 12)])
@pytest.mark.parametrize("cached", ["no cache", "cold cache", "warm cache"])
def test_stopped_after_any_row_it_resumes_bit_for_bit(tower, frames_at_once, cached, mixed, tmp_path, decodings):
    encoder = clip_encoder(tower)
    options = EmbedOptions(frames_at_once=frames_at_once, journal=tmp_path / "journal", workers=2)
    whole = everything(embed(mixed, encoder, frames_at_once=frames_at_once))
    unit = max(1, frames_at_once // 4)
    if cached == "warm cache":
        embed(mixed, encoder, frames_at_once=frames_at_once, cache=Cache(tmp_path / "warm"))
    for stop in range(len(mixed)):
        running = embed_clips(mixed, encoder, options)
        assert everything(itertools.islice(running, stop)) == whole[:stop]
        running.close()
        cache = {"no cache": None, "cold cache": Cache(tmp_path / f"{stop}"), "warm cache": Cache(tmp_path / "warm")}
        decodings.clear()
        resumed = list(embed_clips(mixed, encoder, replace(options, resume=True, cache=cache[cached])))
        assert everything(resumed) == whole
        if cached != "warm cache":
            assert len(mixed) - -(-stop // unit) * unit in range(len(decodings) + 3)


@pytest.mark.parametrize("tower", ["efficientnet", "vivit"])
def test_neither_the_load_nor_what_is_left_changes_a_bit_of_what_is_resumed(tower, mixed, tmp_path, monkeypatch):
    """How many threads compute decides how sums are rounded: with a journal it is always one a worker."""
    encoder = clip_encoder(tower)
    monkeypatch.setattr(embed_options, "cores", lambda: 4)
    monkeypatch.setattr(embed_options, "_is_busy", lambda: False)
    options = EmbedOptions(frames_at_once=12, journal=tmp_path / "journal", workers=1)
    whole = everything(embed_clips(mixed, encoder, replace(options, workers=None)))
    running = embed_clips(mixed, encoder, options)
    assert everything(itertools.islice(running, 4)) == whole[:4]
    running.close()
    monkeypatch.setattr(embed_options, "_is_busy", lambda: True)
    assert everything(embed_clips(mixed, encoder, replace(options, resume=True, workers=3))) == whole
    assert options.threads_for(1) == 1
    assert replace(options, threads=3).threads_for(1) == 3


def test_a_whole_journal_is_read_and_nothing_is_decoded(mixed, tmp_path, decodings):
    encoder = clip_encoder("quick frames", clips=2)
    for request in (EmbedRequest(encoder=encoder), EmbedRequest(encoder=encoder, features=True, keep_clips=False)):
        options = EmbedOptions(frames_at_once=24, journal=tmp_path / "journal")
        whole = list(embed_clips(mixed, request, options))
        decodings.clear()
        assert everything(embed_clips(mixed, request, replace(options, resume=True))) == everything(whole)
        assert decodings == []


def test_the_journal_of_other_rows_another_batch_or_another_request_is_refused(mixed, tmp_path):
    encoder, options = clip_encoder("quick frames"), EmbedOptions(journal=tmp_path / "journal", frames_at_once=4)
    embed_all = list(embed_clips(mixed, encoder, options))
    assert len(embed_all) == len(mixed)
    before, resume = (tmp_path / "journal").read_bytes(), replace(options, resume=True)
    others = {
        "rows": (mixed[::-1], encoder, resume),
        "a part": ([*mixed[:-1], replace(mixed[-1], end_seconds=0.9)], encoder, resume),
        "batch": (mixed, encoder, replace(resume, frames_at_once=12)),
        "clips": (mixed, clip_encoder("quick frames", clips=2), resume),
        "tower": (mixed, clip_encoder("vivit"), resume),
        "features": (mixed, EmbedRequest(encoder=encoder, features=True), resume),
        "mean": (mixed, EmbedRequest(encoder=encoder, keep_clips=False), resume),
    }
    for rows, request, changed in others.values():
        with pytest.raises(ResultError, match="another run"):
            list(embed_clips(rows, request, changed))
    assert (tmp_path / "journal").read_bytes() == before


def test_names_that_are_not_utf8_are_kept(films, tmp_path, cache):
    name = os.fsdecode(b"caf\xe9.mp4")
    rows = [ClipSource(source=films / "c.mp4", name=name), ClipSource(source=films / "gone.mp4", name=name)]
    options = EmbedOptions(journal=tmp_path / "journal", cache=cache)
    found = list(embed_clips(rows, clip_encoder("quick frames"), options))
    assert [one.name for one in found] == [name, name]
    resumed = embed_clips(rows, clip_encoder("quick frames"), replace(options, resume=True))
    assert everything(resumed) == everything(found)


@pytest.mark.parametrize("left", [1, 9])
def test_with_a_journal_the_decoder_has_one_thread(left, mixed, tmp_path, monkeypatch):
    """FFmpeg's threads may make another thing of a damaged frame each time, however few rows are left."""
    asked, real = set(), engine.collect_frames
    monkeypatch.setattr(
        engine,
        "collect_frames",
        lambda source, wanted, *rest, **more: asked.add(wanted.decoder_threads) or real(source, wanted, *rest, **more),
    )
    list(embed_clips(mixed[-left:], clip_encoder("quick frames"), EmbedOptions(journal=tmp_path / "journal")))
    assert asked == {1}
