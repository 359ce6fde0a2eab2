import contextlib
import http.server
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clipact import ZeroShotClassifier
from clipact.errors import UsageError
from tests.video.corpus import need

LABELS = "drink,read,UseLaptop"


def rows(done):
    return [json.loads(line) for line in done.out.splitlines()]


def test_one_json_line_a_video_with_the_agreed_keys(clipact, tiny, videos):
    done = clipact("classify", videos / "a.mp4", videos / "b.mp4", "--labels", LABELS, "--model", tiny, "--json")
    assert done.code == 0, done.err
    first, second = rows(done)
    assert list(first) == [
        "video",
        "model",
        "prompts",
        "duration_seconds",
        "decoder",
        "frames",
        "predictions",
        "notes",
        "error",
    ]
    assert (first["video"], second["video"]) == (str(videos / "a.mp4"), str(videos / "b.mp4"))
    assert first["duration_seconds"] == pytest.approx(2.0)
    assert first["decoder"] == "pyav"
    assert [f["index"] for f in first["frames"]] == [2, 7, 12, 17]
    assert [f["seconds"] for f in first["frames"]] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert {p["label"] for p in first["predictions"]} == {"drink", "read", "UseLaptop"}
    scores = [p["score"] for p in first["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert first["error"] is None


def test_top_cuts_what_is_shown_and_not_what_is_counted(clipact, tiny, videos):
    words = ("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--json")
    (whole,), (cut,) = rows(clipact(*words)), rows(clipact(*words, "--top", 1))
    assert cut["predictions"] == whole["predictions"][:1]
    assert cut["predictions"][0]["score"] < 1


def test_the_command_and_the_library_say_the_same(clipact, tiny, videos):
    (row,) = rows(clipact("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--json"))
    prediction = ZeroShotClassifier.load(str(tiny), labels=LABELS.split(",")).classify(videos / "a.mp4")
    assert [(p["label"], p["score"]) for p in row["predictions"]] == [(e.label, e.score) for e in prediction.ranked]


def test_folders_and_globs(clipact, tiny, videos):
    found = rows(clipact("classify", videos, "--labels", LABELS, "--model", tiny, "--json"))
    assert [row["video"] for row in found] == [str(videos / name) for name in ("a.mp4", "b.mp4", "more/c.mp4")]
    found = rows(clipact("classify", f"{videos}/*.mp4", "--labels", LABELS, "--model", tiny, "--json"))
    assert [row["video"] for row in found] == [str(videos / name) for name in ("a.mp4", "b.mp4")]
    found = rows(clipact("classify", f"{videos}/mo*", "--labels", LABELS, "--model", tiny, "--json"))
    assert [row["video"] for row in found] == [str(videos / "more/c.mp4")]


def test_a_link_that_leads_nowhere_is_reported_not_skipped(clipact, tiny, tmp_path, videos):
    (tmp_path / "moved.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "linked.mp4").symlink_to(videos / "a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    done = clipact("classify", tmp_path, "--labels", LABELS, "--model", tiny, "--json")
    assert done.code == 1
    linked, moved = rows(done)
    assert linked["error"] is None
    assert "no such file" in moved["error"]["message"]


def test_one_bad_file_among_many_is_reported_and_the_others_are_done(clipact, tiny, videos):
    words = (videos / "a.mp4", videos / "notes.txt", videos / "gone.mp4", videos / "b.mp4")
    done = clipact("classify", *words, "--labels", LABELS, "--model", tiny, "--json")
    assert done.code == 1
    good, text, gone, last = rows(done)
    assert good["error"] is None
    assert last["error"] is None
    assert text["error"]["type"] == "VideoError"
    assert str(videos / "notes.txt") in text["error"]["message"]
    assert "no such file" in gone["error"]["message"]
    assert text["predictions"] == []
    assert "2 of 4 videos could not be read" in done.err


def test_a_table_fits_the_terminal(clipact, tiny, videos, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    labels = "drink,read," + "a very long label that goes on and on " * 3
    done = clipact("classify", videos / "a.mp4", "--labels", labels, "--model", tiny)
    assert done.code == 0
    assert "%" in done.out
    assert max(map(len, done.out.splitlines())) <= 60
    assert "█" in done.out or "▏" in done.out


def test_mini_says_once_that_there_is_better(clipact, videos):
    done = clipact("classify", videos / "a.mp4", videos / "b.mp4", "--labels", LABELS, "--model", "mini")
    assert done.code == 0
    assert done.err.count("larger models are more accurate") == 1
    assert "open_clip:" in done.err


def test_the_environment_names_the_model(clipact, tiny, videos, monkeypatch):
    monkeypatch.setenv("CLIPACT_MODEL", str(tiny))
    (row,) = rows(clipact("classify", videos / "a.mp4", "--labels", LABELS, "--json"))
    assert row["model"] == str(tiny)


def test_times_frames_and_clips(clipact, tiny, videos):
    words = ("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--json")
    (row,) = rows(clipact(*words, "--from", 1, "--frames", 5))
    assert len(row["frames"]) == 5
    assert min(f["seconds"] for f in row["frames"]) >= 1
    (row,) = rows(clipact(*words, "--clips", 3, "--frames", 2))
    assert len(row["frames"]) == 6
    done = clipact(*words, "--from", 9)
    assert done.code == 1
    assert "2.0" in rows(done)[0]["error"]["message"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("drink,drink", "drink"),
        ("", "label"),
        (" , ", "label"),
        ("@missing.txt", "missing.txt"),
    ],
)
def test_labels_that_cannot_be_meant(clipact, tiny, videos, labels, said):
    done = clipact("classify", videos / "a.mp4", "--labels", labels, "--model", tiny)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err


def test_one_label_alone_commas_and_unicode(clipact, tiny, videos, tmp_path):
    words = ("classify", videos / "a.mp4", "--model", tiny, "--json", "--labels")
    (row,) = rows(clipact(*words, "drink"))
    assert row["predictions"] == [{"label": "drink", "score": 1.0}]
    (row,) = rows(clipact(*words, '"put down, then leave",read'))
    assert {p["label"] for p in row["predictions"]} == {"put down, then leave", "read"}
    (tmp_path / "labels.txt").write_text("喝水\nlire un café\n", encoding="utf-8")
    (row,) = rows(clipact(*words, f"@{tmp_path}/labels.txt"))
    assert {p["label"] for p in row["predictions"]} == {"喝水", "lire un café"}


def test_ten_thousand_labels(clipact, tiny, videos, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"action number {i}" for i in range(10_000)))
    words = ("classify", videos / "a.mp4", "--model", tiny, "--json", "--prompts", "bare")
    (row,) = rows(clipact(*words, "--labels", f"@{tmp_path}/many.txt", "--top", 3))
    assert len(row["predictions"]) == 3


def test_results_reach_stdout_whole_while_a_bar_runs_on_stderr(tiny, videos):
    command = [
        sys.executable,
        "-m",
        "clipact.cli.app",
        "classify",
        str(videos),
        "-l",
        LABELS,
        "-m",
        str(tiny),
        "--json",
    ]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "COLUMNS": "40"}
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the process is
            while part := os.read(ours, 4096):
                shown += part
        out = process.stdout.read().decode()
    os.close(ours)
    assert len([json.loads(line) for line in out.splitlines()]) == 3
    assert b"classifying" in shown
    assert b"predictions" not in shown


def test_many_labels_show_how_far_they_are(clipact, tiny, videos, monkeypatch, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"deed number {i}" for i in range(300)))
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    words = ("--labels", f"@{tmp_path}/many.txt", "--model", tiny, "--json", "--prompts", "bare")
    assert clipact("classify", videos / "a.mp4", *words).code == 0
    assert "encoding sentences" in screen.getvalue()


def test_a_shipped_set_labels_twice_and_other_sentences(clipact, tiny, videos):
    words = ("classify", videos / "a.mp4", "--model", tiny, "--json", "--device", "cpu", "--to", 1)
    (row,) = rows(clipact(*words, "--labels", "daily-living:ten", "--labels", "juggle", "--top", 99))
    assert len(row["predictions"]) == 11
    assert "juggle" in {p["label"] for p in row["predictions"]}
    assert max(f["seconds"] for f in row["frames"]) < 1
    (single,) = rows(clipact(*words, "--labels", LABELS, "--prompts", "single"))
    (bare,) = rows(clipact(*words, "--labels", LABELS, "--prompts", "bare"))
    assert (single["prompts"], bare["prompts"]) == ("single", "bare")
    assert single["predictions"] != bare["predictions"]


def test_a_bad_file_beside_a_table(clipact, tiny, videos):
    done = clipact("classify", videos / "gone.mp4", videos / "a.mp4", "--labels", LABELS, "--model", tiny)
    assert done.code == 1
    assert "no such file" in done.err
    assert "a.mp4" in done.out


def test_wrong_usage_is_said_before_anything_is_decoded(clipact, tiny, videos):
    words = ("classify", videos / "gone.mp4", "--model", tiny)
    done = clipact(*words, "--labels", LABELS, "--from", 2, "--to", 1)
    assert done.code == 2
    assert "not after --from 2" in done.err
    done = clipact(*words, "--labels", "index:nowhere", "--prompts", "bare")
    assert done.code == 2
    assert "cannot be used with nowhere" in done.err


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [("open_clip_config.json", "{}", "open_clip:local-dir"), ("config.json", '{"model_type": "clip"}', "transformers")],
)
def test_the_folder_of_another_library_says_how_to_name_it(clipact, videos, tmp_path, file, text, kind):
    (tmp_path / file).write_text(text)
    done = clipact("classify", videos / "a.mp4", "--labels", LABELS, "--model", tmp_path)
    assert done.code == 1
    assert f"call it {kind}:{tmp_path}" in done.err


def test_wrong_model_and_wrong_prompts(clipact, videos):
    done = clipact("classify", videos / "a.mp4", "--labels", LABELS, "--model", "minni")
    assert done.code in (1, 2)
    assert "mini" in done.err
    done = clipact("classify", videos / "a.mp4", "--labels", LABELS, "--prompts", "actoin")
    assert done.code == 2
    assert "did you mean 'action'" in done.err


@pytest.mark.filterwarnings("default:the cache folder")
def test_a_cache_that_cannot_be_written_costs_a_note_and_not_the_answer(clipact, tiny, videos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPACT_CACHE", str(tmp_path / "file"))
    done = clipact("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--json")
    assert done.code == 0
    assert rows(done)[0]["error"] is None
    assert "CLIPACT_CACHE" in done.err


def test_version_and_help(clipact):
    assert clipact("--version").out.startswith("clipact 0.")
    done = clipact("classify", "--help")
    assert done.code == 0
    for word in ("--labels", "--model", "--json", "drink,read", "Exit code"):
        assert word in done.out


def test_a_reader_that_goes_away_is_no_traceback(tiny, videos, tmp_path):
    command = f"'{sys.executable}' -m clipact.cli.app classify '{videos}' -l drink,read -m '{tiny}' --json | head -c 5"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_is_said_and_is_no_traceback(videos):
    command = [sys.executable, "-m", "clipact.cli.app", "info", str(videos / "a.mp4"), "--json"]
    with FULL.open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full: not all of the output was written\n"


def test_what_the_terminal_cannot_write_is_replaced(clipact, tiny, videos, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    done = clipact("classify", videos / "a.mp4", "--labels", "drink,läuft", "--model", tiny)
    assert done.code == 0, done.err
    screen.flush()
    assert b"l?uft" in screen.buffer.getvalue()


def test_either_decoder_gives_the_same_answer(clipact, tiny, videos):
    need("torchcodec", importlib.util.find_spec("torchcodec") is not None)
    words = ("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--json")
    (ours,), (other,) = rows(clipact(*words)), rows(clipact(*words, "--decoder", "torchcodec"))
    assert (ours.pop("decoder"), other.pop("decoder")) == ("pyav", "torchcodec")
    assert ours == other
    assert ZeroShotClassifier.load(str(tiny), labels=["a", "b"], decoder="torchcodec").classify(
        videos / "a.mp4"
    ).decoder == ("torchcodec")


def test_an_unknown_decoder_is_wrong_usage(clipact, tiny, videos):
    done = clipact("classify", videos / "a.mp4", "--labels", LABELS, "--model", tiny, "--decoder", "vlc")
    assert done.code == 2
    assert "torchcodec" in done.err
    with pytest.raises(UsageError, match="pyav"):
        ZeroShotClassifier.load(str(tiny), labels=["a", "b"], decoder="vlc")


def test_a_time_limit_ends_what_takes_longer(clipact, tiny, videos):
    words = ("--labels", LABELS, "--model", tiny, "--json", "--time-limit", 4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        late, fine = rows(clipact("classify", address, videos / "a.mp4", *words))
    assert "4 seconds" in late["error"]["message"]
    assert fine["error"] is None


def test_standard_input_is_a_video(clipact, tiny, videos, monkeypatch):
    words = ("--labels", LABELS, "--model", tiny, "--json")
    (expected,) = rows(clipact("classify", videos / "a.mp4", *words))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((videos / "a.mp4").read_bytes())))
    (found,) = rows(clipact("classify", "-", *words))
    assert found["predictions"] == expected["predictions"]
    assert found["video"] == "-"


def test_an_address_is_a_video(clipact, tiny, videos):
    def serve(*arguments):
        return http.server.SimpleHTTPRequestHandler(*arguments, directory=str(videos))

    words = ("--labels", LABELS, "--model", tiny, "--json")
    (expected,) = rows(clipact("classify", videos / "a.mp4", *words))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (found,) = rows(clipact("classify", f"http://127.0.0.1:{server.server_port}/a.mp4", *words))
        server.shutdown()
        thread.join()
    assert found["predictions"] == expected["predictions"]
