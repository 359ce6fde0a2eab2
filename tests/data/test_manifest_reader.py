import csv
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipact.data.manifest import (
    ManifestSample,
    count_rows,
    iterate_manifest,
    open_manifest,
    read_manifest,
    scan_manifest,
)
from clipact.errors import ManifestError
from tests.data.drawing import write_manifest

LABELLED = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["a", "./a", "b", "x/../b", "c", "..", ""]),
        "label": st.sampled_from(["sit", " sit", "stand", ""]),
        "extra_labels": st.sampled_from(["", "", "walk", "walk|run", "sit"]),
        "split": st.sampled_from(["train", "train", "test", "tset"]),
        "start_seconds": st.sampled_from(["", "0", "1", "-1", "soon"]),
        "end_seconds": st.sampled_from(["", "1", "2.5"]),
    }
)
CAPTIONED = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["a", "b", "c/d", "/c"]),
        "caption": st.sampled_from(["one", "one ", "two", "three, four\nfive", "\0"]),
        "split": st.sampled_from(["train", "train", "val", "none"]),
    }
)


def _by_dicts(path):
    """Samples, repeats and wrong lines of a table that is wholly in memory: each row is first read as a table alone."""
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows = [(table.line_num, row) for row in table]
    alone = path.with_name("alone.csv")
    firsts, captions, repeats, wrong = {}, {}, [], []
    for line, row in rows:
        write_manifest(alone, row)
        try:
            (sample,) = read_manifest(alone).samples
        except ManifestError as error:
            wrong.append((line, error.cause))
            continue
        key = (sample.path, sample.start_seconds, sample.end_seconds)
        at, first = firsts.setdefault(key, (line, sample))
        said = captions.setdefault(key, [])
        for name in ("split", "label", "extra_labels"):
            if (now := getattr(sample, name)) != (before := getattr(first, name)):
                wrong.append((line, f"{name} of {key[0]} is {now!r} here and {before!r} in line {at}; it has one"))
                break
        else:
            new = [caption for caption in sample.captions if caption not in said]
            said += new
            if at != line and not new:
                repeats.append(line)
    samples = [(line, sample, tuple(captions[key])) for key, (line, sample) in firsts.items()]
    return samples, repeats, wrong


def _facts(sample):
    return (
        sample.path,
        sample.label,
        sample.split,
        sample.start_seconds,
        sample.end_seconds,
        sample.extra_labels,
        sample.group,
    )


@settings(max_examples=40)
@given(st.lists(LABELLED, min_size=1, max_size=12) | st.lists(CAPTIONED, min_size=1, max_size=12))
def test_line_by_line_all_is_found_that_a_whole_table_shows(tmp_path_factory, rows):
    path = write_manifest(tmp_path_factory.mktemp("any") / "m.csv", *rows)
    samples, repeats, wrong = _by_dicts(path)
    manifest, found = scan_manifest(path)
    assert [(error.line, error.cause) for error in found] == wrong
    assert manifest.repeats == tuple(repeats)
    assert [(s.line, _facts(s), s.captions) for s in manifest.samples] == [
        (line, _facts(sample), captions) for line, sample, captions in samples
    ]
    streamed = list(iterate_manifest(path))
    assert [one.line for one in streamed] == sorted(one.line for one in (*manifest.samples, *found))
    firsts = [one for one in streamed if isinstance(one, ManifestSample)]
    assert [(s.line, _facts(s), s.captions) for s in firsts] == [
        (line, _facts(sample), captions[:1]) for line, sample, captions in samples
    ]
    assert [(e.line, e.cause) for e in streamed if isinstance(e, ManifestError)] == wrong
    assert count_rows(path) == len(rows)


def test_samples_come_before_the_rest_of_the_file_is_read(tmp_path):
    """What is wrong at the end of a long table is not known when its first sample comes."""
    path = tmp_path / "m.csv"
    path.write_bytes(b"path,label\n" + b"a,x\n" * 10_000 + b"\xff,x\n")
    lines = iterate_manifest(path)
    assert next(lines).path == "a"
    with pytest.raises(ManifestError, match="it cannot be read as UTF-8 CSV"):
        list(lines)
    with pytest.raises(ManifestError, match="it cannot be read as UTF-8 CSV"):
        count_rows(path)


def test_strings_that_repeat_are_in_memory_once(tmp_path):
    rows = [{"path": "folder/a.mp4", "label": "sit down", "start_seconds": i, "who": "person 1"} for i in range(3)]
    with open_manifest(write_manifest(tmp_path / "m.csv", *rows), group_column="who") as reader:
        samples = list(reader.samples())
    for name in ("path", "label", "split", "group"):
        assert len({id(getattr(sample, name)) for sample in samples}) == 1, name


def test_rows_are_counted_as_they_are_read(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('path,caption\n\na,"two\nlines"\nb,one\n\n')
    assert count_rows(path) == 2
    assert [sample.line for sample in iterate_manifest(path)] == [4, 5]
    path.write_text("path,caption\n")
    assert count_rows(path) == 0
    with pytest.raises(ManifestError, match="No such file"):
        count_rows(tmp_path / "none.csv")


def test_a_pipe_is_read_once_and_not_counted(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert count_rows(pipe) is None
    writer = threading.Thread(target=pipe.write_text, args=("path,label\na,x\nb,y\n",))
    writer.start()
    assert [sample.path for sample in iterate_manifest(pipe, tmp_path)] == ["a", "b"]
    writer.join()


def test_the_reader_tells_the_root_and_the_columns_that_are_not_ours(tmp_path):
    path = write_manifest(tmp_path / "m.csv", {"path": "a", "label": "x", "weather": "fine"})
    with open_manifest(path) as reader:
        assert (reader.source, reader.root, reader.ignored) == (path, tmp_path, ("weather",))
    with open_manifest(path, "elsewhere") as reader:
        assert str(reader.root) == "elsewhere"
