import re
import shutil

import pytest
from PIL import Image

from clipact import metrics
from clipact.errors import ResultError
from clipact.evaluate.metric_values import metric_values
from clipact.evaluate.results import zero_shot_status
from clipact.report import render_page, write_page
from clipact.report.page import titles
from tests.browser import browse, on_a_phone
from tests.browser import chromium as chromium
from tests.report.conftest import SPITEFUL, some_retrieval, some_scores


def test_every_word_is_escaped(data):
    text = render_page([some_scores(), some_retrieval()], data=data)
    assert "<script" not in text
    assert SPITEFUL not in text
    assert "&lt;script&gt;" in text


def test_the_page_needs_nothing_else(data):
    text = render_page([some_scores()], data=data)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:image/jpeg;base64,)""", text)
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("data:image/jpeg") > 3


def test_what_is_no_longer_zero_shot_or_whole_is_said():
    run = {"model": {"name": "m"}, "zero_shot": False, "zero_shot_why": "trained on drawn", "partial": True,
           "partial_why": ["2 files are missing"]}  # fmt: skip
    text = render_page([some_scores(run=run)])
    assert "not zero-shot" in text
    assert "trained on drawn" in text
    assert "2 files are missing" in text
    assert "not zero-shot" not in render_page([some_scores()])


def named(title, model, protocol="drawn"):
    return some_scores(run={"title": title, "protocol": protocol, "model": {"name": model}})


def headings(text, tag):
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)


def test_results_of_one_kind_stand_in_one_table_whatever_lies_between():
    text = render_page([some_scores(name="A"), some_retrieval(), some_scores(name="B")])
    summary = text[: text.index("In per cent, with 95")]
    heads = [re.findall("<th>([^<]+)</th>", row) for row in headings(summary, "thead")]
    assert heads == [["A · Drawn", "B · Drawn"], ["mini · Drawn retrieval"]]


def test_titles_say_what_tells_results_apart():
    assert titles([named("drawn", "a")]) == ("Drawn", ["a"])
    assert titles([named("drawn", "a"), named("drawn", "b")]) == ("Drawn", ["a", "b"])
    assert titles([named("x", "mini"), named("y", "mini")]) == ("Mini: 2 evaluations", ["x", "y"])
    assert titles([named("x", "a"), named("x", "a")])[1] == ["a · 1", "a · 2"]
    assert titles([named("x", "a"), named("x", "a", "x--logits")])[1] == ["a · drawn", "a · x--logits"]


def test_the_page_tells_figures_seconds_facts_and_the_surest_mistakes():
    result = some_scores()
    text = " ".join(render_page([result]).split())
    assert "<title>Drawn · mini · clipact</title>" in text
    assert headings(text, "h1") == ["Drawn"]
    top_1 = metric_values(result)[0]
    low, high = (f"{100 * value:.1f}" for value in (top_1.low, top_1.high))
    assert f'>top-1</th><td>{100 * top_1.value:.1f}<span class="range">{low} – {high}</span>' in text
    assert re.search(r"<th>encode</th><td><svg.*?</svg></td><td>2\.5 s</td>", text)
    assert f"<tr><th>model.key</th><td>{'0' * 64}</td></tr>" in text
    assert "<code>clipact eval drawn --model mini</code>" in text
    confidence = metrics.probabilities(result.scores).max(1) * ~metrics.hits(result.scores, result.truth)
    surest = int(confidence.argmax())
    at = text.index("Surest mistakes")
    assert f"with {100 * confidence[surest]:.1f} %" in text[at : at + 400]
    assert f'title="{result.samples[surest]}"' in text[at : at + 400]
    assert text.count(" samples, confidence ") == sum(bin.count > 0 for bin in metrics.reliability(
        metrics.probabilities(result.scores).max(1), metrics.hits(result.scores, result.truth)))  # fmt: skip


def test_what_is_not_known_to_be_zero_shot_is_said_in_the_same_words_everywhere():
    run = {"model": {"name": "m"}, "zero_shot": None, "zero_shot_why": "the model does not say"}
    assert zero_shot_status(run) in render_page([some_scores(run=run)])


def test_pictures_stay_below_the_data_folder(data):
    secret = data.parent / "secret.mp4"
    shutil.copy(data / "0.mp4", secret)
    result = some_scores(samples=tuple(f"../secret.mp4@0-0.{number + 100}" for number in range(60)))
    assert "data:image" not in render_page([result], data=data)
    outside = some_scores(run=some_scores().run | {"data": {"root": ".."}}, samples=("secret.mp4",) * 60)
    assert "data:image" not in render_page([outside], data=data)
    inside = some_scores(run=some_scores().run | {"data": {"root": data.name}})
    assert "data:image" in render_page([inside], data=data.parent)
    assert "data:image" not in render_page([some_scores()])


def test_many_labels_are_drawn_and_few_are_written():
    assert 'class="matrix"' in render_page([some_scores(labels=24)])
    many = render_page([some_scores(labels=101, count=300)])
    assert 'class="matrix"' not in many
    assert "Confusion matrix of 101 labels" in many


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ResultError, match="cannot be written"):
        write_page([some_scores()], tmp_path / "none" / "page.html")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(ResultError):
        write_page([some_scores()], tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_browser_shows_it_on_a_phone_without_a_complaint(chromium, tmp_path, data):
    write_page([some_scores(), some_scores(labels=40, count=200), some_retrieval()], tmp_path / "page.html", data=data)
    seen, log = on_a_phone(chromium, tmp_path / "page.html")
    assert seen["width"] <= 360
    assert seen["height"] > 3000
    assert seen["broken"] == 0 < seen["pictures"]
    assert "CONSOLE" not in log


def test_a_browser_prints_it(chromium, tmp_path):
    write_page([some_scores(labels=24), some_scores(labels=101, count=300)], tmp_path / "page.html")
    pdf = tmp_path / "page.pdf"
    browse(chromium, tmp_path, f"--print-to-pdf={pdf}", (tmp_path / "page.html").as_uri())
    raw = pdf.read_bytes()
    assert raw.startswith(b"%PDF")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", raw)) <= 25


def test_a_browser_draws_it(chromium, tmp_path):
    write_page([some_scores()], tmp_path / "page.html")
    shot = tmp_path / "shot.png"
    browse(chromium, tmp_path, f"--screenshot={shot}", "--window-size=900,1600", (tmp_path / "page.html").as_uri())
    colours = Image.open(shot).convert("RGB").getcolors(maxcolors=900 * 1600)
    assert len(colours) > 50
    assert {colour for _, colour in colours} >= {(255, 255, 255)}
