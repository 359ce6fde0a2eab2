"""Sentences from the cache: the same rows as without one, whatever was there, stopped, lost or damaged."""

import warnings

import numpy as np
import pytest

from clipact.cache import Cache, content_key
from clipact.embed.sentences import NAMES, PACK_SENTENCES, ROWS, absent_sentences, embed_sentences

KEY = content_key("a model")
SENTENCES = [f"sentence {number} {'x' * (number % 7)}" for number in range(600)]


def expected_rows(sentences, shape=(3, 2)):
    return np.stack([np.random.default_rng(list(text.encode())).random(shape, np.float32) for text in sentences])


class Encoder:
    """Rows that depend on the sentence alone; counts what it is asked for, and may be stopped."""

    def __init__(self, *, calls=1000):
        self.batches, self.calls = [], calls

    def __call__(self, sentences):
        if len(self.batches) == self.calls:
            raise KeyboardInterrupt
        self.batches.append(list(sentences))
        return expected_rows(sentences)

    @property
    def asked(self):
        return [sentence for batch in self.batches for sentence in batch]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def embed(sentences, cache, *, encode=None, key=KEY):
    encode = encode or Encoder()
    found = embed_sentences(sentences, encode, key=key, cache=cache)
    np.testing.assert_array_equal(found, expected_rows(sentences))
    return encode


def packs(cache, kind=ROWS):
    return sorted(path for path in (cache.root / kind).rglob("*") if path.is_file())


def test_each_sentence_is_encoded_once_and_then_read(cache):
    mixed = SENTENCES[:300] + SENTENCES[100:150] + SENTENCES[:1]
    first = embed(mixed, cache)
    assert sorted(first.asked) == sorted(SENTENCES[:300])
    assert list(map(len, first.batches)) == [PACK_SENTENCES, 300 - PACK_SENTENCES]
    assert list(map(len, first.asked)) == sorted(map(len, SENTENCES[:300])), "of like length together"
    assert embed(mixed[::-1], cache).asked == []
    assert embed([*mixed, "one more"], cache).asked == ["one more"]
    assert sorted(embed(mixed, cache, key=content_key("another model")).asked) == sorted(SENTENCES[:300])


def test_nothing_is_asked_of_the_cache_for_no_sentence(cache):
    assert embed_sentences([], lambda said: np.zeros((len(said), 4), np.float32), key=KEY, cache=cache).shape == (0, 4)
    assert not cache.root.exists()


def test_a_stop_loses_one_batch_at_most(cache):
    with pytest.raises(KeyboardInterrupt):
        embed(SENTENCES, cache, encode=Encoder(calls=2))
    rest = embed(SENTENCES, cache)
    assert len(rest.asked) == len(SENTENCES) - 2 * PACK_SENTENCES


def test_sentences_that_come_one_by_one_share_a_pack(cache):
    for number in range(20):
        assert embed(SENTENCES[: number + 1], cache).asked == [SENTENCES[number]]
    assert len(packs(cache)) == len(packs(cache, NAMES)) == 1
    embed(SENTENCES, cache)
    assert [len(cache.read(ROWS, pack.name)["rows"]) for pack in packs(cache)].count(PACK_SENTENCES) == 2
    assert embed(SENTENCES, cache).asked == []


def test_only_the_packs_that_hold_something_wanted_are_read(cache, monkeypatch):
    embed(SENTENCES[:PACK_SENTENCES], cache)
    embed(SENTENCES[PACK_SENTENCES : 2 * PACK_SENTENCES], cache)
    kinds, read = [], cache.read
    monkeypatch.setattr(cache, "read", lambda kind, key: kinds.append(kind) or read(kind, key))
    assert embed(SENTENCES[5:9], cache).asked == []
    assert kinds.count(ROWS) == 1
    assert kinds.count(NAMES) <= 2


@pytest.mark.parametrize("kind", [NAMES, ROWS])
@pytest.mark.parametrize("how", ["gone", "cut", "another form", "of other sentences"])
def test_a_lost_half_of_a_pack_is_encoded_again(cache, kind, how):
    embed(SENTENCES[:10], cache)
    (path,) = packs(cache, kind)
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "another form":
        cache.write(kind, path.name, {"names": np.zeros((10, 3), np.uint8), "rows": np.zeros(10)})
    else:
        other = Cache(cache.root.with_name("other"))
        embed(SENTENCES[10:20], other)
        (theirs,) = packs(other, kind)
        path.write_bytes(theirs.read_bytes())
    assert sorted(embed(SENTENCES[:10], cache).asked) == sorted(SENTENCES[:10])
    assert embed(SENTENCES[:10], cache).asked == []


def test_rows_of_two_writers_are_never_taken_for_each_others(cache):
    """Names of one pack beside the rows of another: what a process meets between two writes of a second one."""
    embed(SENTENCES[:10], cache)
    (before,) = packs(cache)
    older = before.read_bytes()
    embed(SENTENCES[:15], cache)
    before.write_bytes(older)
    assert sorted(embed(SENTENCES[:15], cache).asked) == sorted(SENTENCES[10:15])
    assert embed(SENTENCES[:15], cache).asked == []


def test_a_cache_that_cannot_be_written_warns_once(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = Cache(tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="CLIPACT_CACHE") as caught:
        assert sorted(embed(SENTENCES, cache).asked) == sorted(SENTENCES)
    assert len(caught) == 1


def test_progress_shows_the_batches_that_are_encoded(cache):
    seen = []

    def progress(batches, total, description):
        seen.append((total, description))
        yield from batches

    for _ in range(2):
        embed_sentences(SENTENCES, Encoder(), key=KEY, cache=cache, progress=progress)
    assert seen == [(3, "encoding sentences")]


def test_many_small_packs_of_two_processes_are_one_store(cache):
    """Two that begin at once both make a pack; a third finds what either has kept."""
    one, other = Cache(cache.root), Cache(cache.root)
    embed(SENTENCES[:5], one)
    (path,) = packs(cache, NAMES)
    hidden = path.rename(path.with_name("hidden"))
    embed(SENTENCES[5:9], other)
    hidden.rename(path)
    assert len(packs(cache)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert embed(SENTENCES[:10], cache).asked == [SENTENCES[9]]


def test_absent_sentences_are_those_that_would_be_encoded(cache):
    assert absent_sentences([*SENTENCES, SENTENCES[0]], key=KEY, cache=cache) == SENTENCES
    embed_sentences(SENTENCES[:570], Encoder(), key=KEY, cache=cache)
    assert absent_sentences(SENTENCES, key=KEY, cache=cache) == SENTENCES[570:]
    assert absent_sentences(SENTENCES, key=content_key("another"), cache=cache) == SENTENCES
    encode = Encoder()
    embed_sentences(SENTENCES, encode, key=KEY, cache=cache)
    assert sorted(encode.asked) == sorted(SENTENCES[570:])
