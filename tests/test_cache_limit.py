"""The cache stays within its limit, and nothing but its entries is ever removed."""

import multiprocessing
import os
import time

import numpy as np
import pytest

from clipact import cache as cache_module
from clipact import cache_entries
from clipact.cache import Cache, content_key, default_limit_bytes
from clipact.cache_entries import KindUsage, Removed, estimate_bytes, evict
from clipact.errors import CacheError

HOUR = 3600.0
ARRAYS = {"x": np.zeros(900, np.float32)}  # one block of 4,096 bytes, with its head


def key(number):
    return content_key("entry", str(number))


def fill(cache, numbers, *, kind="clips", age_seconds=lambda number: 0.0):
    now = time.time()
    for number in numbers:
        cache.write(kind, key(number), ARRAYS)
        used = now - age_seconds(number)
        os.utime(cache._path(kind, key(number)), (used, used))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", limit_bytes=10**12)


@pytest.fixture
def foreign(cache):
    """Files in the cache's folder that are not entries, by their names or by where they stand."""
    name = key("foreign")
    places = [
        "notes.txt",
        name,
        f"clips/{name}",
        f"clips/ab/{name if not name.startswith('ab') else 'cd' + name[2:]}",
        f"clips/ab/ab{name[2:]}.bak",
        f"clips/ab/ab{name[2:-1]}",
        f"clips/AB/{name}",
        f"clips/ab/more/ab{name[2:]}",
        f"clips/ab/.ab{name[2:]}.part",
        f"cas/ab/ab{name[2:]}",  # another program's cache of the very same layout
        "clips/ab/ab" + name[2:-1] + "G",
    ]
    for place in places:
        (cache.root / place).parent.mkdir(parents=True, exist_ok=True)
        (cache.root / place).write_text("not ours")
        os.utime(cache.root / place, (1, 1))
    return [cache.root / place for place in places]


def partial_file(cache, *, age_seconds, name=".abcd_123.part"):
    folder = cache.root / "clips" / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"half")
    os.utime(folder / name, (time.time() - age_seconds,) * 2)
    return folder / name


def test_keys_and_info_say_what_was_written(cache):
    fill(cache, range(5), age_seconds=lambda number: number * HOUR)
    fill(cache, range(2), kind="text")
    assert sorted(cache.keys("clips")) == sorted(key(number) for number in range(5))
    assert list(cache.keys("checked")) == []
    found = {usage.kind: usage for usage in cache.info()}
    assert found["clips"].entries == 5
    assert found["clips"].bytes == 5 * 4096
    assert found["clips"].newest_use_seconds - found["clips"].oldest_use_seconds == pytest.approx(4 * HOUR, abs=1)
    assert found["text"].entries == 2
    assert found["checked"] == KindUsage(kind="checked")


def test_clear_removes_entries_and_nothing_else(cache, foreign):
    fill(cache, range(4))
    fill(cache, range(3), kind="text")
    left, new = partial_file(cache, age_seconds=2 * HOUR), partial_file(cache, age_seconds=60, name=".aaaaaaaa.part")
    with cache.claim("clips", key(0)):
        pass
    assert sum(usage.entries for usage in cache.info()) == 7
    assert cache.clear() == Removed(entries=7, partial_files=1, bytes=8 * 4096)
    assert not left.exists()
    assert new.exists(), "it may be an entry that is being written"
    assert all(path.read_text() == "not ours" for path in foreign)
    assert (cache.root / "claims").exists()
    assert cache.clear() == Removed()


def test_clear_takes_the_kinds_and_the_age_that_are_named(cache):
    fill(cache, range(4), age_seconds=lambda number: number * HOUR + 1)
    fill(cache, range(4), kind="text", age_seconds=lambda number: number * HOUR + 1)
    assert cache.clear(kinds=["text", "../.."], older_than_seconds=1.5 * HOUR).entries == 2
    assert set(cache.keys("text")) == {key(0), key(1)}
    assert len(list(cache.keys("clips"))) == 4
    assert cache.clear(older_than_seconds=2.5 * HOUR).entries == 1
    assert cache.clear(kinds=[]).entries == 0


def test_links_are_not_followed(cache, tmp_path):
    outside = tmp_path / "outside"
    other = Cache(outside, limit_bytes=10**12)
    fill(other, range(3))
    name = key(0)
    (cache.root / "text" / name[:2]).mkdir(parents=True)
    (cache.root / "clips").symlink_to(outside / "clips")
    (cache.root / "frames").mkdir()
    (cache.root / "frames" / name[:2]).symlink_to(outside / "clips" / name[:2])
    (cache.root / "text" / name[:2] / name).symlink_to(outside / "clips" / name[:2] / name)
    assert sum(usage.entries for usage in cache.info()) == 0
    assert cache.clear().entries == 0
    evict(cache.root, 1)
    assert len(list(other.keys("clips"))) == 3
    assert (cache.root / "text" / name[:2] / name).is_symlink()


def test_the_least_recently_used_go_first(cache):
    fill(cache, range(20), age_seconds=lambda number: (number % 7) * HOUR + number)
    fill(cache, range(20, 30), kind="text", age_seconds=lambda number: (number % 7) * HOUR + number)
    by_age = sorted(range(30), key=lambda number: (number % 7) * HOUR + number)
    evict(cache.root, 30 * 4096)
    assert sum(usage.entries for usage in cache.info()) == 30, "at the limit nothing goes"
    evict(cache.root, 20 * 4096)
    assert {*cache.keys("clips"), *cache.keys("text")} == {key(number) for number in by_age[:18]}


def test_of_entries_used_at_one_moment_only_as_many_go_as_must(cache):
    moment = time.time() - HOUR
    fill(cache, range(30))
    for path in (cache.root / "clips").glob("*/*"):
        os.utime(path, (moment, moment))
    old = cache._path("clips", key(0))
    os.utime(old, (moment - HOUR, moment - HOUR))
    evict(cache.root, 20 * 4096)
    assert len(list(cache.keys("clips"))) == 18
    assert not old.exists()


def test_what_is_being_written_stays_and_what_was_left_goes(cache):
    fill(cache, range(10))
    left, new = partial_file(cache, age_seconds=2 * HOUR), partial_file(cache, age_seconds=60, name=".aaaaaaaa.part")
    evict(cache.root, 4096)
    assert list(cache.keys("clips")) == []
    assert new.exists()
    assert not left.exists()


def test_eviction_leaves_the_files_of_others(cache, foreign):
    fill(cache, range(10))
    evict(cache.root, 1)
    assert list(cache.keys("clips")) == []
    assert all(path.read_text() == "not ours" for path in foreign)


def test_writing_keeps_the_cache_within_its_limit(tmp_path):
    cache = Cache(tmp_path, limit_bytes=100 * 4096)
    for number in range(300):
        cache.write("clips", key(number), ARRAYS)
        moment = time.time() - 10_000 + number
        os.utime(cache._path("clips", key(number)), (moment, moment))
        (usage,) = [one for one in cache.info() if one.kind == "clips"]
        assert usage.bytes <= (100 + 2) * 4096, "2 % are written before it is looked at again"
    assert cache.read("clips", key(299)) is not None
    assert cache.read("clips", key(150)) is None


def test_a_process_looks_at_the_size_at_its_first_write(cache, monkeypatch):
    fill(cache, range(50))
    monkeypatch.setattr(cache_module, "_written_bytes", {})  # as in a new process
    Cache(cache.root, limit_bytes=20 * 4096).write("clips", key(50), ARRAYS)
    assert len(list(cache.keys("clips"))) == 18


def test_an_entry_that_is_read_is_used(cache, monkeypatch):
    fill(cache, range(10), age_seconds=lambda number: 10 * HOUR - number)
    path = cache._path("clips", key(0))
    before = path.stat().st_mtime
    assert cache.read("clips", key(0)) is not None
    assert path.stat().st_mtime > before + 9 * HOUR
    evict(cache.root, 2 * 4096)
    assert list(cache.keys("clips")) == [key(0)]

    now = path.stat().st_mtime
    os.utime(path, (now - 60, now - 60))
    assert cache.read("clips", key(0)) is not None
    assert path.stat().st_mtime == pytest.approx(now - 60), "at most once an hour"

    os.utime(path, (now - 2 * HOUR, now - 2 * HOUR))

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.read("clips", key(0)) is not None


def test_a_damaged_entry_is_not_used(cache):
    fill(cache, [0], age_seconds=lambda _: 5 * HOUR)
    path = cache._path("clips", key(0))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, (1000, 1000))
    assert cache.read("clips", key(0)) is None
    assert path.stat().st_mtime == 1000


def test_a_sample_tells_the_size(cache, monkeypatch):
    fill(cache, range(600))
    assert estimate_bytes(cache.root) == 600 * 4096
    monkeypatch.setattr(cache_entries, "_SAMPLE_ENTRIES", 200)
    looked_at = []
    entries_of = cache_entries._entries_of
    monkeypatch.setattr(cache_entries, "_entries_of", lambda folder: looked_at.append(folder) or entries_of(folder))
    assert estimate_bytes(cache.root) == pytest.approx(600 * 4096, rel=0.3)
    assert len(looked_at) < 130


def _evict(root):
    for _ in range(20):
        evict(root, 50 * 4096)


def _write(root):
    cache = Cache(root, limit_bytes=50 * 4096)
    for number in range(200):
        cache.write("clips", key(number % 80), ARRAYS)
        kept = cache.read("clips", key(number % 80))
        assert kept is None or np.array_equal(kept["x"], ARRAYS["x"])


def test_two_processes_that_evict_at_once_do_no_harm(cache):
    fill(cache, range(400), age_seconds=lambda number: number + 10.0)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=task, args=(cache.root,)) for task in (_evict, _evict)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert set(cache.keys("clips")) == {key(number) for number in range(45)}, "no more than one alone removes"


def test_entries_are_written_while_another_process_evicts(cache):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=task, args=(cache.root,)) for task in (_evict, _write, _write)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    (usage,) = [one for one in cache.info() if one.kind == "clips"]
    assert 0 < usage.entries <= 52
    assert usage.partial_files == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much", "5GB"])
def test_a_limit_that_is_none_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv("CLIPACT_CACHE_GB", text)
    with pytest.raises(CacheError, match=r"CLIPACT_CACHE_GB is .*; it takes .* a number above 0"):
        Cache(tmp_path)


def test_the_limit_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("CLIPACT_CACHE_GB", raising=False)
    assert default_limit_bytes() == Cache(tmp_path).limit_bytes == 20_000_000_000
    monkeypatch.setenv("CLIPACT_CACHE_GB", "0.5")
    assert Cache(tmp_path).limit_bytes == 500_000_000
    assert Cache(tmp_path, limit_bytes=7).limit_bytes == 7
