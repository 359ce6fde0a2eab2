import io
import json
import os
import time

import numpy as np
import pytest

from clipact.cache import Cache, content_key
from clipact.cache_entries import KINDS

DAY_SECONDS = 86_400


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A cache of six entries: three clips of 0, 10 and 20 days, three texts of the same ages."""
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPACT_CACHE_GB", "0.5")
    made = Cache()
    for kind in ("clips", "text"):
        for number in range(3):
            key = content_key(str(number))
            made.write(kind, key, {"x": np.zeros(10, np.float32)})
            used = time.time() - number * 10 * DAY_SECONDS - 1
            os.utime(made._path(kind, key), (used, used))
    return made


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_info_says_where_it_is_what_bounds_it_and_what_it_holds(clipact, store):
    (store.root / "text" / "ab").mkdir(exist_ok=True)
    (store.root / "text" / "ab" / ".abcdefgh.part").write_bytes(b"half")
    done = clipact("cache", "info")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"{store.root}  (CLIPACT_CACHE moves it)"
    assert lines[1] == "29 kB of 500.0 MB  (CLIPACT_CACHE_GB bounds it)"
    assert max(map(len, lines[1:])) <= 80
    (row,) = [line.split() for line in lines if line.split()[:1] == ["clips"]]
    today = time.strftime("%Y-%m-%d", time.localtime(time.time() - 1))
    assert row[1:4] == ["3", "12", "kB"]
    assert row[5] == today
    kept = {usage.kind for usage in store.info() if usage.entries}
    assert kept < set(KINDS)
    assert {line.split()[0] for line in lines[4:] if line[1:2].isalpha()} == kept
    assert "1 files (4 kB) are being written, or were left by a kill" in done.out


def test_info_for_machines(clipact, store):
    facts = json.loads(clipact("cache", "info", "--json").out)
    assert facts["folder"] == str(store.root)
    assert facts["limit_bytes"] == 500_000_000
    assert facts["bytes"] == 6 * 4096
    assert {kind["kind"]: kind["entries"] for kind in facts["kinds"]} == dict.fromkeys(KINDS, 0) | {
        "clips": 3,
        "text": 3,
    }


def test_the_cache_need_not_be_there(clipact, monkeypatch, tmp_path):
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "none"))
    assert clipact("cache", "info").code == 0
    assert clipact("cache", "clear", "--yes").out == "removed 0 entries: 0 kB\n"
    assert not (tmp_path / "none").exists()


def test_clear_removes_what_is_named(clipact, store):
    assert clipact("cache", "clear", "--kind", "clips", "--older-than", "15").out == "removed 1 entries: 4 kB\n"
    assert len(list(store.keys("clips"))) == 2
    assert len(list(store.keys("text"))) == 3
    assert clipact("cache", "clear", "--older-than", "5").out == "removed 3 entries: 12 kB\n"
    assert clipact("cache", "clear").out == "removed 2 entries: 8 kB\n"


@pytest.mark.parametrize(("answer", "left"), [("n\n", 3), ("", 3), ("y\n", 0)])
def test_in_a_terminal_it_asks(clipact, store, monkeypatch, answer, left):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    done = clipact("cache", "clear", "--kind", "text")
    assert f"Remove everything of kind text from {store.root}?" in done.err.replace("\n", "")
    assert len(list(store.keys("text"))) == left
    assert len(list(store.keys("clips"))) == 3
    assert done.code == (1 if left else 0)
    assert done.out == ("" if left else "removed 3 entries: 12 kB\n")


def test_yes_does_not_ask(clipact, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal(""))
    assert clipact("cache", "clear", "--yes").out == "removed 6 entries: 25 kB\n"


def test_an_unknown_kind_is_refused(clipact, store):
    done = clipact("cache", "clear", "--kind", "clip", "--yes")
    assert done.code == 2
    assert "did you mean 'clips'?" in done.err
    assert len(list(store.keys("clips"))) == 3


def test_a_limit_that_is_none_is_said(clipact, store, monkeypatch):
    monkeypatch.setenv("CLIPACT_CACHE_GB", "lots")
    done = clipact("cache", "info")
    assert done.code == 1
    assert "CLIPACT_CACHE_GB is 'lots'" in done.err


def test_help_names_the_variables(clipact):
    assert "CLIPACT_CACHE_GB" in clipact("cache", "--help").out
    assert "CLIPACT_CACHE_GB" in clipact("--help").out
