"""transformers' video networks behind our tower: the same features, and other lengths as they were meant."""

import pytest
import torch

from clipact.clip_spec import ClipSpec
from clipact.errors import ConfigError, ModelError
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import DualEncoder
from clipact.models.hub.transformers import quiet_transformers
from clipact.models.hub.transformers_source import find_transformers_source
from clipact.models.hub.transformers_video import TransformersVideo, load_tower
from clipact.models.nn.attention import interpolate_positions
from clipact.models.save_checkpoint import save_model
from clipact.models.towers.tower import Head
from clipact.train.initialization import InitConfig, PretrainedWeights, make_encoder
from tests.tiny_transformers import MODELS, PREFIX, VIDEO, transformers_folder

HEAD = Head.Config(dim=6, blocks=0)


@pytest.fixture(scope="module", params=VIDEO)
def pair(request, tmp_path_factory):
    import transformers

    folder = transformers_folder(tmp_path_factory.mktemp("models") / request.param, request.param)
    with quiet_transformers():
        theirs = getattr(transformers, f"{PREFIX[request.param]}Model").from_pretrained(folder).eval()
    return load_tower(find_transformers_source(str(folder)), head=HEAD), theirs, folder


def _video(frames, size=(32, 32)):
    return torch.randn(2, frames, 3, *size, generator=torch.Generator().manual_seed(frames))


def _vector(theirs, video):
    seen = theirs(video, skip_predictor=True) if "VJEPA2" in type(theirs).__name__ else theirs(video)
    tokens = seen.last_hidden_state
    return tokens[:, 0] if type(theirs).__name__[:5] in ("Times", "Vivit") else tokens.mean(1)


@torch.inference_mode()
def test_features_are_transformers_own(pair):
    tower, theirs, _ = pair
    video = _video(4)
    found = tower.features(video)
    torch.testing.assert_close(found, _vector(theirs, video), rtol=0, atol=1e-6)
    assert found.std(0).max() > 1e-3, "equal features of different clips would make this test empty"


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8])
def test_other_lengths_work_or_say_what_is_allowed(pair, frames):
    tower = pair[0]
    if frames % tower.tubelet:
        with pytest.raises(ModelError, match=f"{frames} frames; .* sees 2 at a time and takes multiples"):
            tower(_video(frames))
        return
    found = tower(_video(frames))
    assert found.isfinite().all()
    torch.testing.assert_close(found[:1], tower(_video(frames)[:1]), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["videomae", "vivit"])
def test_another_length_is_the_network_made_for_it_with_stretched_positions(family, tmp_path):
    from transformers import AutoConfig, VideoMAEModel, VivitModel

    folder = transformers_folder(tmp_path / family, family)
    tower = load_tower(find_transformers_source(str(folder)), head=HEAD)
    config = AutoConfig.from_pretrained(folder)
    config.num_frames = 8
    longer = {"videomae": VideoMAEModel, "vivit": VivitModel}[family](config).eval()
    weights, positions = tower.network.state_dict(), tower.network.embeddings.position_embeddings[0]
    places = positions[-2 * 16 :].reshape(2, 16, -1)
    stretched = torch.cat([positions[: len(positions) - 32], interpolate_positions(places, 4).flatten(0, 1)])[None]
    weights["embeddings.position_embeddings"] = stretched
    longer.load_state_dict(weights, strict=False)
    longer.embeddings.position_embeddings.data = stretched
    video = _video(8)
    torch.testing.assert_close(tower.features(video), _vector(longer, video), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_v_jepa_2_takes_other_lengths_as_one_that_was_made_for_them(tmp_path):
    """Its positions are rotations of step, row and column: nothing is stretched."""
    from transformers import AutoConfig, VJEPA2Model

    folder = transformers_folder(tmp_path / "vjepa2", "vjepa2")
    tower = load_tower(find_transformers_source(str(folder)), head=HEAD)
    config = AutoConfig.from_pretrained(folder)
    config.frames_per_clip = 8
    longer = VJEPA2Model(config).eval()
    longer.encoder.load_state_dict(tower.network.state_dict())
    video = _video(8)
    expected = longer(video, skip_predictor=True).last_hidden_state.mean(1)
    torch.testing.assert_close(tower.features(video), expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_timesformer_sees_other_lengths_as_one_that_was_made_for_them(tmp_path):
    """transformers' own layers take the number of frames from the configuration, and mix them up when it is another."""
    from transformers import TimesformerConfig, TimesformerModel

    folder = transformers_folder(tmp_path / "timesformer", "timesformer")
    tower = load_tower(find_transformers_source(str(folder)), head=HEAD)
    table = {**MODELS["timesformer"][0], "num_frames": 8}
    longer = TimesformerModel(TimesformerConfig(**table)).eval()
    weights = tower.network.state_dict()
    weights["embeddings.time_embeddings"] = weights["embeddings.time_embeddings"].repeat_interleave(2, dim=1)
    longer.load_state_dict(weights)
    video = _video(8)
    torch.testing.assert_close(tower.features(video), _vector(longer, video), rtol=0, atol=1e-6)
    torch.testing.assert_close(tower.features(_video(4)), tower.eval().features(_video(4)), rtol=0, atol=0)


@torch.inference_mode()
def test_a_timesformer_from_nothing_tells_steps_apart(tmp_path):
    """transformers' own begins blind to the order of frames."""
    torch.manual_seed(0)
    table = {"model_type": "timesformer", **MODELS["timesformer"][0]}
    config = TransformersVideo.Config(model=table, head=HEAD)
    tower = TransformersVideo(config, spec=ClipSpec(frames=4, size=(32, 32))).eval()
    video = _video(4)
    assert (tower.features(video) - tower.features(video.flip(1))).abs().max() > 1e-4


@torch.inference_mode()
def test_timesformer_that_looks_along_space_alone_averages_the_frames_before_the_last_norm(tmp_path):
    table = {**MODELS["timesformer"][0], "attention_type": "space_only"}
    folder = transformers_folder(tmp_path / "timesformer", "timesformer", table=table)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 36}, "crop_size": 32}')
    tower = load_tower(find_transformers_source(str(folder)), head=HEAD)
    for frames in (1, 4, 7):
        video, network = _video(frames), tower.network
        norm, network.layernorm = network.layernorm, None
        each = torch.stack([network(video[:, t : t + 1]).last_hidden_state[:, 0] for t in range(frames)])
        network.layernorm = norm
        torch.testing.assert_close(tower.features(video), norm(each.mean(0)), rtol=0, atol=1e-6)


def test_it_is_kept_in_a_clipact_folder(pair, tiny, tmp_path):
    """Made again without a weight of its own, sines included, that the folder does not hold."""
    tower = load_tower(find_transformers_source(str(pair[2])), head=Head.Config(dim=16))
    kept = load_checkpoint(save_model(DualEncoder(tower, load_checkpoint(tiny).text), tmp_path / "kept", name="kept"))
    assert kept.spec == tower.spec
    for frames in (4, 8):
        with torch.inference_mode():
            torch.testing.assert_close(kept.visual(_video(frames)), tower(_video(frames)), rtol=0, atol=0)


def test_another_size_is_refused_in_a_sentence(pair):
    tower = pair[0]
    with pytest.raises(ModelError, match="this tower takes"):
        tower(_video(4, size=(40, 40)))
    with pytest.raises(ConfigError, match="takes 32 pixels along each side"):
        load_tower(find_transformers_source(str(pair[2])), head=HEAD, spec=ClipSpec(frames=4, size=(48, 48)))


def test_weights_of_a_classifier_are_a_towers_too(tmp_path):
    """Its last layers are left behind; ViViT's pooler, which it does not have, is not missed."""
    import transformers

    with quiet_transformers():
        for family, kind in (("vivit", "Vivit"), ("videomae", "VideoMAE")):
            folder = transformers_folder(tmp_path / family, family)
            config = transformers.AutoConfig.from_pretrained(folder)
            model = getattr(transformers, f"{kind}ForVideoClassification")(config).eval()
            model.save_pretrained(folder)
            tower = load_tower(find_transformers_source(str(folder)), head=HEAD)
            base = model.vivit if family == "vivit" else model.videomae
            with torch.inference_mode():
                torch.testing.assert_close(tower.features(_video(4)), _vector(base, _video(4)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"visual": {"tower": "vivit"}}, "init.visual.tower is 'transformers' then"),
        ({"visual": {"tower": "transformers", "hed": {}}}, "unknown key 'init.visual.hed'; did you mean 'head'"),
        ({"visual": {"tower": "transformers", "model": {}}}, "without model"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(start, message, pair, tiny):
    with pytest.raises(ConfigError, match=message):
        make_encoder(
            InitConfig(model=str(tiny), pretrained=PretrainedWeights(visual=f"transformers:{pair[2]}"), **start), seed=0
        )
