"""transformers' dual encoders behind our towers: the same embeddings, tokens and pictures, and none of their code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clipact.errors import ModelError
from clipact.models import zoo
from clipact.models.checkpoint import load_checkpoint
from clipact.models.dual_encoder import normalise_frames
from clipact.models.hub.transformers import load_transformers, quiet_transformers
from clipact.models.hub.transformers_source import DEFAULTS, find_transformers_source, transformers_clip_spec
from clipact.models.save_checkpoint import save_model
from clipact.video.transforms import fit_frame
from tests.tiny_transformers import PREFIX, transformers_folder

SENTENCES = ["a man is drinking", "reading, a book.", "läuft", "a " * 200, ""]


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2"])
def pair(request, tmp_path_factory):
    """Ours, transformers' own model and its tokenizer, of one folder."""
    import transformers

    folder = transformers_folder(tmp_path_factory.mktemp("models") / request.param, request.param)
    ours = zoo.load_model(f"transformers:{folder}", device="cpu").encoder
    with quiet_transformers():
        theirs = getattr(transformers, f"{PREFIX[request.param]}Model").from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return ours, theirs, tokenizer, folder


def _pictures(spec, count):
    return torch.randn(count, 3, *spec.size, generator=torch.Generator().manual_seed(3))


def _tokens(tokenizer, theirs):
    longest = theirs.config.text_config.max_position_embeddings
    padding = "longest" if theirs.config.model_type == "clip" else "max_length"
    return tokenizer(SENTENCES, padding=padding, truncation=True, max_length=longest, return_tensors="pt")["input_ids"]


def _image_features(theirs, pictures):
    if theirs.config.model_type != "siglip2":
        return theirs.get_image_features(pictures).pooler_output
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    patches = torch.from_numpy(np.stack([convert_image_to_patches(picture, 8) for picture in pictures.numpy()]))
    side = pictures.shape[-1] // 8
    return theirs.get_image_features(
        patches,
        pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
        spatial_shapes=torch.tensor([[side, side]] * len(patches)),
    ).pooler_output


@torch.inference_mode()
def test_embeddings_and_logits_are_transformers_own(pair):
    ours, theirs, tokenizer, _ = pair
    pictures, ids = _pictures(ours.spec, 3), _tokens(tokenizer, theirs)
    assert torch.equal(ours.text.tokenize(SENTENCES), ids)
    image = F.normalize(_image_features(theirs, pictures), dim=-1)
    text = F.normalize(theirs.get_text_features(ids).pooler_output, dim=-1)
    logits = theirs.logit_scale.exp() * image @ text.T
    if theirs.config.model_type != "clip":
        logits = logits + theirs.logit_bias
    clips, sentences = ours.encode_video(pictures[:, None]), ours.encode_text(SENTENCES)
    torch.testing.assert_close(clips, image, rtol=0, atol=1e-6)
    torch.testing.assert_close(sentences, text, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.logits(clips, sentences), logits, rtol=0, atol=2e-5)
    assert clips.std(0).max() > 1e-4, "equal embeddings of different pictures would make this test empty"
    assert sentences.std(0).max() > 1e-4


@torch.inference_mode()
def test_a_clip_is_the_mean_of_its_frames_raw_features(pair):
    ours, theirs, _, _ = pair
    pictures = _pictures(ours.spec, 4)
    features = _image_features(theirs, pictures)
    expected = F.normalize(torch.stack([features[:2].mean(0), features[2:].mean(0)]), dim=-1)
    torch.testing.assert_close(ours.encode_video(pictures.unflatten(0, (2, 2))), expected, rtol=0, atol=1e-6)


def test_nothing_is_left_out_and_no_weight_is_shared(pair):
    ours, theirs, _, _ = pair
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    visual, text = ({p.data_ptr() for p in tower.parameters()} for tower in (ours.visual, ours.text))
    assert not visual & text


def test_it_can_be_kept_as_a_clipact_folder(pair, tmp_path):
    ours = pair[0]
    kept = load_checkpoint(save_model(ours, tmp_path / "kept", name="kept"))
    pictures = _pictures(ours.spec, 2)[:, None]
    with torch.inference_mode():
        torch.testing.assert_close(kept.encode_video(pictures), ours.encode_video(pictures), rtol=0, atol=1e-6)
        torch.testing.assert_close(kept.encode_text(SENTENCES), ours.encode_text(SENTENCES), rtol=0, atol=1e-6)
    assert kept.spec == ours.spec


def test_another_size_is_refused_in_a_sentence(pair):
    with pytest.raises(ModelError, match="this tower takes"):
        pair[0].encode_video(torch.zeros(1, 1, 3, 36, 33))


# What older and newer files say; the sizes are small to be quick.
SAID = {
    "clip": [{}, {"size": 24, "crop_size": 24}, {"size": {"shortest_edge": 29}, "crop_size": {"height": 24, "width": 20}
             }, {"do_normalize": False}, {"rescale_factor": 0.01, "image_mean": [0.1, 0.2, 0.3]}],
    "siglip": [{}, {"size": {"height": 24, "width": 40}, "resample": 2}],
    "siglip2": [{}],
    "videomae": [{}, {"size": {"shortest_edge": 31}, "crop_size": {"height": 24, "width": 24}}],
    "vivit": [{}, {"offset": False, "rescale_factor": 1 / 255}],
}  # fmt: skip
PROCESSORS = {
    "clip": "CLIPImageProcessorPil",
    "siglip": "SiglipImageProcessorPil",
    "siglip2": "Siglip2ImageProcessorPil",
    "videomae": "VideoMAEImageProcessorPil",
    "vivit": "VivitImageProcessor",
}


@pytest.mark.parametrize(("family", "said"), [(family, said) for family, files in SAID.items() for said in files])
@pytest.mark.parametrize("shape", [(97, 61), (150, 200), (64, 64)])
def test_pictures_are_prepared_as_transformers_does(family, said, shape):
    import transformers

    spec = transformers_clip_spec(family, said)
    shape = (64, 64) if family == "siglip2" else shape  # of other shapes it keeps the aspect ratio, see clip_spec
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = normalise_frames(fit_frame(pixels, spec)[None], spec)[0]
    processor = getattr(transformers, PROCESSORS[family])(**said)
    picture = Image.fromarray(pixels)
    theirs = processor([picture], return_tensors="pt")["pixel_values"][0]
    if family == "siglip2":
        side = spec.size[0] // 16
        theirs = theirs.reshape(side, side, 16, 16, 3).permute(4, 0, 2, 1, 3).reshape(3, *spec.size)
    theirs = theirs.reshape(ours.shape)  # a video of one frame where it makes videos
    step = 1 / 255 / max(spec.std)  # one grey level; a difference in the picture is that at least
    torch.testing.assert_close(ours, theirs, rtol=0, atol=step / 1000)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"resample": 1}, "resample is 1"),
        ({"do_resize": False}, "do_resize is false"),
        ({"size": {"longest_edge": 224}}, "shortest_edge with a crop"),
        ({"size": 224, "crop_size": 256}, "no padding is known"),
        ({"image_std": [0, 0, 0]}, "cannot be meant"),
    ],
)
def test_a_preparation_that_no_spec_can_say_is_refused(said, message):
    with pytest.raises(ModelError, match=message):
        transformers_clip_spec("clip", said)


def test_every_family_has_a_preparation():
    for family in DEFAULTS:
        assert transformers_clip_spec(family, {}, frames=4).frames == 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return transformers_folder(tmp_path_factory.mktemp("clip") / "clip", "clip")


@pytest.fixture
def folder(clip, tmp_path) -> Path:
    return Path(shutil.copytree(clip, tmp_path / "clip"))


def test_a_pickle_of_tensors_is_read_and_no_other(clip, tmp_path):
    pickled = transformers_folder(tmp_path / "pickled", "clip", pickled=True)
    expected, found = (
        load_transformers(find_transformers_source(str(clip))),
        load_transformers(find_transformers_source(str(pickled))),
    )
    for a, b in zip(found.image.parameters(), expected.image.parameters(), strict=True):
        assert torch.equal(a, b)
    mark = tmp_path / "executed"
    torch.save({"trap": _Trap(mark)}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="more than tensors"):
        load_transformers(find_transformers_source(str(pickled)))
    assert not mark.exists()


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_models_own_code_is_not_run(folder, tmp_path):
    mark = tmp_path / "executed"
    (folder / "trap.py").write_text(
        "from pathlib import Path\nfrom transformers import CLIPModel, CLIPTokenizer\n"
        f"Path({str(mark)!r}).touch()\nclass Trap(CLIPTokenizer):\n    pass\nclass TrapModel(CLIPModel):\n    pass\n"
    )
    for name, code in (
        ("config.json", {"AutoModel": "trap.TrapModel"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "trap.Trap"]}),
    ):
        table = json.loads((folder / name).read_text()) | {"auto_map": code}
        (folder / name).write_text(json.dumps(table | ({"tokenizer_class": "Trap"} if "tokenizer" in name else {})))
    assert zoo.load_model(f"transformers:{folder}", device="cpu").encoder.text.tokenize(["a"]).shape == (1, 3)
    assert not mark.exists()


def _without_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "cannot make a CLIPModel"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (_without_a_weight, "lacks 1 weights, the first is visual_projection.weight"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "it has no model_type"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "'bert'.*known: clip"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "does not say how pictures are prepared"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizer in .* cannot be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        zoo.load_model(f"transformers:{folder}", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_a_folder_without_a_tokenizer_is_refused_instead_of_answering_alike_to_all(tmp_path, family):
    transformers_folder(tmp_path / "whole", family)
    shutil.copytree(tmp_path / "whole", tmp_path / "bare")
    for path in (tmp_path / "bare").iterdir():
        if path.name not in ("config.json", "model.safetensors", "preprocessor_config.json"):
            path.unlink()
    model = zoo.load_model(f"transformers:{tmp_path / 'whole'}", device="cpu")
    assert model.encode_text(["drink", "read"]).shape[0] == 2
    with pytest.raises(ModelError, match="tokenizer in .*bare"):
        zoo.load_model(f"transformers:{tmp_path / 'bare'}", device="cpu")
