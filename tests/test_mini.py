"""The weights that are shipped: whole, small, said to be what they are, and of sound mind."""

import csv
import re

import pytest
import torch
from safetensors import safe_open

from clipact.config import asset_path
from clipact.models.checkpoint import WEIGHTS, load_checkpoint, read_config
from clipact.models.dual_encoder import DualEncoder, normalise_frames
from clipact.video.load import load_clip

FOLDER = asset_path("mini")
EXAMPLES = FOLDER.parents[2] / "examples"


@pytest.fixture(scope="module")
def mini() -> DualEncoder:
    return load_checkpoint(FOLDER)


def test_the_folder_is_small_and_whole():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {"config.json", WEIGHTS, "tokenizer.json", "MODEL_CARD.md", "trained_on.csv"}
    assert sum(files.values()) <= 60_000_000
    with safe_open(FOLDER / WEIGHTS, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            tensor = weights.get_tensor(name)
            assert tensor.dtype == torch.float16 or tensor.ndim == 0, name  # scalars keep their precision
            assert tensor.isfinite().all(), name


def test_card_config_and_list_of_pictures_agree():
    with (FOLDER / "trained_on.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    config = read_config(FOLDER)
    assert config.name == "mini"
    assert config.trained_on == ("flickr8k train", "sports22 train")
    assert config.license in card
    assert f"{len(rows):,} photographs" in card
    assert len({row["path"] for row in rows}) == len({row["sha256"] for row in rows}) == len(rows)
    assert {row["source"] for row in rows} == {"flickr8k/captions.csv", "sports22"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) for row in rows)
    assert all(re.fullmatch(r"[0-9a-f]{16}", row["difference_hash"]) for row in rows)


def test_sentences_of_one_meaning_lie_together(mini):
    pairs = [
        ("A dog runs across the grass.", "A puppy is running through a meadow."),
        ("Two men play football.", "Soccer players fight for the ball."),
        ("A child swims in a pool.", "A little boy is in the water."),
        ("A woman climbs a rock.", "A climber hangs on a cliff."),
    ]
    with torch.inference_mode():
        first, second = (mini.encode_text(side) for side in zip(*pairs, strict=True))
    assert (first @ second.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_real_clips_are_embedded_alike_twice_and_as_clips_of_people(mini):
    names = ("reading_newspaper", "eating_biscuits", "drinking_then_falling", "reading_while_walking")
    clips = [load_clip(EXAMPLES / f"{name}.mp4", spec=mini.spec) for name in names]
    video = torch.stack([normalise_frames(clip.frames, mini.spec) for clip in clips])
    with torch.inference_mode():
        embeddings = mini.encode_video(video)
        assert torch.equal(mini.encode_video(video), embeddings)
        mini.precision = "bf16"
        assert (mini.encode_video(video) * embeddings).sum(1).min() > 0.995
        mini.precision = "fp32"
        people, others = mini.encode_text(["A person in a room.", "A dog plays in the snow."])
    assert (embeddings @ people > embeddings @ others).all()
