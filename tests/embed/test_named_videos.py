import numpy as np
import pytest

from clipact.data.manifest import read_manifest
from clipact.embed.clip_source import ClipSource
from clipact.embed.named_videos import expand_videos, read_sources_table
from clipact.errors import ManifestError, UsageError
from clipact.video.load import load_clip
from clipact.video.pictures import PictureFolder

FILES = ["a.mp4", "b.mp4", "more/c.mp4"]


@pytest.fixture
def here(videos, monkeypatch):
    monkeypatch.chdir(videos)
    return videos


def write_list(folder, text, name="list.txt"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"@{folder / name}"


def test_files_folders_and_patterns(here):
    assert expand_videos(["b.mp4", "a.mp4", "b.mp4"]) == ["b.mp4", "a.mp4", "b.mp4"]
    assert expand_videos(["."]) == FILES
    assert expand_videos(["*.mp4"]) == FILES[:2]
    assert expand_videos(["**/*.mp4"]) == FILES
    assert expand_videos(["more", "a.mp4"]) == ["more/c.mp4", "a.mp4"]
    assert expand_videos([str(here)]) == [str(here / name) for name in FILES]


def test_what_is_no_file_is_left_as_it_is(here):
    words = ["-", "http://host/a.mp4?part=[1]", "rtsp://host/*", "/dev/video0", "missing.mp4", "missing*.mp4", "@"]
    assert expand_videos(words) == words


def test_a_file_may_be_called_as_a_pattern_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].mp4", "a1.mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert expand_videos(["a[1].mp4"]) == ["a[1].mp4"]
    assert expand_videos([write_list(tmp_path, "a[1].mp4\n")]) == ["a[1].mp4"]
    (tmp_path / "a[1].mp4").unlink()
    assert expand_videos(["a[1].mp4"]) == ["a1.mp4"]


def test_a_folder_of_pictures_is_one_video(tmp_path):
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{number}.png")
    assert expand_videos([str(tmp_path)]) == [str(tmp_path)]
    assert len(PictureFolder(tmp_path).timeline().ticks) == 3


def test_a_list_names_what_its_lines_would(here, tmp_path):
    words = ["a.mp4", "more", "*.mp4", "http://host/v.mp4", "-", "missing.mp4"]
    text = "# videos\n\n" + "\n   \n#b.mp4\n".join(words)
    assert expand_videos([write_list(tmp_path, text)]) == expand_videos(words)
    assert expand_videos(["b.mp4", write_list(tmp_path, text), "a.mp4"]) == ["b.mp4", *expand_videos(words), "a.mp4"]


def test_a_list_keeps_names_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        "Ärger 日本.mp4",
        " begins and ends with a space ",
        "@home.mp4",
        "no #comment.mp4",
        "a\u2028b.mp4",
        "a\x0cb.mp4",
    ]
    for end in ("\n", "\r\n"):
        for mark in ("", "\ufeff"):
            assert expand_videos([write_list(tmp_path, mark + end.join(names) + end)]) == names


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    for word in (f"@{tmp_path}/none.txt", f"@{tmp_path}", write_list(tmp_path, b"\xff\xfea\0", "utf16.txt"), "@a\0b"):
        with pytest.raises(UsageError) as refused:
            expand_videos(["a.mp4", word])
        assert word[1:] in str(refused.value)
    with pytest.raises(UsageError, match="not UTF-8"):
        expand_videos([f"@{tmp_path}/utf16.txt"])


def test_naming_nothing_is_refused(tmp_path):
    for words in ([], [write_list(tmp_path, "# nothing\n\n")]):
        with pytest.raises(UsageError, match="no video was named"):
            expand_videos(words)


def test_a_table_gives_its_rows_in_order_each_once(videos, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(
        "path,label,start_seconds,end_seconds\n"
        "b.mp4,read,,\n"
        "a.mp4,drink,0.5,1\n"
        "more/../b.mp4,read,,\n"
        "a.mp4,walk,,1\n"
        "a.mp4,sit,0.5,1\n"
    )
    rows = list(read_sources_table(table, videos))
    assert rows == [
        ClipSource(source=videos / "b.mp4", name="b.mp4"),
        ClipSource(source=videos / "a.mp4", name="a.mp4", start_seconds=0.5, end_seconds=1.0),
        ClipSource(source=videos / "a.mp4", name="a.mp4", end_seconds=1.0),
    ]
    assert [row.name for row in rows] == [sample.path for sample in read_manifest(table, unlabelled=True).samples]
    assert load_clip(rows[1].source, start_seconds=0.5, end_seconds=1.0).frames.shape[0] > 0


def test_paths_of_a_table_start_from_its_folder(videos, tmp_path):
    (tmp_path / "a.csv").write_text("path\na.mp4\n")
    (row,) = read_sources_table(tmp_path / "a.csv")
    assert row.source == tmp_path / "a.mp4"


@pytest.mark.parametrize("line", ["../a.mp4", "/etc/passwd", "", "a.mp4,1,2,3,4"])
def test_a_table_with_a_wrong_line_is_refused(tmp_path, line):
    (tmp_path / "a.csv").write_text(f"path,split\nb.mp4,train\n{line or '  '},train\n")
    with pytest.raises(ManifestError, match="line 3"):
        list(read_sources_table(tmp_path / "a.csv"))
