from dataclasses import replace

import pytest
import torch

from clipact.embed import embed_clips as engine
from clipact.train import dry_run as plan
from clipact.train import encoding_plan
from clipact.train.clip_reader import ClipReader
from clipact.train.dry_run import dry_run, verify_run
from clipact.train.encoding_plan import EncodingPlan
from clipact.train.sentence_reader import SentenceReader
from clipact.train.verify_gradient import verify_gradient
from tests.data.drawing import draw_picture, write_manifest
from tests.train.small_run import small_recipe, small_run


@pytest.fixture
def run(small, drawn, tmp_path):
    return lambda **tables: small_run(small_recipe(small, **tables), drawn, tmp_path / "store")


def test_a_plan_says_what_learns_and_what_it_costs(run, tmp_path):
    made = dry_run(run())
    (phase,) = made.phases
    visual, text = phase.towers
    assert (visual.trainable, visual.cached, visual.retained_chunks) == ("all", False, 0)
    assert visual.trained_parameters == visual.parameters > 0
    assert visual.batch_norm == "each chunk taken in once a step"
    assert text.batch_norm == "none there"
    assert visual.chunks >= 2, "pictures and clips are chunks of their own"
    assert (made.steps, made.examples, made.batch) == (8, 13, 5)
    assert (phase.first, phase.last, len(phase.step_seconds)) == (0, 8, 3)
    assert made.encoding == EncodingPlan(), "both backbones are trained"
    assert made.run_seconds == pytest.approx(8 * min(phase.step_seconds))
    assert phase.graph_bytes > 0
    assert made.expected_memory_bytes > phase.graph_bytes + 3 * 4 * visual.trained_parameters
    assert sorted(path.name for path in tmp_path.iterdir()) == [], "nothing is written"


def test_a_plan_has_a_part_for_each_stretch_in_which_the_same_things_learn(run):
    heads = {"trainable": "head", "unfreeze_step": 6}
    made = dry_run(run(visual=heads, text={"trainable": "nothing"}, train={"graph_memory_gb": 1.0}))
    first, second = made.phases
    visual, text = first.towers
    assert (visual.cached, text.cached) == (True, True)
    assert 0 < visual.trained_parameters < visual.parameters
    assert (text.trained_parameters, text.batch_norm, visual.batch_norm) == (0, "none there", "frozen")
    assert visual.retained_chunks == visual.chunks, "a gigabyte keeps every graph"
    visual, text = second.towers
    assert (visual.trainable, visual.cached, text.cached) == ("all", False, True)
    assert visual.trained_parameters == visual.parameters
    assert second.graph_bytes > first.graph_bytes
    assert [(part.first, part.last, len(part.step_seconds)) for part in made.phases] == [(0, 6, 3), (6, 8, 2)]
    assert made.steps_seconds == pytest.approx(6 * min(first.step_seconds) + 2 * min(second.step_seconds))
    encoding = made.encoding
    assert min(encoding.clip_seconds, encoding.sentence_seconds) > 0
    assert made.run_seconds == encoding.clip_seconds + encoding.sentence_seconds + made.steps_seconds


@pytest.fixture
def pictures(tmp_path):
    """Two hundred pictures, a caption each."""
    rows = []
    for number in range(200):
        draw_picture(tmp_path / f"data/pictures/{number}.png", shade=number)
        rows.append({"path": f"pictures/{number}.png", "caption": f"this is {number}"})
    write_manifest(tmp_path / "data/many.csv", *rows)
    return tmp_path / "data"


FROZEN = {
    "data": {"sources": [{"manifest": "many.csv"}], "cached_augmentations": 2},
    "visual": {"trainable": "head"},
    "text": {"trainable": "head"},
    "validation": {"sets": []},
}


def _count_decoded(monkeypatch):
    """What is decoded from here on."""
    decoded = []
    for name in ("collect_frames", "load_wanted"):
        real = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda *a, real=real, **b: decoded.append(a[0]) or real(*a, **b))
    return decoded


def test_a_dry_run_encodes_what_its_steps_draw_and_keeps_nothing(small, pictures, tmp_path, monkeypatch):
    recipe = small_recipe(small, train={"batch": 4, "steps": 100}, **FROZEN)
    decoded = _count_decoded(monkeypatch)
    encoding = dry_run(small_run(recipe, pictures, tmp_path / "store")).encoding
    assert 0 < len(decoded) <= 12
    assert (encoding.clips, encoding.sentences) == (400, 200), "in two epochs everything is drawn"
    assert (encoding.cached_clips, encoding.cached_sentences) == (0, 0)
    assert encoding.clip_bytes == 400 * 8 * 4
    assert encoding.sentence_bytes == 200 * 16 * 4
    assert not (tmp_path / "store").exists()


def test_a_short_run_encodes_what_it_draws_and_its_plan_says_so(small, pictures, tmp_path, monkeypatch):
    recipe = small_recipe(small, train={"batch": 4, "steps": 10}, **FROZEN)
    encoding = dry_run(small_run(recipe, pictures, tmp_path / "store")).encoding
    decoded = _count_decoded(monkeypatch)
    for _ in small_run(recipe, pictures, tmp_path / "store").train(tmp_path / "out"):
        pass
    assert (encoding.clips, encoding.sentences) == (40, 40)
    assert len(decoded) == 40
    encoding = dry_run(small_run(recipe, pictures, tmp_path / "store")).encoding
    assert (encoding.cached_clips, encoding.cached_sentences) == (40, 40)
    assert len(decoded) <= 40 + 12


def test_an_estimate_is_of_fresh_and_of_cached_clips_at_what_each_was_measured_to_cost(
    small, pictures, tmp_path, monkeypatch
):
    """By a clock that goes on where something is encoded or looked for, and nowhere else."""
    clock = [0.0]

    def takes(owner, name, seconds):
        real = getattr(owner, name)

        def slow(self, *words):
            clock[0] += seconds * len(words[-1])
            return real(self, *words)

        monkeypatch.setattr(owner, name, slow)

    recipe = small_recipe(small, train={"batch": 4, "steps": 100}, **FROZEN)
    half = replace(recipe, train=replace(recipe.train, steps=25))
    for _ in small_run(half, pictures, tmp_path / "store").train(tmp_path / "out"):
        pass
    monkeypatch.setattr(encoding_plan, "monotonic", lambda: clock[0])
    monkeypatch.setattr(encoding_plan, "_LOOKED_UP", 1000)
    takes(ClipReader, "read_into", 3.0)
    takes(ClipReader, "count_cached", 0.5)
    takes(SentenceReader, "_encode", 2.0)
    encoding = dry_run(small_run(recipe, pictures, tmp_path / "store")).encoding
    assert (encoding.cached_clips, encoding.cached_sentences) == (100, 100)
    assert encoding.clip_seconds == pytest.approx(300 * 3.0 + 100 * 0.5)
    assert encoding.sentence_seconds == pytest.approx(100 * 2.0)


def test_teachers_encode_too(small, pictures, tmp_path, monkeypatch):
    recipe = small_recipe(
        small,
        train={"batch": 4, "steps": 100},
        data={"sources": [{"manifest": "many.csv"}]},
        validation={"sets": []},
        distillation={"teachers": [str(small)]},
    )
    decoded = _count_decoded(monkeypatch)
    encoding = dry_run(small_run(recipe, pictures, tmp_path / "store")).encoding
    assert (encoding.clips, encoding.sentences) == (200, 200)
    assert len(decoded) <= 12, "the model's own clips are read by the loader"


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"train": {"loss": "sigmoid", "graph_memory_gb": 1.0}},
        {"visual": {"trainable": "head"}, "sentences": 2},
        {"visual": {"trainable": "head", "unfreeze_step": 3}, "text": {"trainable": "nothing", "unfreeze_step": 6}},
    ],
)
def test_the_gradient_of_a_run_is_plain_autograds_whatever_learns(run, tables):
    here = run(**tables)
    before = {name: value.clone() for name, value in here.encoder.state_dict().items()}
    checks = verify_run(here)
    assert list(checks) == list(here.freezing.phase_starts)
    assert set(checks[max(checks)].differences) >= {"visual", "text", "log_scale"}
    assert all(max(check.differences.values()) <= 1e-6 for check in checks.values())
    assert all(torch.equal(value, before[name]) for name, value in here.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("cache", "chunk", "sentences", "most"), [(False, 32, 1, 96 + 16), (True, 4, 1, 12 + 2), (True, 4, 7, 2 * 2)]
)
def test_a_check_keeps_the_graphs_of_three_and_a_half_chunks_at_most(run, monkeypatch, cache, chunk, sentences, most):
    """Of 16 frames a file, that is; or of 2 clips, where their features are kept; or of 7 sentences."""
    looked_at = []

    def watched(encoders, inputs, **options):
        looked_at.append(sum(piece.shape[: 1 if cache else 2].numel() for piece in inputs[0].rows))
        return verify_gradient(encoders, inputs, **options)

    monkeypatch.setattr(plan, "verify_gradient", watched)
    sources = [{"manifest": "clips.csv", "frames": 8, "clips": 2, "sentences": sentences}]
    verify_run(
        run(
            train={"batch": 100, "chunk": chunk},
            data={"sources": sources, "cache": cache},
            visual={"trainable": "head"},
        )
    )
    assert looked_at == [most]
