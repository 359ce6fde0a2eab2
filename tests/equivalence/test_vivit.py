"""Our ViViT against transformers' VivitModel with the same weights (transformers 5, modeling_vivit)."""

import pytest
import torch
from einops import rearrange

from clipact.clip_spec import ClipSpec
from clipact.nn.head import Head
from clipact.towers.vivit import ViViT

WIDTH, LAYERS, HEADS, HIDDEN, FRAMES, SIZE, PATCH = 32, 3, 4, 48, 6, 32, 8


@pytest.fixture
def theirs():
    from transformers import VivitConfig, VivitModel

    torch.manual_seed(0)
    model = VivitModel(
        VivitConfig(
            image_size=SIZE,
            num_frames=FRAMES,
            tubelet_size=[2, PATCH, PATCH],
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=HIDDEN,
        ),
        add_pooling_layer=False,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and positions begin at ones and zeros
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def ours_like(theirs):
    """Our joint model with the sizes and the weights of a VivitModel."""
    sizes = theirs.config
    steps = sizes.num_frames // sizes.tubelet_size[0]
    tower = ViViT(
        ViViT.Config(
            width=sizes.hidden_size,
            layers=sizes.num_hidden_layers,
            heads=sizes.num_attention_heads,
            hidden=sizes.intermediate_size,
            tubelet=sizes.tubelet_size[0],
            patch=sizes.tubelet_size[1],
            attention="joint",
            class_token="clip",
            activation="gelu_tanh",
            head=Head.Config(dim=sizes.hidden_size, blocks=0, norm_eps=1e-6),
        ),
        spec=ClipSpec(frames=sizes.num_frames, size=(sizes.image_size, sizes.image_size)),
    )
    state = theirs.state_dict()
    positions = state["embeddings.position_embeddings"][0]
    patches = state["embeddings.patch_embeddings.projection.weight"]
    weights = {
        "embed.weight": rearrange(patches, "d c u p q -> d (c u p q)"),
        "embed.bias": state["embeddings.patch_embeddings.projection.bias"],
        "class_token": state["embeddings.cls_token"][0, 0] + positions[0],
        "positions": rearrange(positions[1:], "(t l) d -> t l d", t=steps),
        "head.norm.weight": state["layernorm.weight"],
        "head.norm.bias": state["layernorm.bias"],
        "head.project.weight": torch.eye(sizes.hidden_size),
        "head.project.bias": torch.zeros(sizes.hidden_size),
    }
    names = {
        "norm_attention": "layernorm_before",
        "norm_mlp": "layernorm_after",
        "attention.merge": "attention.o_proj",
        "mlp.grow": "mlp.fc1",
        "mlp.shrink": "mlp.fc2",
    }
    for layer in range(sizes.num_hidden_layers):
        for kind in ("weight", "bias"):
            for our_name, their_name in names.items():
                weights[f"blocks.{layer}.{our_name}.{kind}"] = state[f"layers.{layer}.{their_name}.{kind}"]
            parts = [state[f"layers.{layer}.attention.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"blocks.{layer}.attention.attend.{kind}"] = torch.cat(parts)
    tower.load_state_dict(weights)
    return tower.eval()


def test_the_joint_model_equals_transformers(theirs):
    tower = ours_like(theirs)
    video = torch.randn(3, FRAMES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(tower(video), theirs(video).last_hidden_state[:, 0], atol=1e-5, rtol=0)
