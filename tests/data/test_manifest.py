import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipact.data.manifest import SPLITS, read_manifest, scan_manifest
from clipact.errors import ManifestError
from tests.data.drawing import write_manifest


def _write(folder, text):
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_captions_of_one_path_make_one_sample(tmp_path):
    manifest = read_manifest(
        write_manifest(
            tmp_path / "m.csv",
            {"path": "a.png", "caption": "one .", "split": "train"},
            {"path": "./b/../a.png", "caption": "two", "split": "train"},
            {"path": "b.png", "caption": " three ", "split": "test"},
        )
    )
    assert [(s.path, s.captions, s.split, s.line) for s in manifest.samples] == [
        ("a.png", ("one .", "two"), "train", 2),
        ("b.png", ("three",), "test", 4),
    ]
    assert manifest.root == tmp_path
    assert [s.path for s in manifest.of_split("test")] == ["b.png"]
    assert manifest.of_split("all") == manifest.samples
    with pytest.raises(ManifestError, match="no sample is of split 'dev'; known: all, test, train"):
        manifest.of_split("dev")


def test_parts_of_a_file_are_samples_of_their_own(tmp_path):
    text = "path,label,start_seconds,end_seconds\nv.mp4,sit,,2\nv.mp4,stand,2,4.5\nv.mp4,walk,4.5,\n"
    samples = read_manifest(_write(tmp_path, text)).samples
    assert [(s.label, s.start_seconds, s.end_seconds) for s in samples] == [
        ("sit", None, 2.0),
        ("stand", 2.0, 4.5),
        ("walk", 4.5, None),
    ]
    assert {s.split for s in samples} == {"train"}


def test_several_labels_may_be_true_of_a_sample(tmp_path):
    text = "path,label,extra_labels\nv.mp4,read,walk | sit\nw.mp4,walk,\n"
    assert [s.extra_labels for s in read_manifest(_write(tmp_path, text)).samples] == [("walk", "sit"), ()]


def test_a_line_said_twice_counts_once_and_foreign_columns_are_named(tmp_path):
    text = "\ufeffpath,caption,person\na.png,one,p0\nb.png,one,p1\na.png,one,p0\n"
    manifest = read_manifest(_write(tmp_path, text))
    assert [s.captions for s in manifest.samples] == [("one",), ("one",)]
    assert manifest.repeats == (4,)
    assert manifest.ignored == ("person",)


WRONG = {
    "path,label\n": "it has no line below its head",
    "file,label\na,b\n": "line 1: its columns are file, label; wanted are path and either caption or label",
    "path,label,caption\na,b,c\n": "wanted are path and either caption or label",
    "path,label,label\na,b,c\n": "wanted are path and either",
    "path,label,path\na,b,c\n": "a column stands twice",
    "path,label,start_second\na,b,1\n": "column 'start_second' is unknown: did you mean 'start_seconds'?",
    "path,label,split\na,b,trian\n": "line 2: split is 'trian'; did you mean 'train'?",
    "path,label\na,b\nc,  \n": "line 3: its label cannot be used",
    "path,caption\na,b\nc\n": "line 3: it has more or fewer values",
    "path,caption\na,b,c\n": "line 2: it has more or fewer values",
    "path,caption\n,b\n": "line 2: path '' names no file",
    "path,caption\nx/..,b\n": "line 2: path 'x/..' names no file",
    "path,caption\n../a,b\n": "line 2: path '../a' leads out of the root",
    "path,caption\nx/../../a,b\n": "leads out of the root",
    "path,caption\n/etc/passwd,b\n": "leads out of the root",
    "path,label\na,b\na,c\n": "line 3: label of a is 'c' here and 'b' in line 2",
    "path,caption,split\na,b,train\na,c,test\n": "line 3: split of a is 'test' here and 'train' in line 2",
    "path,label,extra_labels\na,b,c|b\n": "line 2: extra_labels is 'c|b': a label stands twice, or is the sample's own",
    "path,caption,extra_labels\na,b,c\n": "line 2: extra_labels is for labels",
    "path,label,extra_labels\na,b,c\na,b,d\n": "line 3: extra_labels of a is ('d',) here and ('c',) in line 2",
    "path,label,start_seconds\na,b,soon\n": "start_seconds is 'soon'",
    "path,label,start_seconds\na,b,-1\n": "start_seconds is -1",
    "path,label,end_seconds\na,b,nan\n": "end_seconds is nan",
    "path,label,start_seconds,end_seconds\na,b,2,2\n": "end_seconds, 2, is not after the start, 2",
    'path,label\n"a,b\n': "cannot be read as UTF-8 CSV",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text):
    with pytest.raises(ManifestError) as caught:
        read_manifest(_write(tmp_path, text))
    assert WRONG[text] in str(caught.value)
    assert str(tmp_path / "m.csv") in str(caught.value)


def test_all_that_is_wrong_is_found_and_the_rest_kept(tmp_path):
    path = _write(tmp_path, "path,label,split\na,b,train\nb,,train\nc,d,tset\nd,e,test\n")
    manifest, wrong = scan_manifest(path)
    assert [s.path for s in manifest.samples] == ["a", "d"]
    assert [error.line for error in wrong] == [3, 4]
    with pytest.raises(ManifestError, match=r"line 3.*\(and 1 more: `clipact data check` lists them\)"):
        read_manifest(path)


def test_a_missing_or_binary_file(tmp_path):
    with pytest.raises(ManifestError, match="No such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,b\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_the_error_crosses_processes():
    again = pickle.loads(pickle.dumps(ManifestError("m.csv", 3, "why")))
    assert (str(again), again.line, again.cause) == ("m.csv, line 3: why", 3, "why")


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6), st.sampled_from([*SPLITS, "x"])), min_size=1))
def test_any_table_is_read_or_refused_by_name(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "m.csv"
    write_manifest(path, *({"path": p, "caption": c, "split": s} for p, c, s in rows))
    manifest, wrong = scan_manifest(path)
    assert all(s.captions and (manifest.root / s.path).is_relative_to(manifest.root) for s in manifest.samples)
    assert all(str(path) in str(error) and 1 < error.line <= len(path.read_text().splitlines()) for error in wrong)
    said = sum(len(s.captions) for s in manifest.samples) + len(manifest.repeats) + len(wrong)
    assert said == len(rows), "every line is used, a repeat, or wrong"
