import pytest
import torch

from clipact.training.plan import plan_run, verify_run
from tests.training.small_run import small_recipe, small_run


@pytest.fixture
def run(small, drawn, tmp_path):
    return lambda **tables: small_run(small_recipe(small, **tables), drawn, tmp_path / "store")


def test_a_plan_says_what_learns_and_what_it_costs(run, tmp_path):
    plan = plan_run(run())
    visual, text = plan.towers
    assert (visual.learns, visual.kept, visual.kept_chunks) == ("all", False, 0)
    assert visual.learning == visual.all > 0
    assert visual.batch_norm == "taken in once a step"
    assert text.batch_norm == "none there"
    assert visual.chunks >= 2, "pictures and clips are chunks of their own"
    assert (plan.steps, plan.entries, plan.batch, plan.accumulate) == (8, 13, 5, 2)
    assert len(plan.step_seconds) == 3
    assert plan.run_seconds > 0
    assert plan.graph_bytes > 0
    assert plan.expected_memory_bytes > plan.graph_bytes + 3 * 4 * visual.learning
    assert sorted(path.name for path in tmp_path.iterdir()) == [], "nothing is written"


def test_a_plan_of_heads_on_frozen_bodies(run):
    heads = {"learns": "head", "unfreeze_step": 5}
    plan = plan_run(run(visual=heads, text={"learns": "nothing"}, train={"memory_gb": 1.0}))
    visual, text = plan.towers
    assert (visual.kept, text.kept) == (True, True)
    assert 0 < visual.learning < visual.all
    assert (text.learning, text.batch_norm, visual.batch_norm) == (0, "none there", "frozen")
    assert visual.kept_chunks == visual.chunks, "a gigabyte keeps every graph"
    assert plan.later == ("from step 5 on visual learns all",)


@pytest.mark.parametrize("tables", [{}, {"train": {"loss": "sigmoid"}}, {"visual": {"learns": "head"}}])
def test_the_gradient_of_a_run_is_plain_autograds(run, tables):
    here = run(**tables)
    before = {name: value.clone() for name, value in here.encoder.state_dict().items()}
    check = verify_run(here)
    assert set(check.differences) >= {"visual", "text", "log_scale"}
    assert max(check.differences.values()) <= 1e-6
    assert all(torch.equal(value, before[name]) for name, value in here.encoder.state_dict().items())
