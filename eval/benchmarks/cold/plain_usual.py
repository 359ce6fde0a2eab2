"""What one would write without clipact, the same weights and frames: transformers for the text, torchvision's
transforms for the pictures, every frame decoded."""

import argparse
import json

import av
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torchvision import transforms
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from clipact.config import asset_path
from clipact.models.checkpoint import read_config
from clipact.models.towers import visual_from
from clipact.models.towers.tower import Head
from clipact.prompts import PromptSet, parse_labels
from clipact.video.sampling import segment_centers


def to_transformers(ours, layers):
    """mini's text weights under the names of transformers' BertModel."""
    width = ours["words.weight"].shape[1]
    state = {
        "embeddings.word_embeddings.weight": ours["words.weight"],
        "embeddings.position_embeddings.weight": ours["positions.weight"],
        "embeddings.token_type_embeddings.weight": torch.zeros(2, width),  # mini keeps it inside the positions
    }
    names = {
        "merge": "attention.output.dense",
        "norm_attended": "attention.output.LayerNorm",
        "grow": "intermediate.dense",
        "shrink": "output.dense",
        "norm_grown": "output.LayerNorm",
    }
    for part in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{part}"] = ours[f"norm.{part}"]
        for i in range(layers):
            theirs = f"encoder.layer.{i}"
            parts = ours[f"layers.{i}.attend.{part}"].chunk(3)
            for name, value in zip(("query", "key", "value"), parts, strict=True):
                state[f"{theirs}.attention.self.{name}.{part}"] = value
            for name, their_name in names.items():
                state[f"{theirs}.{their_name}.{part}"] = ours[f"layers.{i}.{name}.{part}"]
    return state


def bert(weights, config):
    """transformers' BertModel and mini's text head, holding mini's weights."""
    model = BertModel(
        BertConfig(
            vocab_size=config["vocabulary"],
            hidden_size=config["width"],
            num_hidden_layers=config["layers"],
            num_attention_heads=config["heads"],
            intermediate_size=config["hidden"],
            max_position_embeddings=config["max_tokens"],
        ),
        add_pooling_layer=False,
    )
    model.load_state_dict(to_transformers(weights, config["layers"]))
    head = Head(config["width"], Head.Config(**config["head"]))
    head.load_state_dict({k.removeprefix("head."): v for k, v in weights.items() if k.startswith("head.")})
    return model.eval(), head.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("video")
    parser.add_argument("labels")
    arguments = parser.parse_args()

    folder = asset_path("mini")
    config = read_config(folder)
    state = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
    visual = visual_from(config.visual, config.clip)
    visual.load_state_dict({k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")})
    visual.eval()
    text_model, head = bert(
        {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}, config.text
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")

    with av.open(arguments.video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = set(segment_centers(stream.frames, config.clip.frames))
        frames = [frame.to_image() for i, frame in enumerate(container.decode(stream)) if i in wanted]
    preprocess = transforms.Compose(
        [
            transforms.Resize(config.clip.size[0], interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(config.clip.size),
            transforms.ToTensor(),
            transforms.Normalize(config.clip.mean, config.clip.std),
        ]
    )
    video = torch.stack([preprocess(frame) for frame in frames])

    labels = parse_labels([arguments.labels])
    sentences, groups = PromptSet.load("action").sentences(labels)
    with torch.inference_mode():
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        hidden = text_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"][..., None]
        each = F.normalize(head((hidden * mask).sum(1) / mask.sum(1)), dim=-1)
        text = F.normalize(
            torch.zeros(len(labels.labels), each.shape[1]).index_add_(0, torch.tensor(groups), each), dim=-1
        )
        clip = F.normalize(visual(video[None]), dim=-1)
        scores = (state["log_scale"].exp() * clip @ text.T)[0].softmax(0)
    print(json.dumps(dict(zip(labels.labels, scores.tolist(), strict=True))))


main()
