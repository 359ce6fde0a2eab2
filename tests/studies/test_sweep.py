"""A sweep says of each wording what an evaluation of it alone would say, and compares it with the baseline."""

import csv
import html
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipact import metrics
from clipact.cache import Cache
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.embed import embed_clips as room
from clipact.errors import ConfigError, LabelError, UsageError
from clipact.evaluate import EvalOptions, evaluate, manifest_protocol, read_samples
from clipact.evaluate.results import zero_shot_status
from clipact.models.zoo import load_model as load_model
from clipact.prompts import LabelDetails, LabelSet
from clipact.studies import Grid, sweep, variants
from clipact.studies.prompt_sweep import sweep_files
from clipact.studies.prompt_sweep.sweep import VariantResults, compare_answers
from clipact.studies.prompt_sweep.sweep_files import class_table, confusion_table, page, table, write_sweep
from tests.browser import chromium as chromium
from tests.browser import on_a_phone
from tests.evaluate.conftest import LABELS
from tests.evaluate.conftest import tree as tree

WORDS = LabelSet(
    name="three",
    labels=LABELS,
    phrases=LABELS,
    about={
        "waving": LabelDetails(synonyms=("greet",)),
        "bending": LabelDetails(descriptions=("A back is bent <b>low</b>.",)),
    },
)
GRID = Grid(templates=("single", "action"), label_format=("phrases",), frames=(4, 2))


@pytest.fixture(scope="module")
def found(tree, tiny, tmp_path_factory):
    """A sweep over drawn videos of people, two numbers of frames, and how often a file was decoded."""
    protocol = manifest_protocol(tree / "table.csv")
    protocol = replace(protocol, data=replace(protocol.data, group="person"))
    samples = replace(read_samples(protocol, tree), labels=WORDS)
    model, cache = load_model(str(tiny), device="cpu"), Cache(tmp_path_factory.mktemp("sweep"))
    decoded, encoded = [], []
    real, encode = room.collect_frames, model.encoder.encode_text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "collect_frames", lambda path, *a, **k: decoded.append(path) or real(path, *a, **k))
        patch.setattr(model.encoder, "encode_text", lambda texts, **k: encoded.append(texts) or encode(texts, **k))
        result = sweep(protocol, samples, model, GRID, baseline="bare", options=EvalOptions(cache=cache))
    return result, cache, samples, model, decoded, encoded


def test_every_wording_scores_what_it_scores_alone(found):
    result, cache, samples, model, decoded, encoded = found
    assert len(decoded) == 2 * (len(samples) - 1), "two of the files have the same bytes"
    texts = [text for batch in encoded for text in batch]
    assert len(set(texts)) == len(texts)
    assert len(result.rows) > 20
    for row in result.rows:
        alone = evaluate(
            ZeroShotClassifier(model, WORDS, prompts=row.variant.prompts, frames=row.variant.frames),
            samples,
            options=EvalOptions(cache=cache),
        )
        right = metrics.hits(alone.scores, alone.truth)
        assert row.top_1.value == right.mean()
        assert row.per_class == metrics.mean_per_class(right, alone.truth)
        assert list(row.weights) == pytest.approx(alone.run["prompts"]["weights"], abs=1e-6)


def test_a_second_sweep_decodes_and_encodes_nothing(found, monkeypatch):
    result, cache, samples, model, *_ = found
    tried, real = set(), room.collect_frames
    monkeypatch.setattr(room, "collect_frames", lambda path, *a, **k: tried.add(Path(path).name) or real(path, *a, **k))
    monkeypatch.setattr(model.encoder, "encode_text", None)
    protocol = manifest_protocol(samples.items[0].path.parent.parent / "table.csv")
    protocol = replace(protocol, data=replace(protocol.data, group="person"))
    again = sweep(protocol, samples, model, GRID, baseline="bare", options=EvalOptions(cache=cache))
    assert again.rows == result.rows
    assert tried == {"05.mp4"}  # which cannot be read, now as before


def test_how_far_the_sentences_are_can_be_watched(found, tmp_path):
    _, _, samples, model, *_ = found
    seen = []

    def progress(batches, total, description):
        seen.append(total)
        yield from batches

    grid = Grid(templates=("clip-ucf101", "clip-kinetics700", "actionclip"), include=("all",), pooling=("embeddings",))
    protocol = manifest_protocol(samples.items[0].path.parent.parent / "table.csv")
    few = replace(samples, items=samples.items[:2])
    sweep(
        protocol, few, model, grid, baseline="bare", options=EvalOptions(cache=Cache(tmp_path)), text_progress=progress
    )
    said = {prompt.text for one in variants(grid, WORDS, baseline="bare") for prompt in one.prompts.fill(WORDS)}
    assert seen == [math.ceil(len(said) / 256)]
    assert seen[0] > 1


def test_rows_compare_every_variant_with_the_first():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 200)
    guesses = [np.where(random.random(200) < share, truth, 2) for share in (0.4, 0.4, 0.9)]
    tried = variants(Grid(templates=("bare", "single", "actionclip")), WORDS, baseline="single")
    answered = [
        VariantResults(variant=one, answers=guess, right=guess == truth, weights=())
        for one, guess in zip(tried, guesses, strict=False)
    ]
    base, same, better = compare_answers(answered, truth, WORDS, groups=None)
    assert base.difference is None
    before, now = guesses[0] == truth, guesses[2] == truth
    assert (better.cured, better.caused) == ((now & ~before).sum(), (before & ~now).sum())
    assert better.difference.value == pytest.approx(now.mean() - before.mean())
    assert better.flips == (guesses[0] != guesses[2]).mean()
    assert better.mcnemar == metrics.mcnemar(now, before)
    assert better.holm == pytest.approx(2 * better.mcnemar)
    assert better.holm < 0.001 < same.holm
    for pair in better.confusions:
        rows = truth == LABELS.index(pair.truth)
        assert pair.count == (guesses[2][rows] == LABELS.index(pair.answer)).sum()
        assert pair.before == (guesses[0][rows] == LABELS.index(pair.answer)).sum()
    assert {(pair.truth, pair.answer) for pair in better.confusions} == {("waving", "bending"), ("jumping", "bending")}
    assert better.classes[0] == (guesses[2][truth == 0] == 0).mean()
    one, *others = compare_answers(answered, truth, WORDS, groups=[f"g{i // 10}" for i in range(200)])
    assert all(other.holm >= other.difference.p for other in others)
    assert one.top_1.high - one.top_1.low > 0


def test_all_confusions_that_a_wording_causes_or_cures_are_in_the_table(found):
    random = np.random.default_rng(0)
    labels = LabelSet.of(["a", "b", "c", "d", "e"])
    truth, before, now = random.integers(0, 5, (3, 300))
    tried = variants(Grid(templates=("bare", "single")), labels, baseline="bare")
    answered = [
        VariantResults(variant=one, answers=x, right=x == truth, weights=())
        for one, x in zip(tried, (before, now), strict=False)
    ]
    rows = compare_answers(answered, truth, labels, groups=None)
    lines = list(csv.DictReader(io.StringIO(confusion_table(replace(found[0], rows=tuple(rows))))))
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (truth, now), 1)
    np.subtract.at(expected, (truth, before), 1)
    np.fill_diagonal(expected, 0)
    told = np.zeros((5, 5), int)
    for line in lines:
        assert line["variant"] == tried[1].name
        told["abcde".index(line["truth"]), "abcde".index(line["answer"])] += int(line["now"]) - int(line["before"])
    assert np.array_equal(told, expected)
    assert len(lines) == (expected != 0).sum() > 6
    sizes = [abs(int(line["now"]) - int(line["before"])) for line in lines]
    assert sizes == sorted(sizes, reverse=True)


def test_what_stands_beside_the_figures(found):
    result, *_ = found
    assert result.clustered
    assert result.unreadable[0][0] == "videos/05.mp4"
    assert sum(result.counts) == result.samples == 13


def test_shares_of_many_are_what_bootstrap_gives_of_each():
    random = np.random.default_rng(0)
    right = random.random((4, 60)) < 0.6
    groups = [f"g{i // 4}" for i in range(60)]
    shares = metrics.bootstrap_shares(right, groups=groups, draws=1500, seed=3)
    for one, drawn in zip(right, shares, strict=True):
        single = metrics.bootstrap(lambda rows, one=one: one[rows].mean(), 60, groups=groups, draws=1500, seed=3)
        mine = metrics.from_shares(one.mean(), drawn)
        assert (mine.low, mine.high) == pytest.approx((single.low, single.high))
        paired = metrics.paired_bootstrap(
            lambda rows, one=one: one[rows].mean(), lambda rows: right[0][rows].mean(), 60,
            groups=groups, draws=1500, seed=3,
        )  # fmt: skip
        mine = metrics.from_shares(one.mean(), drawn, (right[0].mean(), shares[0]))
        assert (mine.value, mine.low, mine.high) == pytest.approx((paired.value, paired.low, paired.high), abs=1e-9)
        assert mine.p == pytest.approx(paired.p, abs=0.02)


def test_holm_is_the_textbook_s():
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert metrics.holm([]) == []


def test_the_grid_has_each_wording_once_and_the_baseline_first():
    tried = variants(Grid(templates=("bare", "single", "actionclip")), WORDS, baseline="single")
    names = [one.name for one in tried]
    assert names[0] == "single"
    assert len(set(names)) == len(names)
    assert not any("probability" in name or "weighted" in name for name in names if not name.startswith("actionclip"))
    assert not any("split" in name or "verbatim" in name for name in names)  # these labels are phrases already
    assert "actionclip, + synonyms, + descriptions, mean probability, likeliest word" in names
    plain = LabelSet.of(["UseLaptop", "drink"])
    assert [one.name for one in variants(Grid(templates=("bare",)), plain, baseline="bare")] == [
        "bare",
        "bare, split names",
        "bare, verbatim names",
    ]
    with pytest.raises(ConfigError, match="did you mean 'weighted'"):
        Grid(pooling=("weigted",))
    with pytest.raises(LabelError, match="no prompt set 'actoin'"):
        variants(Grid(templates=("actoin",)), WORDS, baseline="bare")


def test_every_variant_has_a_name_of_its_own(tmp_path):
    texts = {"a": 'name = "mine"\ntemplates = ["a {}"]', "b": 'name = "mine"\ntemplates = ["b {}"]'}
    texts["c"] = 'name = "c"\ntemplates = ["{} c"]\n[wording]\nwords = ["descriptions"]'
    paths = {name: str(tmp_path / f"{name}.toml") for name in texts}
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    full = replace(WORDS, about={label: LabelDetails(descriptions=(f"So {label}.",)) for label in LABELS})
    first, *others = variants(Grid(templates=(paths["c"],)), full, baseline=paths["c"])
    assert first.name == "c, no phrase, + descriptions"
    assert "c, + descriptions" in [one.name for one in others]
    with pytest.raises(ConfigError, match="two prompt sets of the sweep are called 'mine'"):
        variants(Grid(templates=(paths["a"], paths["b"])), WORDS, baseline="bare")


def test_tables_hold_every_wording_and_every_label(found):
    result, *_ = found
    lines = list(csv.DictReader(io.StringIO(table(result))))
    assert [float(line["top_1"]) for line in lines] == sorted((float(line["top_1"]) for line in lines), reverse=True)
    assert len(lines) == len(result.rows)
    (base,) = [line for line in lines if line["variant"].endswith("(baseline)")]
    assert base["p_holm"] == base["difference"] == ""
    assert {line["frames"] for line in lines} == {"4", "2"}
    classes = list(csv.DictReader(io.StringIO(class_table(result))))
    assert len(classes) == 3 * len(result.rows)
    assert math.isclose(sum(int(line["samples"]) for line in classes), result.samples * len(result.rows))


def test_a_long_list_of_wordings_is_folded(found, monkeypatch):
    result, *_ = found
    monkeypatch.setattr(sweep_files, "_LISTED", 3)
    shown, _, folded = page(result).partition("<details>")
    assert shown.count("<tr><th") + shown.count('<tr class="base"') <= 5  # the head, three wordings, the baseline
    assert f"<th>{result.rows[0].variant.name}</th>" in shown
    others = [row for row in result.best_first[3:] if row is not result.rows[0]]
    assert all(f">{row.variant.name}</th>" in folded for row in others)
    assert f"The other {len(others)} wordings" in folded
    assert f"<th>{result.rows[0].variant.name}</th>" not in folded


def test_the_page_is_written_with_all_words_escaped(found, tmp_path):
    result, *_ = found
    spiteful = replace(result, labels=("<script>", *result.labels[1:]))
    assert "<script" not in page(spiteful)
    assert "must be reported on others" in page(result)
    paths = write_sweep(result, tmp_path / "a" / "b")
    said = zero_shot_status(result.run)
    assert said.startswith("zero-shot or not is unknown: ")
    assert said in paths[0].read_text()
    assert html.escape(said) in paths[3].read_text()
    assert [path.name for path in paths] == ["sweep.csv", "classes.csv", "confusions.csv", "sweep.html"]


def test_a_browser_shows_the_page_on_a_phone(found, chromium, tmp_path):
    write_sweep(found[0], tmp_path)
    seen, log = on_a_phone(chromium, tmp_path / "sweep.html")
    assert seen["width"] <= 360
    assert seen["height"] > 1500
    assert "CONSOLE" not in log


def test_captions_are_not_swept(found, tmp_path):
    (tmp_path / "captions.csv").write_text("path,caption\nvideos/00.mp4,a square moves\n")
    protocol = manifest_protocol(tmp_path / "captions.csv")
    samples = replace(read_samples(protocol, tmp_path, allow_mismatch=True), labels=None)
    with pytest.raises(UsageError, match="a sweep is for labels"):
        sweep(protocol, samples, found[3])
