import pytest
import torch

from clipact.train import dry_run as plan
from clipact.train.dry_run import dry_run, verify_run
from clipact.train.verify_gradient import verify_gradient
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
    assert made.run_seconds == pytest.approx(6 * min(first.step_seconds) + 2 * min(second.step_seconds))


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
