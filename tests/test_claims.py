"""An entry that several want is computed once: among processes, threads and forked children, and after a kill."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from clipact import claims
from clipact.cache import Cache, content_key
from clipact.claims import ClaimFile, claim_file

KEY = content_key("claimed")
PATIENCE_SECONDS = 60.0
SPAWN = multiprocessing.get_context("spawn")

# Holds the claim, says so, and goes when it is told to.
_HOLDER = """
import sys
from pathlib import Path
from clipact.claims import claim_file
with claim_file(Path(sys.argv[1])).claim(sys.argv[2:], timeout_seconds=60.0) as held:
    print(len(held), flush=True)
    sys.stdin.read(1)
"""


def _compute_once(root, log, together):
    cache = Cache(root, limit_bytes=10**9)
    together.wait(PATIENCE_SECONDS)
    if (kept := cache.read("clips", KEY)) is None:
        with cache.claim("clips", KEY):
            if (kept := cache.read("clips", KEY)) is None:
                with open(log, "a") as file:  # noqa: PTH123
                    file.write("computed\n")
                time.sleep(0.3)
                kept = {"x": np.arange(3)}
                cache.write("clips", KEY, kept)
    assert kept["x"].tolist() == [0, 1, 2]


@pytest.fixture
def holder(tmp_path):
    """Another process that holds names in a claim file, by default that of `tmp_path`."""
    with contextlib.ExitStack() as stack:

        def start(*names, path=tmp_path / "claims"):
            command = [sys.executable, "-c", _HOLDER, str(path), *names]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout.readline().strip() == str(len(names))
            return process

        yield start


def held_elsewhere(path, name):
    """Whether another process finds the name held."""
    script = _HOLDER.replace("60.0", "0.0")
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), name], input="x", capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "0"


@pytest.mark.parametrize("start", ["threads", "processes"])
def test_a_cold_entry_is_computed_once(tmp_path, start):
    log = tmp_path / "log"
    kind, barrier = (threading.Thread, threading.Barrier) if start == "threads" else (SPAWN.Process, SPAWN.Barrier)
    count = 3
    together = barrier(count)
    workers = [kind(target=_compute_once, args=(tmp_path / "cache", log, together)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert log.read_text() == "computed\n"


def test_without_claims_it_is_computed_twice(tmp_path, monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(Cache, "claim", lambda *_: contextlib.nullcontext())
    together = threading.Barrier(2)
    workers = [threading.Thread(target=_compute_once, args=(tmp_path, tmp_path / "log", together)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert (tmp_path / "log").read_text() == "computed\n" * 2


def test_a_killed_holder_lets_the_others_go_on_at_once(tmp_path, holder):
    process, found = holder("a"), []

    def wait():
        with claim_file(tmp_path / "claims").claim(["a"], timeout_seconds=PATIENCE_SECONDS) as held:
            found.append((held, time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    assert not found
    killed = time.monotonic()
    process.send_signal(signal.SIGKILL)
    waiting.join(PATIENCE_SECONDS)
    ((held, when),) = found
    assert held == {"a"}
    assert when - killed < PATIENCE_SECONDS / 4


def test_other_names_are_free(tmp_path, holder):
    holder("a", "c")
    with claim_file(tmp_path / "claims").claim(["a", "b", "b", "c", "d"], timeout_seconds=0.0) as held:
        assert held == {"b", "d"}
        assert held_elsewhere(tmp_path / "claims", "b")
    assert not held_elsewhere(tmp_path / "claims", "b")


def test_after_the_timeout_the_block_is_run_without(tmp_path, holder):
    holder(f"clips/{KEY}", path=tmp_path / "claims")
    begun = time.monotonic()
    with Cache(tmp_path).claim("clips", KEY, timeout_seconds=0.2) as held:
        assert not held
    assert time.monotonic() - begun >= 0.2
    with Cache(tmp_path).claim_all("clips", [KEY, "0" * 64], timeout_seconds=0.0) as names:
        assert names == {"0" * 64}
    with Cache(tmp_path).claim("text", KEY, timeout_seconds=0.0) as held:
        assert held, "another kind is another entry"


def test_threads_of_one_process_wait_for_each_other(tmp_path):
    inside, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(20):
            with claim_file(tmp_path / "claims").claim(["a"], timeout_seconds=PATIENCE_SECONDS) as held:
                assert held
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with lock:
                    inside -= 1

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert (inside, most) == (0, 1)


def test_a_thread_that_gives_up_leaves_the_holder_its_lock(tmp_path):
    claimed = claim_file(tmp_path / "claims")
    with claimed.claim(["a"], timeout_seconds=1.0):
        found = []

        def attempt():
            with claim_file(tmp_path / "claims").claim(["a", "b"], timeout_seconds=0.0) as held:
                found.append(held)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(PATIENCE_SECONDS)
        assert found == [{"b"}]
        assert held_elsewhere(tmp_path / "claims", "a")
    assert not held_elsewhere(tmp_path / "claims", "a")


def test_an_error_in_the_block_gives_the_claim_back(tmp_path):
    with pytest.raises(KeyError), Cache(tmp_path).claim("clips", KEY):
        raise KeyError
    with Cache(tmp_path).claim("clips", KEY, timeout_seconds=0.0) as held:
        assert held
    assert not held_elsewhere(tmp_path / "claims", f"clips/{KEY}")


def _claim_in_child(path, name, queue):
    with claim_file(path).claim([name], timeout_seconds=0.0) as held:
        queue.put(len(held))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_no_claim_of_its_parent(tmp_path):
    path, context = tmp_path / "claims", multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def fork(name):
        child = context.Process(target=_claim_in_child, args=(path, name, queue))
        child.start()
        child.join(PATIENCE_SECONDS)
        return queue.get()

    with claim_file(path).claim(["a"], timeout_seconds=0.0):
        assert fork("a") == 0, "the parent has it"
        assert fork("b") == 1
        assert held_elsewhere(path, "a"), "the end of a child takes nothing from the parent"
    assert fork("a") == 1, "nor does a child remember what the parent held"


def test_two_who_want_the_same_several_do_not_wait_for_each_other(tmp_path):
    together, done = threading.Barrier(2), []

    def work(names):
        together.wait(PATIENCE_SECONDS)
        for _ in range(50):
            with Cache(tmp_path).claim_all("clips", names, timeout_seconds=PATIENCE_SECONDS) as held:
                assert len(held) == 20
        done.append(True)

    names = [content_key(str(number)) for number in range(20)]
    workers = [threading.Thread(target=work, args=(order,)) for order in (names, names[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert done == [True, True]


def test_one_descriptor_is_kept_whatever_is_claimed(tmp_path):
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    for number in range(10):
        with Cache(tmp_path).claim("clips", content_key(str(number))):
            pass
    assert len(os.listdir("/dev/fd")) == before + 1  # noqa: PTH208
    (tmp_path / "link").symlink_to(tmp_path)
    assert claim_file(tmp_path / "claims") is claim_file(tmp_path / "link" / "claims")


@pytest.mark.parametrize("missing", ["module", "locks", "folder"])
def test_without_locks_threads_still_wait_and_processes_go_on(tmp_path, monkeypatch, holder, missing):
    path = tmp_path / "claims"
    holder("a")
    if missing == "module":
        monkeypatch.setattr(claims, "fcntl", None)
    elif missing == "locks":

        def refuse(*_):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(claims.fcntl, "lockf", refuse)
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "claims"
    claimed = ClaimFile(path)
    begun = time.monotonic()
    with claimed.claim(["a"], timeout_seconds=PATIENCE_SECONDS) as held:
        assert held == {"a"}
        with claimed.claim(["a"], timeout_seconds=0.0) as again:
            assert not again
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2


def test_offsets_are_ones_that_can_be_locked(tmp_path):
    names = [f"clips/{content_key(str(number))}" for number in range(2000)]
    offsets = {claims._offset(name) for name in names}
    assert len(offsets) == 2000
    assert 0 <= min(offsets) < 2**57
    assert 2**62 < max(offsets) < 2**63 - 1
    with claim_file(tmp_path / "claims").claim(names, timeout_seconds=0.0) as held:
        assert held == set(names)
        assert held_elsewhere(tmp_path / "claims", names[1234])
