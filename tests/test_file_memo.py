import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipact.file_memo import FileMemo


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "a", "one")


def write(path, text, *, seconds_ago=100.5):
    path.write_text(text)
    at = time.time() - seconds_ago
    os.utime(path, (at, at))
    return path


class Reader:
    """Reads files, and counts how often."""

    def __init__(self):
        self.read = []

    def __call__(self, memo, path, about=""):
        def compute():
            self.read.append(path)
            return path.read_text()

        return memo.recall(path, compute, about=about)


def test_a_file_is_read_once_under_all_of_its_names(file, monkeypatch):
    memo, read = FileMemo(10), Reader()
    (file.parent / "link").symlink_to(file)
    monkeypatch.chdir(file.parent)
    names = [file, file.parent / "link", file.relative_to(file.parent), file.parent / "x" / ".." / "a"]
    assert [read(memo, name) for name in names] == ["one"] * 4
    assert len(read.read) == 1
    assert read(memo, file, about="another thing") == "one"
    assert len(read.read) == 2


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_read_again(file, change):
    memo, read = FileMemo(10), Reader()
    assert read(memo, file) == "one"
    before = file.stat()
    if change == "size":
        file.write_text("longer")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        write(file, "two", seconds_ago=50.5)
    else:
        other = file.with_name("b")
        other.write_text("two")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(file)
    assert read(memo, file) == file.read_text() != "one"
    assert len(read.read) == 2


def test_what_may_change_without_a_trace_is_not_remembered(file):
    memo, read = FileMemo(10), Reader()
    now = time.time_ns()
    for stamp in (now - 10**6, (now // 10**9 - 1) * 10**9):  # a millisecond ago; of a clock that counts seconds
        for text in ("two", "six"):
            file.write_text(text)
            os.utime(file, ns=(stamp, stamp))
            assert read(memo, file) == text


def test_a_file_that_changes_while_it_is_read_is_not_remembered(file):
    memo = FileMemo(10)

    def compute():
        text = file.read_text()
        write(file, "two", seconds_ago=50.5)
        return text

    before = file.stat().st_mtime_ns
    assert memo.recall(file, compute) == "one"
    write(file, "six")
    os.utime(file, ns=(before, before))
    assert memo.recall(file, file.read_text) == "six"


def test_errors_are_not_remembered(file):
    memo, read = FileMemo(10), Reader()
    with pytest.raises(ValueError, match="spoilt"):
        memo.recall(file, lambda: (_ for _ in ()).throw(ValueError("spoilt")))
    assert read(memo, file) == "one"
    with pytest.raises(FileNotFoundError):
        read(memo, file.with_name("missing"))


def test_many_threads_wait_for_one(file):
    memo, begun, go, read = FileMemo(10), threading.Event(), threading.Event(), []

    def compute():
        read.append(1)
        begun.set()
        assert go.wait(20)
        return file.read_text()

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(memo.recall, file, compute)
        assert begun.wait(20)
        others = [pool.submit(memo.recall, file, compute) for _ in range(7)]
        time.sleep(0.05)
        assert not any(other.done() for other in others)
        go.set()
        assert [one.result(20) for one in (first, *others)] == ["one"] * 8
    assert len(read) == 1


def test_who_waited_for_what_failed_tries_too(file):
    memo, begun, go = FileMemo(10), threading.Event(), threading.Event()

    def fail():
        begun.set()
        assert go.wait(20)
        raise ValueError("spoilt")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(memo.recall, file, fail)
        assert begun.wait(20)
        second = pool.submit(memo.recall, file, file.read_text)
        time.sleep(0.05)
        go.set()
        with pytest.raises(ValueError, match="spoilt"):
            first.result(20)
        assert second.result(20) == "one"


def test_what_was_not_asked_for_the_longest_is_forgotten(tmp_path):
    memo, read = FileMemo(10, len), Reader()
    a, b, c = (write(tmp_path / name, text) for name, text in (("a", "aaaa"), ("b", "bbbb"), ("c", "cccc")))
    for path in (a, b, a, c):  # c does not fit beside both: b goes
        read(memo, path)
    assert read.read == [a, b, c]
    read(memo, a)
    read(memo, c)
    assert read.read == [a, b, c]
    read(memo, b)
    assert read.read == [a, b, c, b]
    large = write(tmp_path / "d", "d" * 50)
    for _ in range(2):  # larger than all that may be held: held alone
        read(memo, large)
    read(memo, b)
    assert read.read == [a, b, c, b, large, b]
