"""Rows side by side on one split: trained and judged once, gone on with after a kill, and named when they fail."""

import csv
import json
import os
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from clipact import metrics
from clipact.cache import Cache
from clipact.data.protocol import load_protocol
from clipact.errors import DataError, UsageError
from clipact.models.checkpoint import read_files_seen
from clipact.studies.compare import (
    ExecutionContext,
    FailedRun,
    FinishedRun,
    load_settings,
    parse_method,
    plan_comparison,
    read_split,
    tabulate,
)
from clipact.studies.compare import method_run as room
from clipact.studies.compare.table import page
from clipact.train.log import peak_memory_bytes, reset_peak_memory
from tests.browser import chromium as chromium
from tests.browser import on_a_phone
from tests.data.drawing import draw_picture, write_manifest

SMALL = (
    "clip.frames=2",
    "clip.size=[16,16]",
    "workers=0",
    "head.train={loss='cross_entropy', batch=4, chunk=8, steps=3}",
    "head.optim={lr=0.03}",
)


def plan(shades, out, names, **more):
    more.setdefault("settings", load_settings(changes=SMALL))
    return plan_comparison(names, read_split(shades / "shades.csv", shades), out, **more)


@pytest.fixture(scope="module")
def found(shades, tmp_path_factory):
    """A comparison in which one row fails, its outcomes, and its table."""
    small = shades / "small"
    names = [f"zero-shot:{small}", f"probe:{small}", f"knn:{small}@3", f"few-shot:{small}@2", f"few-shot:{small}@99"]
    names.append(f"lstm:{small}")
    planned = plan(shades, tmp_path_factory.mktemp("out"), names, seeds=2)
    outcomes = list(planned.execute(ExecutionContext(device="cpu", cache=Cache(tmp_path_factory.mktemp("store")))))
    return planned, outcomes, tabulate(planned, outcomes)


def test_no_group_is_on_both_sides_and_the_split_is_said(shades, found):
    split = found[0].split
    sides = [{item.group for item in samples.items} for _, samples in split.sides]
    assert sides == [{"p1", "p2", "p4", "p5"}, {"p0", "p3"}]
    assert split.description == "by group: 4 of 6 are learnt from, 2 judge (part 1 of 3)"
    with found[0].runs[0].table.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["split"] for line in lines] == ["train"] * 8 + ["test"] * 4
    assert {line["group"] for line in lines if line["split"] == "test"} == {"p0", "p3"}
    other = read_split(shades / "shades.csv", shades, split="2/3")
    assert {item.group for item in other.test.items} == {"p1", "p4"}


def stretches(folder, labels, **more):
    """A table of five stretches a file, all with the label of their file."""
    rows = []
    for file, label in enumerate(labels):
        (folder / f"{file}.mp4").write_bytes(bytes([file]))
        for start in range(5):
            row = {"path": f"{file}.mp4", "label": label, "start_seconds": start, "end_seconds": start + 1}
            rows.append(row | {name: values[len(rows)] for name, values in more.items()})
    return write_manifest(folder / "stretches.csv", *rows)


def test_without_a_group_the_stretches_of_a_file_are_on_one_side(tmp_path):
    """All ways to label three files, of which the nearest neighbour of a stretch is another of its own file."""
    right = []
    for labels in product("ab", repeat=3):
        table = stretches(tmp_path, labels)
        for part in (1, 2, 3):
            try:
                split = read_split(table, tmp_path, split=f"{part}/3")
            except UsageError:
                continue
            if len(split.test.labels.labels) < 2:
                continue
            learnt, judged = ({item.path for item in samples.items} for _, samples in split.sides)
            assert (len(learnt), len(judged), learnt & judged) == (2, 1, set())
            assert split.description.startswith("by file: 2 of 3 are learnt from, 1 judge")
            for item in split.test.items:
                same = [other for other in split.train.items if other.path == item.path]
                right.append(item.label == (same or split.train.items)[0].label)
    assert len(right) == 12 * 5
    assert np.mean(right) == 0.5


def test_a_table_whose_splits_share_a_file_or_a_group_is_refused(tmp_path):
    splits = (["train"] * 4 + ["test"]) * 2
    with pytest.raises(DataError, match="2 of the files and groups are in both parts, .*0.mp4 among them"):
        read_split(stretches(tmp_path, "ab", split=splits), tmp_path)
    table = stretches(tmp_path, "abab", split=["train"] * 10 + ["test"] * 10, group=["film"] * 20)
    with pytest.raises(DataError, match="1 of the files and groups are in both parts, film among them"):
        read_split(table, tmp_path)


def test_a_table_may_say_itself_what_judges(shades):
    with (shades / "shades.csv").open() as file:
        rows = [{**row, "split": "test" if int(row["group"][1]) > 3 else "train"} for row in csv.DictReader(file)]
    write_manifest(shades / "own.csv", *rows)
    split = read_split(shades / "own.csv", shades)
    assert (len(split.train), len(split.test)) == (8, 4)
    assert split.description == "learnt from split train, judged by split test"
    rows[-1]["label"] = "dusk"
    write_manifest(shades / "odd.csv", *rows)
    for table, asked, said in (
        ("odd.csv", None, "'dusk' is in no clip that is learnt from"),
        ("own.csv", "train", None),
        ("own.csv", "4/3", "write 1/3 to 3/3"),
        ("own.csv", "1/9", "6 groups to deal"),
    ):
        with pytest.raises(Exception, match=said or "of the files and groups are in both parts"):
            read_split(shades / table, shades, split=asked)
    with pytest.raises(UsageError, match="of a protocol it is one part of several"):
        read_split(load_protocol("weizmann"), shades, split="test")


def test_every_row_sees_the_same_frames_and_chooses_from_the_same_labels(found):
    _, outcomes, table = found
    done = [one.result for one in outcomes if isinstance(one, FinishedRun)]
    assert {result.labels for result in done} == {("Bright_day", "dark")}
    assert {result.samples for result in done} == {done[0].samples}
    views = [{k: v for k, v in result.run["views"].items() if k not in ("mean", "std")} for result in done]
    assert all((view["frames"], list(view["size"])) == (2, [16, 16]) for view in views)
    assert all(view == views[0] for view in views)
    assert all(result.run["partial_why"][0].startswith("judged by 4 of 12 samples: by group") for result in done)
    assert [row.runs for row in table.rows] == [1, 1, 1, 2, 2]


def test_what_learnt_from_the_data_is_never_called_zero_shot(shades, found, tmp_path):
    _, outcomes, table = found
    assert table.rows[0].zero_shot_status.startswith("zero-shot or not is unknown")
    assert all(row.zero_shot_status.startswith("not zero-shot: supervised") for row in table.rows[1:])
    (trained, *_) = [one for one in outcomes if one.method_run.method.kind == "trained"]
    model = trained.method_run.folder / "run" / "last"
    assert json.loads((model / "config.json").read_text())["trained_on"] == [
        f"shades {table.comparison.split.description}"
    ]
    (failed,) = plan(shades, tmp_path, [f"zero-shot:{model}"]).execute(
        ExecutionContext(device="cpu", cache=Cache(tmp_path))
    )
    assert "it is not zero-shot" in failed.cause


def test_figures_are_means_over_seeds_with_tests_that_draw_groups(found):
    _, outcomes, table = found
    hits = {}
    for one in outcomes:
        if isinstance(one, FinishedRun):
            right = metrics.hits(one.result.scores, one.result.truth)
            hits.setdefault(one.method_run.method.name, []).append(right)
    groups = outcomes[0].result.groups
    for row in table.rows:
        mean = np.mean(hits[row.name], axis=0)
        assert row.top_1.value == pytest.approx(mean.mean())
        assert row.of_seeds == pytest.approx([one.mean() for one in hits[row.name]])
        interval = metrics.bootstrap(lambda rows, m=mean: float(m[rows].mean()), 4, groups=groups, draws=10_000)
        assert (row.top_1.low, row.top_1.high) == pytest.approx((interval.low, interval.high))
        assert row.top_5 is None
    base, *others = table.rows
    assert base.difference is None
    assert [row.difference.value for row in others] == pytest.approx(
        [row.top_1.value - base.top_1.value for row in others]
    )
    assert len(table.pairs) == 10
    assert (table.groups, table.least_p) == (2, 0.5)
    assert min(pair.difference.p for pair in table.pairs) >= 0.5, "two groups show nothing"
    assert [row.usage.trainable_parameters > 0 for row in table.rows] == [False, True, False, True, True]
    assert all(row.usage.gflops > 0 and row.usage.peak_memory_bytes > 1e7 for row in table.rows)
    assert table.rows[-1].usage.training_seconds > 0


def test_a_failure_is_named_and_the_rest_goes_on(found):
    _, outcomes, table = found
    failed = [one for one in outcomes if isinstance(one, FailedRun)]
    assert [one.method_run.method.number for one in failed] == [99, 99]
    assert "shots is 99" in failed[0].cause
    assert "UsageError" in failed[0].file.read_text()
    assert isinstance(outcomes[-1], FinishedRun)
    assert table.facts()["failed"][0]["row"].endswith("@99")


def test_what_is_finished_is_not_done_again(shades, found, monkeypatch):
    planned, _, table = found
    tried = []
    real = room.MethodRun.execute
    monkeypatch.setattr(room.MethodRun, "execute", lambda run, context: tried.append(run) or real(run, context))
    names = [one.name for one in planned.methods]
    again = plan(shades, planned.runs[0].folder.parent.parent, names, seeds=2)
    repeated = list(again.execute(ExecutionContext(device="cpu")))
    assert {cell.method.number for cell in tried} == {99}
    assert tabulate(again, repeated).facts()["rows"] == table.facts()["rows"]
    changed = plan(shades, planned.runs[0].folder.parent.parent, names, settings=load_settings(
        changes=[*SMALL, "head.optim={lr=0.01}", "workers=1"]
    ), seeds=2)  # fmt: skip
    lost = [cell.method.name for cell in changed.runs if cell.finished() is None and cell.method.number != 99]
    assert lost == [f"lstm:{shades / 'small'}"] * 2, "only what hangs on it"
    damaged = again.runs[0].folder / "result" / "scores.npz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert again.runs[0].finished() is None


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(shades, found, tmp_path):
    planned, outcomes, _ = found
    name = planned.methods[-1].name
    whole = outcomes[-2].result

    def stop(run, reports):
        for report in reports:
            run.stopping = run.stopping or report.step == 1

    with pytest.raises(KeyboardInterrupt):
        list(
            plan(shades, tmp_path, [name]).execute(
                ExecutionContext(device="cpu", cache=Cache(tmp_path / "s"), follow=stop)
            )
        )
    steps = []

    def follow(run, reports):
        steps.extend(report.step for report in reports)

    planned = plan(shades, tmp_path, [name])
    (done,) = planned.execute(ExecutionContext(device="cpu", cache=Cache(tmp_path / "s"), follow=follow))
    assert isinstance(done, FinishedRun), done.cause
    assert steps == [3]
    assert np.array_equal(done.result.scores, whole.scores)
    assert not (planned.runs[0].folder / "run" / "state.safetensors").exists()


def test_pretraining_sees_no_label_and_no_clip_that_judges(shades, tmp_path):
    steps = "{batch=8, chunk=8, steps=1}"
    settings = load_settings(
        changes=[*SMALL, "whole.train.steps=1", f"pretraining.train={steps}", "pretraining.mask.ratio=0.75"]
    )
    planned = plan(shades, tmp_path, ["videomae", "videomae+pretraining"], settings=settings)
    outcomes = list(planned.execute(ExecutionContext(device="cpu", cache=Cache(tmp_path / "store"))))
    assert [type(one) for one in outcomes] == [FinishedRun, FinishedRun], outcomes
    plain, pretrained = tabulate(planned, outcomes).rows
    assert (plain.usage.parameters, plain.usage.trainable_parameters) == (
        pretrained.usage.parameters,
        pretrained.usage.trainable_parameters,
    )
    assert (plain.usage.explained is None, pretrained.usage.explained is None) == (True, False)
    assert 0 < pretrained.usage.pretraining_seconds < pretrained.usage.training_seconds
    folder = planned.runs[1].folder / "pretraining" / "last"
    said = json.loads((folder / "config.json").read_text())["trained_on"]
    assert said == [f"shades {planned.split.description}, without labels"]
    seen = {one.path for one in read_files_seen(folder).values()}
    assert seen == {item.name for item in planned.split.train.items}


def test_no_row_learns_from_fewer_clips_than_the_others(shades, tmp_path):
    for number in range(12):
        draw_picture(tmp_path / f"pictures/{number}.png", shade=20 * number)
    (tmp_path / "pictures/2.png").write_text("no picture")
    (tmp_path / "pictures/1.png").write_text("no picture, either")
    shutil.copy(shades / "shades.csv", tmp_path)
    names = [f"{kind}:{shades / 'small'}" for kind in ("zero-shot", "probe", "gru")]
    planned = plan(tmp_path, tmp_path / "out", names)
    words, *others = planned.execute(ExecutionContext(device="cpu", cache=Cache(tmp_path / "store")))
    assert [name for name, _ in words.result.unreadable] == ["pictures/1.png"]
    assert "1 of the 8 clips to learn from cannot be read" in others[0].cause
    assert "pictures/2.png" in others[1].cause
    assert tabulate(planned, [words, *others]).unreadable == words.result.unreadable


def test_names_and_settings_that_mean_nothing_are_refused_before_anything_runs(shades, tmp_path):
    for name, said in (
        ("zero-shoot:mini", "did you mean 'zero-shot'"),
        ("i3d+cbm", "did you mean 'cbam'"),
        ("few-shot:mini", "few-shot:mini@8"),
        ("probe:", "names no model"),
        ("probe:nowhere", "no model is called"),
        ("knn:mini@0", "takes 1 or more"),
        ("swin3d", "multiples of 32"),
    ):
        with pytest.raises(UsageError, match=said):
            plan(shades, tmp_path / "never", [name])
    assert not (tmp_path / "never").exists()
    with pytest.raises(UsageError, match="each row once"):
        plan(shades, tmp_path, ["probe:mini", "probe:mini"])
    with pytest.raises(UsageError, match="unknown key"):
        load_settings(changes=["whole.train.step=3"])
    both = load_settings(changes=["whole.train.epochs=2", "head.train.epochs=2", "head.train.steps=3"])
    assert (both.whole.train.steps, both.head.train.steps, both.head.train.epochs) == (None, 3, None)
    assert parse_method("i3d+non-local").baseline == "i3d+non_local"
    assert parse_method("few-shot:open_clip:ViT-B-32@a.pt@4").model == "open_clip:ViT-B-32@a.pt"


def test_the_page_escapes_what_it_shows(found, chromium, tmp_path):
    table = found[2]
    spiteful = replace(table, labels=("<script>", "dark"))
    assert "<script" not in page(spiteful)
    text = page(table)
    assert table.comparison.split.description in text
    (tmp_path / "comparison.html").write_text(text)
    seen, log = on_a_phone(chromium, tmp_path / "comparison.html")
    assert seen["width"] <= 360
    assert "CONSOLE" not in log


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="here the peak is since the start")
def test_memory_is_that_of_the_row_and_not_of_the_rows_before():
    place = torch.device("cpu")
    held = np.ones(40_000_000)
    before = peak_memory_bytes(place)
    del held
    reset_peak_memory(place)
    assert peak_memory_bytes(place) < before - 2e8
