"""The journal keeps what was embedded, bit for bit, through kills, torn records and other runs' files."""

import os
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.clip_spec import FrameStamp
from clipact.embed.journal import Journal
from clipact.embed.video_embedding import VideoEmbedding
from clipact.errors import ResultError
from tests.embed.straight_loop import everything

RUN = "ab" * 32


def found(number, *, width=6):
    """What was found of a row: embeddings, features, both or neither, by its number."""
    draw = np.random.default_rng(number)
    name = f"folder/v {number} é\n.mp4"
    if number % 4 == 3:
        return VideoEmbedding(name=name, cause="no such file: \udce9", digest="", span=(0.5, None))
    features = draw.standard_normal((2, 3, width)).astype(np.float32)
    features[0, 0, :3] = (-0.0, np.float32(1e-45), np.nan)
    return VideoEmbedding(
        name=name,
        embeddings=draw.standard_normal((2, width)).astype(np.float32) if number % 4 != 1 else None,
        features=features if number % 4 != 0 else None,
        digest="cd" * 32,
        notes=("some repeat", "1 of 4 frames are damaged"),
        decoder="pyav",
        duration_seconds=None if number % 2 else 1 / 3,
        stamps=((FrameStamp(number, 0.1 * number), FrameStamp(7, 1 / 3)), (FrameStamp(1, 2.0),)),
        span=(None, None) if number % 2 else (1 / 7, 2 / 7),
    )


UNITS = [[found(number) for number in unit] for unit in ([0, 1], [2, 3], [4, 5], [6])]


def write(path, units=UNITS, identity=RUN):
    journal = Journal(path, identity)
    journal.start()
    for unit in units:
        journal.append(unit)
    return path.read_bytes()


def resumed(path, identity=RUN):
    journal = Journal(path, identity)
    count = journal.resume()
    units = list(journal.read())
    assert sum(map(len, units)) == count
    return journal, units


def same(units, expected):
    return [everything(unit) for unit in units] == [everything(unit) for unit in expected]


def records(raw):
    """Where the head ends, and where each record does."""
    cuts = [raw.index(b"\n", raw.index(b"\n") + 1) + 1]
    while cuts[-1] < len(raw):
        cuts.append(cuts[-1] + 40 + int.from_bytes(raw[cuts[-1] : cuts[-1] + 8], "little"))
    return cuts


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    write(tmp_path / "journal")
    _, units = resumed(tmp_path / "journal")
    assert same(units, UNITS)
    units[0][0].embeddings[:] = 0  # they are arrays of one's own


def test_a_journal_that_is_not_there_is_begun(tmp_path):
    journal, units = resumed(tmp_path / "folder" / "journal")
    assert units == []
    journal.append(UNITS[0])
    assert same(resumed(tmp_path / "folder" / "journal")[1], UNITS[:1])


def test_cut_at_any_byte_it_goes_on_and_ends_the_same(tmp_path):
    path = tmp_path / "journal"
    whole = write(path)
    cuts = records(whole)
    near = {cut + step for cut in cuts for step in (-1, 0, 1, 7, 8, 39, 40, 41)}
    for size in sorted(near.intersection(range(len(whole))) | set(range(0, len(whole), 61)) | set(range(40))):
        path.write_bytes(whole[:size])
        journal, units = resumed(path)
        there = sum(cut <= size for cut in cuts[1:])
        assert same(units, UNITS[:there])
        for unit in UNITS[there:]:
            journal.append(unit)
        assert path.read_bytes() == whole


@given(st.data())
def test_one_wrong_byte_ends_what_is_taken(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    whole = write(path)
    cuts = records(whole)
    place = data.draw(st.integers(cuts[0], len(whole) - 1))
    wrong = bytearray(whole)
    wrong[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(wrong)
    journal, units = resumed(path)
    good = sum(cut <= place for cut in cuts[1:])
    assert same(units, UNITS[:good])
    assert path.stat().st_size == cuts[good]
    journal.append(UNITS[good])
    assert same(resumed(path)[1], UNITS[: good + 1])


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 4096, (2**40).to_bytes(8, "little") + bytes(100)])
def test_what_a_power_cut_left_behind_is_cut_off(tmp_path, tail):
    """Zeros, or bytes of another file: no length in them is believed."""
    path = tmp_path / "journal"
    whole = write(path)
    path.write_bytes(whole + tail)
    assert same(resumed(path)[1], UNITS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 2, 3], [0, 0, 1, 2, 3], [0, 1, 1, 2], [3]])
def test_records_that_do_not_follow_each_other_end_what_is_taken(tmp_path, order):
    """Two processes wrote one file: no row gets its neighbour's embedding."""
    path = tmp_path / "journal"
    whole = write(path)
    cuts = records(whole)
    parts = [whole[start:end] for start, end in pairwise(cuts)]
    path.write_bytes(whole[: cuts[0]] + b"".join(parts[i] for i in order))
    good = next((place for place, number in enumerate(order) if number != place), len(order))
    journal, units = resumed(path)
    assert same(units, UNITS[:good])
    for unit in UNITS[good:]:
        journal.append(unit)
    assert path.read_bytes() == whole


def test_the_journal_of_another_run_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "journal"
    for other in (write(path, identity="ef" * 32), b"clipact embedding journal 2\n", b"something else", b"x"):
        path.write_bytes(other)
        with pytest.raises(ResultError, match="another run"):
            Journal(path, RUN).resume()
        assert path.read_bytes() == other
    Journal(path, RUN).start()
    assert resumed(path)[1] == []


def test_a_place_that_cannot_be_written_says_which(tmp_path):
    (tmp_path / "file").write_text("")
    for refused in (lambda journal: journal.start(), lambda journal: journal.resume()):
        with pytest.raises(ResultError, match="name another place with --out"):
            refused(Journal(tmp_path / "file" / "journal", RUN))
    journal = Journal(tmp_path / "journal", RUN)
    journal.start()
    os.unlink(tmp_path / "journal")
    (tmp_path / "journal").mkdir()
    with pytest.raises(ResultError, match="journal cannot be used"):
        journal.append(UNITS[0])


def test_a_resume_never_holds_the_whole_file(tmp_path):
    """32 MB in records of 1 MB are counted and read with memory for a few records."""
    path = tmp_path / "journal"
    one = found(0, width=131_072)
    write(path, [[one]] * 32)
    assert path.stat().st_size > 32e6
    tracemalloc.start()
    try:
        journal = Journal(path, RUN)
        assert journal.resume() == 32
        counted = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        rows = sum(len(unit) for unit in journal.read())
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 32
    assert max(counted, read) < 8e6
