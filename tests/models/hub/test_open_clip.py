import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from clipact.errors import ModelError
from clipact.models.dual_encoder import DualEncoder, normalise_frames
from clipact.models.hub.open_clip import load_open_clip
from clipact.models.hub.open_clip_source import find_open_clip_source
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.video.transforms import fit_frame
from tests.tiny_open_clip import MODELS, open_clip_folder

SENTENCES = ["a man is drinking", "Reading, a book!", "läuft", "a " * 200, ""]


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request, tmp_path_factory):
    """Ours, and open_clip's own model, preprocessing and tokenizer, of one folder."""
    import open_clip

    folder = open_clip_folder(tmp_path_factory.mktemp("models") / request.param, request.param)
    parts = load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    ours = DualEncoder(FrameAggregator(parts.image), parts.text, log_scale=parts.log_scale, bias=parts.bias).eval()
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return ours, theirs.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def _pictures(spec, count):
    return torch.randn(count, 3, *spec.size, generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def test_embeddings_and_logits_are_open_clips_own(pair):
    ours, theirs, _, tokenizer = pair
    pictures = _pictures(ours.spec, 3)
    image = theirs.encode_image(pictures, normalize=True)
    text = theirs.encode_text(tokenizer(SENTENCES), normalize=True)
    logits = theirs.logit_scale.exp() * image @ text.T
    if theirs.logit_bias is not None:
        logits = logits + theirs.logit_bias
    clips, sentences = ours.encode_video(pictures[:, None]), ours.encode_text(SENTENCES)
    torch.testing.assert_close(clips, image, rtol=0, atol=1e-6)
    torch.testing.assert_close(sentences, text, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.logits(clips, sentences), logits, rtol=0, atol=2e-5)  # the scale is about 7
    assert clips.std(0).max() > 1e-4, "equal embeddings of different pictures would make this test empty"


@torch.inference_mode()
def test_a_clip_is_the_mean_of_its_frames_raw_features(pair):
    ours, theirs, _, _ = pair
    pictures = _pictures(ours.spec, 4)
    features = theirs.encode_image(pictures, normalize=False)
    expected = F.normalize(torch.stack([features[:2].mean(0), features[2:].mean(0)]), dim=-1)
    clips = ours.encode_video(pictures.unflatten(0, (2, 2)))
    torch.testing.assert_close(clips, expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_another_size_is_seen_as_open_clip_sees_it_or_refused_in_a_sentence(pair, request):
    ours, theirs, _, _ = pair
    height, width = ours.spec.size
    pictures = torch.randn(2, 3, height // 2, 2 * width, generator=torch.Generator().manual_seed(3))  # as many patches
    if request.node.callspec.params["pair"] == "mobileclip":
        expected = theirs.encode_image(pictures, normalize=True)
        torch.testing.assert_close(ours.encode_video(pictures[:, None]), expected, rtol=0, atol=1e-6)
    else:
        with pytest.raises(ModelError, match=rf"this tower takes \({height}, {width}\)"):
            ours.encode_video(pictures[:, None])


@pytest.mark.parametrize("size", [(97, 61), (301, 400), (32, 32)])
def test_pictures_are_prepared_as_open_clip_does(pair, size):
    ours, _, preprocess, _ = pair
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    frames = fit_frame(pixels, ours.spec)[None]
    assert torch.equal(normalise_frames(frames, ours.spec)[0], preprocess(Image.fromarray(pixels)))


def test_tokens_are_open_clips(pair):
    ours, _, _, tokenizer = pair
    assert torch.equal(ours.text.tokenize(SENTENCES), tokenizer(SENTENCES))


def test_the_two_towers_share_no_weights(pair):
    ours, theirs, _, _ = pair
    visual, text = ({p.data_ptr() for p in tower.parameters()} for tower in (ours.visual, ours.text))
    assert visual
    assert text
    assert not visual & text
    # Nothing that embeds is left out: all of it but the scalars, and CoCa's decoder.
    count = sum(p.numel() for p in ours.parameters())
    decoder = getattr(theirs, "text_decoder", None)
    spare = 0 if decoder is None else sum(p.numel() for p in decoder.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) - spare


@pytest.fixture
def folder(tmp_path) -> Path:
    return open_clip_folder(tmp_path / "vit", "vit")


def test_every_weight_is_the_files(folder):
    parts = load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    kept = load_file(folder / "open_clip_model.safetensors")
    visual = {name.removeprefix("visual."): value for name, value in kept.items() if name.startswith("visual.")}
    assert visual
    for name, value in parts.image.network.state_dict().items():
        assert torch.equal(value, visual[name])


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "weights.pt", "weights.pth"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_executed(folder, tmp_path, name, zipped):
    weights = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    mark = tmp_path / "executed"
    torch.save({"state_dict": weights, "trap": _Trap(mark)}, folder / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="more than tensors"):
        load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    assert not mark.exists()
    with (folder / name).open("wb") as file:  # and as a bare pickle
        pickle.dump(_Trap(mark), file, protocol=2)
    with pytest.raises(ModelError, match="more than tensors"):
        load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    assert not mark.exists()


def test_a_pickle_of_tensors_is_read(folder):
    expected = load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    weights = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    training = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}
    torch.save(training, folder / "epoch_3.pt")
    parts = load_open_clip(find_open_clip_source(f"local-dir:{folder}"))
    for a, b in zip(parts.image.parameters(), expected.image.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_tokenizer_brings_no_code(tmp_path):
    """A model's own configuration asks for its code to be trusted: it is not."""
    folder = open_clip_folder(tmp_path / "siglip", "siglip")
    mark = tmp_path / "executed"
    (folder / "trap.py").write_text(
        f"from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\nPath({str(mark)!r}).touch()\n"
        "class Trap(PreTrainedTokenizerFast):\n    pass\n"
    )
    table = json.loads((folder / "tokenizer_config.json").read_text())
    table |= {"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": [None, "trap.Trap"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(table))
    table = json.loads((folder / "open_clip_config.json").read_text())
    table["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(table))
    text = load_open_clip(find_open_clip_source(f"local-dir:{folder}")).text
    with pytest.raises(ModelError, match="tokenizer"):
        text.load_tokenizer()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: shutil.copy(path.parent / "open_clip_config.json", path), "damaged"),
    ],
)
def test_damaged_weights_are_named(folder, damage, message):
    damage(folder / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=rf"open_clip_model\.safetensors.*{message}"):
        load_open_clip(find_open_clip_source(f"local-dir:{folder}"))


def test_weights_of_another_architecture_are_named(folder, tmp_path):
    other = open_clip_folder(tmp_path / "mobileclip", "mobileclip")
    shutil.copy(other / "open_clip_model.safetensors", folder)
    with pytest.raises(ModelError, match="does not fit"):
        load_open_clip(find_open_clip_source(f"local-dir:{folder}"))


def test_an_architecture_that_open_clip_does_not_know(folder):
    path = folder / "open_clip_config.json"
    table = json.loads(path.read_text())
    table["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_of_next_year"
    path.write_text(json.dumps(table))
    with pytest.raises(ModelError, match="vit_of_next_year"):
        load_open_clip(find_open_clip_source(f"local-dir:{folder}"))


def test_an_open_clip_model_can_be_kept_as_a_clipact_folder(pair, tmp_path):
    from clipact.models.checkpoint import load_checkpoint
    from clipact.models.save_checkpoint import save_model

    ours = pair[0]
    kept = load_checkpoint(save_model(ours, tmp_path / "kept", name="kept"))
    pictures = _pictures(ours.spec, 2)[:, None]
    with torch.inference_mode():
        torch.testing.assert_close(kept.encode_video(pictures), ours.encode_video(pictures), rtol=0, atol=1e-6)
        torch.testing.assert_close(kept.encode_text(SENTENCES), ours.encode_text(SENTENCES), rtol=0, atol=1e-6)
    assert kept.spec == ours.spec
