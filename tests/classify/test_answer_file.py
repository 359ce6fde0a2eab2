"""Answers as rows of a file: three formats that say the same, whole or not there."""

import csv
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipact.classify.answer_file import answer_row, answer_writer, check_answer_file
from clipact.classify.prediction import Agreement, Prediction, Trust
from clipact.clip_spec import FrameStamp
from clipact.errors import MissingLibraryError, UsageError, VideoError

LABELS = ("drink", 'say "hello", twice', "läuft")


def prediction(number=0, **more):
    scores = np.random.default_rng(number).random(3).astype(np.float32)
    facts = {
        "video": f"{number}.mp4",
        "model": "tiny",
        "prompts": "action",
        "duration_seconds": 1 / 3,
        "decoder": "pyav",
        "frames": (FrameStamp(0, 0.0), FrameStamp(3, 0.1)),
        "notes": ("some repeat", "it ends early"),
    }
    return Prediction(labels=LABELS, scores=scores / scores.sum(), **(facts | more))


def trust(*, score, threshold):
    return Trust(
        score="msp", in_set_score=score, threshold=threshold, false_rejection_rate=0.05, label_set=("drink",),
        coverage=0.9, none_of_these=score < threshold,
    )  # fmt: skip


ANSWERS = [
    prediction(0),
    prediction(
        1,
        agreement=Agreement(views=("drink", "läuft"), agreeing=1, difference_bits=0.5),
        duration_seconds=None,
        notes=(),
    ),
    VideoError("gone.mp4", "no such file"),
    prediction(3, trust=trust(score=0.2, threshold=0.5)),
    prediction(4, trust=trust(score=0.9, threshold=0.5)),
    prediction(5, accepted=()),
    prediction(6, accepted=("drink", "läuft")),
]
NONE_OF_THESE = [None, None, None, True, False, True, False]


def rows_of(answers=ANSWERS, *, top=2):
    return [
        answer_row(f"v{number}.mp4", answer, model="tiny", prompts="action", top=top)
        for number, answer in enumerate(answers)
    ]


def write(path, rows, *, top=2):
    with answer_writer(path, top=top) as add:
        for row in rows:
            add(row)
    return path


def test_a_row_has_the_best_labels_or_the_error():
    rows = rows_of()
    for row, answer in zip(rows, ANSWERS, strict=True):
        json.dumps(row)
        if isinstance(answer, VideoError):
            assert row["predictions"] == []
            assert row["error"] == {"type": "VideoError", "message": str(answer)}
            assert (row["prompts"], row["duration_seconds"], row["frames"]) == ("action", None, [])
        else:
            assert row["error"] is None
            assert row["predictions"] == [{"label": e.label, "score": e.score} for e in answer.ranked[:2]]
    assert rows[1]["agreement"] == {"views": ("drink", "läuft"), "agreeing": 1, "difference_bits": 0.5}
    assert rows[3]["trust"]["none_of_these"] is True
    assert rows[6]["accepted"] == ["drink", "läuft"]
    assert [row["video"] for row in rows] == [f"v{number}.mp4" for number in range(7)]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".JSONL"])
def test_json_lines_hold_each_row_as_it_is(tmp_path, ending):
    rows = rows_of()
    path = write(tmp_path / f"answers{ending}", rows)
    assert [json.loads(line) for line in path.read_text().splitlines()] == json.loads(json.dumps(rows))


def test_csv_has_a_column_a_rank(tmp_path):
    rows = rows_of()
    with write(tmp_path / "answers.csv", rows).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "video", "model", "prompts", "duration_seconds", "label_1", "score_1", "label_2", "score_2", "none_of_these",
        "error",
    ]  # fmt: skip
    for found, row, none in zip(table, rows, NONE_OF_THESE, strict=True):
        for rank in (1, 2):
            if row["error"]:
                assert (found[f"label_{rank}"], found[f"score_{rank}"]) == ("", "")
            else:
                assert found[f"label_{rank}"] == row["predictions"][rank - 1]["label"]
                assert float(found[f"score_{rank}"]) == row["predictions"][rank - 1]["score"]
        assert found["duration_seconds"] == ("" if row["duration_seconds"] is None else str(row["duration_seconds"]))
        assert found["none_of_these"] == ("" if none is None else str(none))
        assert found["error"] == (row["error"]["message"] if row["error"] else "")
        assert (found["video"], found["model"], found["prompts"]) == (row["video"], "tiny", "action")


def test_a_short_answer_leaves_columns_empty(tmp_path):
    path = write(tmp_path / "answers.csv", rows_of(ANSWERS[:1], top=3), top=5)
    (found,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    assert (found["label_3"] != "", found["label_4"], found["score_5"]) == (True, "", "")


def test_parquet_has_lists_and_types(tmp_path):
    rows = rows_of()
    table = pq.read_table(write(tmp_path / "answers.parquet", rows)).to_pylist()
    for found, row, none in zip(table, rows, NONE_OF_THESE, strict=True):
        assert found["labels"] == [one["label"] for one in row["predictions"]]
        assert np.float32(found["scores"]).tolist() == [one["score"] for one in row["predictions"]]
        assert found["none_of_these"] is none
        assert found["notes"] == row["notes"]
        assert found["error"] == (row["error"]["message"] if row["error"] else None)
        assert found["duration_seconds"] == row["duration_seconds"]
        assert [found[name] for name in ("video", "model", "prompts")] == [row["video"], "tiny", "action"]


def test_parquet_is_written_in_groups(tmp_path):
    """5,000 rows: memory is for one group of 4,096."""
    (row,) = rows_of(ANSWERS[:1])
    path = write(tmp_path / "answers.parquet", ({**row, "video": str(number)} for number in range(5000)))
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4096, 904]
    assert file.read().column("video").to_pylist() == [str(number) for number in range(5000)]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_no_rows_are_a_file_too(tmp_path, ending):
    path = write(tmp_path / f"answers{ending}", [])
    if ending == ".parquet":
        assert pq.read_table(path).num_rows == 0
    else:
        assert len(path.read_text().splitlines()) == (ending == ".csv")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_the_file_is_there_when_all_answers_are_in_it(tmp_path, ending):
    path = tmp_path / f"answers{ending}"
    before = write(path, rows_of(ANSWERS[:1])).read_bytes()

    def stop():
        with answer_writer(path, top=2) as add:
            add(rows_of()[0])
            add(rows_of()[2])
            assert path.read_bytes() == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_what_a_killed_run_left_beside_the_file_is_removed(tmp_path, ending):
    left = tmp_path / f".answers{ending}.abcd1234"
    left.mkdir()
    (left / f"answers{ending}").write_text("half")
    write(tmp_path / f"answers{ending}", rows_of())
    assert [one.name for one in tmp_path.iterdir()] == [f"answers{ending}"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_names_that_are_not_utf8_are_written(tmp_path, ending):
    name = os.fsdecode(b"caf\xe9.mp4")
    answers = [prediction(0), VideoError(name, "no such file")]
    rows = [answer_row(name, answer, model="tiny", prompts="action", top=2) for answer in answers]
    path = write(tmp_path / f"answers{ending}", rows)
    if ending == ".parquet":
        assert pq.read_table(path).column("video").to_pylist() == ["caf\\udce9.mp4"] * 2
    else:
        assert path.read_text(encoding="utf-8").count("caf\\udce9.mp4") == 3


@pytest.mark.parametrize("name", ["answers.txt", "answers", "answers.jsonl.gz"])
def test_other_endings_are_wrong_usage(tmp_path, name):
    for refused in (check_answer_file, lambda path: write(path, [])):
        with pytest.raises(UsageError, match=r"\.jsonl"):
            refused(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_and_one_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="nowhere is not there"):
        check_answer_file(tmp_path / "nowhere" / "answers.csv")
    (tmp_path / "answers.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write(tmp_path / "answers.csv", rows_of())


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingLibraryError, match="pyarrow"):
        check_answer_file(tmp_path / "answers.parquet")
    check_answer_file(tmp_path / "answers.csv")
