import shutil

from clipact.data.check import check_manifest
from tests.data.drawing import draw_picture, write_manifest


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


def test_every_result_is_shown_in_the_progress_bar(data):
    seen = []

    def progress(items, total, description):
        for item in items:
            seen.append(total)
            yield item

    check_manifest(data / "pictures.csv", data, progress=progress)
    assert seen == [12] * 12
