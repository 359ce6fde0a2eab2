import multiprocessing
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.cache import Cache, content_key, default_root
from clipact.errors import CacheError

KEY = content_key("a", "b")


def test_what_was_written_is_read(tmp_path):
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array([1], dtype=np.int64)}
    cache = Cache(tmp_path)
    assert cache.read("text", KEY) is None
    cache.write("text", KEY, arrays)
    kept = Cache(tmp_path).read("text", KEY)
    assert kept.keys() == arrays.keys()
    for name, array in arrays.items():
        assert kept[name].dtype == array.dtype
        np.testing.assert_array_equal(kept[name], array)


def test_a_transposed_array_keeps_its_values(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    Cache(tmp_path).write("text", KEY, {"x": array})
    np.testing.assert_array_equal(Cache(tmp_path).read("text", KEY)["x"], array)


@given(st.lists(st.text(), min_size=2), st.data())
def test_a_key_tells_parts_apart(parts, data):
    at = data.draw(st.integers(0, len(parts) - 2))
    joined = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]
    assert content_key(*parts) != content_key(*joined)
    assert content_key(*parts) == content_key(*parts)


@pytest.mark.parametrize("cut", [0, 1, 31, 40, 60, -1])
def test_a_damaged_entry_is_absent_and_can_be_written_again(tmp_path, cut):
    cache = Cache(tmp_path)
    cache.write("text", KEY, {"x": np.ones(4)})
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    path.write_bytes(path.read_bytes()[:cut])
    assert cache.read("text", KEY) is None
    cache.write("text", KEY, {"x": np.ones(4)})
    assert cache.read("text", KEY) is not None


def test_a_flipped_bit_is_noticed(tmp_path):
    cache = Cache(tmp_path)
    cache.write("text", KEY, {"x": np.ones(4)})
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert cache.read("text", KEY) is None


def _write_and_read(root: str, number: int) -> bool:
    cache = Cache(root)
    expected = np.arange(50_000, dtype=np.float32)
    for _ in range(40):
        cache.write("text", KEY, {"x": expected})
        kept = cache.read("text", KEY)
        if kept is None or not np.array_equal(kept["x"], expected):
            return False
    return True


def test_two_processes_writing_the_same_entry_never_meet_half_of_one(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_write_and_read, [(str(tmp_path), 0), (str(tmp_path), 1)]) == [True, True]
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1, "no temporary file stays behind"


def test_a_folder_that_cannot_be_used_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    with pytest.raises(CacheError, match="CLIPACT_CACHE"):
        cache.write("text", KEY, {"x": np.ones(1)})


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "a"))
    assert default_root() == tmp_path / "a"
    monkeypatch.delenv("CLIPACT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_root() == tmp_path / "b" / "clipact"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "clipact"
    assert os.environ["HOME"] == str(tmp_path)
