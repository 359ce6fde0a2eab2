"""A run that is killed goes on, and what it finds is what it would have found, bit for bit."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from clipact.cache import Cache
from clipact.embed import embed_clips as room
from clipact.errors import ResultError
from clipact.evaluate import EvalOptions, evaluate, manifest_protocol, read_samples
from clipact.evaluate.results import identical
from clipact.evaluate.run_protocol import run_protocol
from clipact.models.zoo import load_model


@pytest.fixture
def samples(tree):
    return read_samples(manifest_protocol(tree / "table.csv"), tree)


class Stopped(Exception):  # noqa: N818
    pass


def stop_after(count):
    def progress(items, total, description):
        for number, item in enumerate(items):
            if number == count:
                raise Stopped
            yield item

    return progress


@pytest.mark.parametrize("after", [0, 1, 7, 13])
@pytest.mark.parametrize("frames_at_once", [4, 12])
def test_stopped_anywhere_it_ends_identical(classifier, samples, tmp_path, after, frames_at_once, monkeypatch):
    whole = evaluate(
        classifier, samples, options=EvalOptions(cache=Cache(tmp_path / "one"), frames_at_once=frames_at_once)
    )
    options = {"cache": Cache(tmp_path / "two"), "journal": tmp_path / "journal", "frames_at_once": frames_at_once}
    others = set(threading.enumerate())
    with pytest.raises(Stopped):
        evaluate(classifier, samples, options=EvalOptions(progress=stop_after(after), **options))
    for thread in set(threading.enumerate()) - others:  # what it had begun to decode is not the next run's
        thread.join()
    decoded = []
    real = room.collect_frames
    monkeypatch.setattr(room, "collect_frames", lambda path, *a, **k: decoded.append(path) or real(path, *a, **k))
    resumed = evaluate(classifier, samples, options=EvalOptions(resume=True, **options))
    assert identical(whole, resumed)
    assert resumed.run["data"]["files_sha256"] == whole.run["data"]["files_sha256"]
    assert len(decoded) <= 14 - after


def test_a_torn_record_is_cut_off_and_found_again(classifier, samples, tmp_path):
    journal = tmp_path / "journal"
    whole = evaluate(classifier, samples, options=EvalOptions(journal=journal))
    raw = journal.read_bytes()
    for cut in (len(raw) - 1, len(raw) // 2, 120, 40, 3, 0):
        journal.write_bytes(raw[:cut])
        assert identical(evaluate(classifier, samples, options=EvalOptions(journal=journal, resume=True)), whole)
        assert journal.read_bytes() == raw


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 2, 3], [0, 0, 1, 2, 3], [0, 1, 1, 2]])
def test_records_that_do_not_follow_each_other_give_no_vector_to_another_sample(classifier, samples, tmp_path, order):
    """Two processes that write one journal: what is out of its place is found again, not taken for its neighbour."""
    journal = tmp_path / "journal"
    options = EvalOptions(journal=journal, frames_at_once=12)
    whole = evaluate(classifier, samples, options=options)
    raw = journal.read_bytes()
    cuts = [raw.index(b"\n", raw.index(b"\n") + 1) + 1]
    while cuts[-1] < len(raw):
        cuts.append(cuts[-1] + 40 + int.from_bytes(raw[cuts[-1] : cuts[-1] + 8], "little"))
    records = [raw[start:end] for start, end in pairwise(cuts)]
    journal.write_bytes(raw[: cuts[0]] + b"".join(records[i] for i in order))
    assert identical(evaluate(classifier, samples, options=replace(options, resume=True)), whole)
    assert journal.read_bytes() == raw


def test_without_resume_it_begins_anew(classifier, samples, tmp_path):
    journal = tmp_path / "journal"
    journal.write_bytes(b"anything")
    evaluate(classifier, samples, options=EvalOptions(journal=journal))
    assert journal.read_bytes().startswith(b"clipact embedding journal")


def test_the_journal_of_another_run_is_refused(classifier, samples, tmp_path):
    journal = tmp_path / "journal"
    evaluate(classifier, samples, options=EvalOptions(journal=journal))
    with pytest.raises(ResultError, match="another run"):
        evaluate(classifier, samples, averaging="logits", options=EvalOptions(journal=journal, resume=True))


CHILD = """
import sys, time
from pathlib import Path
from clipact.evaluate import EvalOptions, manifest_protocol, read_samples
from clipact.evaluate.run_protocol import run_protocol
from clipact.cache import Cache
from clipact.models.zoo import load_model
tree, model, work = map(Path, sys.argv[1:])
def slowly(items, total, description):
    for item in items:
        time.sleep(0.15)
        yield item
protocol = manifest_protocol(tree / "table.csv")
run_protocol(protocol, read_samples(protocol, tree), load_model(str(model), device="cpu"), work / "out",
             options=EvalOptions(cache=Cache(work / "cache"), progress=slowly))
"""


def test_killed_with_signal_nine_it_ends_identical(samples, tree, tiny, tmp_path):
    """What `clipact eval` does, killed while its journal grows, and gone on with."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tree), str(tiny), str(tmp_path)])
    journal, grown = tmp_path / "out/table--tiny.journal", 0
    deadline = time.monotonic() + 120
    while grown < 1000 and time.monotonic() < deadline:
        assert child.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
        grown = journal.stat().st_size if journal.exists() else 0
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert grown >= 1000
    protocol, model = manifest_protocol(tree / "table.csv"), load_model(str(tiny), device="cpu")
    options, seen = EvalOptions(cache=Cache(tmp_path / "cache"), resume=True), []
    result, folder = run_protocol(protocol, samples, model, tmp_path / "out", options=options)
    assert [path.name for path in folder.parent.iterdir()] == ["table--tiny"]
    assert identical(result, run_protocol(protocol, samples, model, tmp_path / "whole")[0])
    watched = replace(options, progress=lambda items, *_: seen.append(1) or items)
    assert identical(run_protocol(protocol, samples, model, tmp_path / "out", options=watched)[0], result)
    assert not seen  # what is done is not done again
