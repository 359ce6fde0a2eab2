import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from clipact.clip_spec import ClipSpec
from clipact.data.check import DataCheck, check_manifest
from clipact.data.fingerprint import Fingerprint, take_fingerprint
from clipact.data.held_out import HeldOutFile, find_near_duplicates
from clipact.data.manifest import scan_manifest
from clipact.errors import ManifestError, VideoError
from clipact.video.load import load_clip, load_clips
from tests.data.drawing import blocks, draw_picture, write_manifest
from tests.video.drawing import draw_video


def test_a_good_manifest_has_no_findings(data):
    report = check_manifest(data / "pictures.csv")
    assert report.findings == ()
    assert (report.splits, report.captions, report.labels) == ({"train": 10, "test": 2}, 24, {})
    clips = check_manifest(data / "clips.csv")
    assert clips.findings == ()
    assert clips.labels == {"waving": 2, "bending": 1}


def test_everything_wrong_is_found_in_the_order_of_lines(data, tmp_path):
    shutil.copy(data / "clips/0.mp4", tmp_path / "short.mp4")
    draw_picture(tmp_path / "a.png", 10)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "no.png").write_bytes(b"no")
    rows = [("a.png", "x", "train"), ("a.png", "x", "train"), ("b.png", "x", "test"), ("no.png", "x", "train")]
    rows += [("gone.png", "x", "train"), ("a.png", "x", "tset"), ("short.mp4", "x", "train")]
    path = write_manifest(tmp_path / "m.csv", *({"path": p, "label": c, "split": s} for p, c, s in rows))
    report = check_manifest(path, frames=99)
    found = [(f.kind, f.line, f.path) for f in report.findings]
    assert found == [
        ("warning", 3, ""),
        ("warning", 4, "b.png"),
        ("error", 5, "no.png"),
        ("error", 6, "gone.png"),
        ("error", 7, ""),
        ("warning", 8, "short.mp4"),
    ]
    assert report.errors == 3
    causes = [f.cause for f in report.findings]
    assert "its split is 'test', but a.png in line 2, the same file, has 'train'" in causes[1]
    assert "no such file" in causes[3]
    assert "split is 'tset'" in causes[4]
    assert "99 frames asked for, 12 there" in causes[5]


def test_labels_that_read_the_same_are_an_error_where_the_second_first_stands(tmp_path):
    labels = ["drink", "Walk", "drinking", "walk", "drinking", "drink"]
    for number, _ in enumerate(labels):
        draw_picture(tmp_path / f"{number}.png", number)
    path = write_manifest(
        tmp_path / "m.csv", *({"path": f"{number}.png", "label": label} for number, label in enumerate(labels))
    )
    found = [(one.kind, one.line, one.cause.split(" in a")[0]) for one in check_manifest(path).findings]
    assert found == [
        ("error", 4, "'drink' and 'drinking' both read 'drinking'"),
        ("error", 5, "'Walk' and 'walk' both read 'walking'"),
    ]


def test_captions_that_several_samples_have_are_counted(tmp_path):
    for number in range(3):
        draw_picture(tmp_path / f"{number}.png", number)
    captions = [("0.png", "a man"), ("0.png", "a man"), ("1.png", "a man"), ("1.png", "a dog"), ("2.png", "a man")]
    path = write_manifest(tmp_path / "m.csv", *({"path": name, "caption": text} for name, text in captions))
    report = check_manifest(path)
    assert (report.samples, report.captions, report.shared_captions) == (3, 4, 2)


def test_every_result_is_shown_in_the_progress_bar(data):
    seen = []

    def progress(items, total, description):
        for item in items:
            seen.append(total)
            yield item

    check_manifest(data / "pictures.csv", data, progress=progress)
    assert seen == [24] * 24  # rows of the table, of which two are of one sample


def _at_once(path, against=()):
    """The findings on a table that is wholly in memory, its files looked at one after the other."""
    manifest, wrong = scan_manifest(path)
    spec = ClipSpec(frames=8, sampling="uniform", size=(32, 32), interpolation="nearest")
    found = [("error", error.line, "", error.cause) for error in wrong]
    again = "it says again what a line before it says; it counts once"
    found += [("warning", line, "", again) for line in manifest.repeats]
    first, files, prints = {}, {}, []
    for sample in manifest.samples:
        file = manifest.root / sample.path
        prints.append(Fingerprint(sha256="", difference_hash=""))
        try:
            clip = load_clip(file, sample.start_seconds, sample.end_seconds, spec=spec)
        except VideoError as error:
            found.append(("error", sample.line, sample.path, error.cause))
            continue
        notes = clip.notes if len(set(clip.stamps)) > 1 else ()
        found += [("warning", sample.line, sample.path, note) for note in notes]
        prints[-1] = take_fingerprint(file)
        before = first.setdefault((prints[-1].sha256, sample.start_seconds, sample.end_seconds), sample)
        other = files.setdefault(prints[-1].sha256, sample)
        for name, ours, theirs in (
            ("split", sample.split, before.split),
            ("label", sample.label, before.label),
        ):
            if ours != theirs:
                same = f"but {before.path} in line {before.line}, the same file, has {theirs!r}"
                found.append(("warning", sample.line, sample.path, f"its {name} is {ours!r}, {same}"))
        if sample.split != other.split and other.line != before.line:
            cause = (
                f"its split is {sample.split!r}, but line {other.line}, another part of the same file, has "
                f"{other.split!r}: parts of one video look alike, so keep them in one split"
            )
            found.append(("warning", sample.line, sample.path, cause))
    for copy in find_near_duplicates(prints, against):
        sample, which = manifest.samples[copy.row], f"{copy.of.name}, which protocol p evaluates on"
        cause = f"it is {which}" if copy.same_bytes else f"it is nearly {which}: {copy.apart} of 64 bits differ"
        found.append(("warning", sample.line, sample.path, cause))
    return sorted(found, key=lambda finding: finding[1:3])


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Files of which some are alike and some cannot be read, and 900 rows that name them, each in one of many ways."""
    folder = tmp_path_factory.mktemp("faulty")
    draw_video(folder / "a.mp4", frames=12)
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    draw_video(folder / "b.mp4", frames=6)
    (folder / "cut.mp4").write_bytes((folder / "b.mp4").read_bytes()[:300])
    blocks(0).save(folder / "c.png")
    blocks(0, (45, 40)).save(folder / "near.jpg")
    blocks(1).save(folder / "d.png")
    draw = np.random.default_rng(0)
    files = ["a.mp4", "copy.mp4", "b.mp4", "./b.mp4", "cut.mp4", "c.png", "near.jpg", "d.png", "gone.mp4", "../e"]
    rows = [
        {
            "path": draw.choice(files),
            "label": draw.choice(["sit", "stand", ""], p=[0.8, 0.15, 0.05]),
            "split": draw.choice(["train", "test", "tset"], p=[0.8, 0.15, 0.05]),
            "start_seconds": draw.choice(["", "0", "0.1", "0.3", "9"]),
            "end_seconds": draw.choice(["", "0.2", "0.7", "1", "30"]),
        }
        for _ in range(900)
    ]
    return write_manifest(folder / "m.csv", *rows)


def test_row_by_row_all_is_found_that_a_whole_table_shows(faulty):
    against = [HeldOutFile(protocol="p", name="held.png", fingerprint=take_fingerprint(faulty.parent / "c.png"))]
    report = check_manifest(faulty, against=against)
    found = [(one.kind, one.line, one.path, one.cause) for one in report.findings]
    assert found == _at_once(faulty, against)
    kinds = (
        "says again",
        "the same file",
        "another part of the same file",
        "cannot be used",
        "leads out",
        "it has one",
        "it is held.png",
        "nearly held",
    )
    assert all(any(kind in cause for *_, cause in found) for kind in (*kinds, "no such file", "some repeat", "index"))
    samples = scan_manifest(faulty)[0].samples
    assert report.samples == len(samples)
    assert report.splits == dict(Counter(sample.split for sample in samples))
    assert report.labels == dict(Counter(sample.label for sample in samples).most_common())
    assert (report.errors, report.warnings) == tuple(
        sum(kind == asked for kind, *_ in found) for asked in ("error", "warning")
    )


def test_of_one_split_alone_files_are_read_and_samples_counted(faulty):
    report = check_manifest(faulty, split="test")
    samples = scan_manifest(faulty)[0].of_split("test")
    assert report.splits == {"test": len(samples)}
    assert {one.path for one in report.findings} <= {"", *(sample.path for sample in samples)}
    assert sum(report.labels.values()) == report.samples == len(samples)
    with pytest.raises(ManifestError, match="no sample is of split 'dev'; known: all, test, train"):
        check_manifest(faulty, split="dev")


@pytest.fixture
def looked_at(data, monkeypatch):
    """Any file is a clip at once; the list of those that were asked for."""
    (clip,), asked = load_clips(data / "clips/0.mp4", ClipSpec(frames=2, size=(8, 8))), []

    def load(path, spec, **part):
        asked.append(path)
        if path.suffix == ".gone":
            raise VideoError(path, "no such file")
        return (clip,)

    monkeypatch.setattr("clipact.data.check.load_clips", load)
    monkeypatch.setattr("clipact.data.check.file_digest", str)
    return asked


def test_what_is_wrong_is_said_before_the_rest_is_looked_at(looked_at, tmp_path):
    path = write_manifest(tmp_path / "m.csv", *({"path": f"{i}.gone", "label": "x"} for i in range(3000)))
    findings = DataCheck(path).findings()
    assert next(findings).line == 2
    assert len(looked_at) < 1500
    assert [one.line for one in findings] == list(range(3, 3002))


PEAKS = """
import sys, tracemalloc
from pathlib import Path
from clipact.clip_spec import ClipSpec
from clipact.data import check
from clipact.video.load import load_clips

folder, clip = Path(sys.argv[1]), load_clips(sys.argv[2], ClipSpec(frames=2, size=(8, 8)))
check.load_clips = lambda *_, **__: clip
check.file_digest = str
for rows in (1000, 10_000, 20_000):
    lines = (f"{'a' * 80}/{i}.mp4,label {i % 50}\\n" for i in range(rows))
    (folder / "m.csv").write_text("path,label\\n" + "".join(lines))
    tracemalloc.start()
    found = sum(1 for _ in check.DataCheck(folder / "m.csv").findings())
    print(found, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


def test_memory_grows_by_little_a_row(data, tmp_path):
    """By 300 bytes, 90 of which are the path; rows that are kept as objects take 2,300."""
    command = [sys.executable, "-c", PEAKS, str(tmp_path), str(data / "clips/0.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    _, (found, few), (found_again, many) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert found == found_again == 0
    assert (many - few) / 10_000 < 600
