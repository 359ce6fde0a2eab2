"""What every baseline promises: it is made small, learns in one run, and names labels of its own."""

import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.errors import UsageError
from clipact.models.nn.inserts import INSERTS
from clipact.train.baselines import BASELINES, baseline_recipe
from clipact.train.initialization import make_encoder
from clipact.train.recipe import Recipe

CLIP = ClipSpec(frames=8, size=(64, 64))
LABELS = ("hug", "kick", "push")
REST = {"trained_on": ["drawn"], "data": {"sources": [{"manifest": "clips.csv"}]}, "train": {"steps": 1}}


@pytest.mark.parametrize(
    "name", [*(name for name, one in BASELINES.items() if one.on != "tower"), *(f"i3d+{kind}" for kind in INSERTS)]
)
def test_a_baseline_learns_labels_from_small_clips(name):
    recipe = parse(Recipe, baseline_recipe(name, clip=CLIP, **REST))
    assert recipe.train.loss == "cross_entropy"
    assert recipe.trained_on == ("drawn",)
    encoder = make_encoder(recipe.init, seed=0, labels=LABELS)
    assert encoder.text.labels == LABELS
    assert (encoder.spec.frames, encoder.spec.size) == (8, (64, 64))
    assert (recipe.visual.trainable == "head") == (BASELINES[name.partition("+")[0]].on == "model")
    video = torch.randn(1, 8, 3, 64, 64)
    with torch.inference_mode():
        logits = encoder.eval().logits(encoder.encode_video(video), encoder.encode_text(LABELS))
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()


def test_a_name_that_means_nothing_is_refused():
    for name, said in (
        ("i4d", "did you mean 'i3d'"),
        ("i3d+cbm", "did you mean 'cbam'"),
        ("lstm+se", "lstm takes no insert; these do: i3d"),
        ("i3d:mini", "stands on no model"),
        ("videomae", "name its folder"),
    ):
        with pytest.raises(UsageError, match=said):
            baseline_recipe(name, clip=CLIP)
    with pytest.raises(UsageError, match="multiples of 32"):
        baseline_recipe("swin3d", clip=ClipSpec(frames=8, size=(48, 64)))
