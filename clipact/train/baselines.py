"""Supervised baselines that zero-shot models are compared with: by name, a recipe for `clipact train`.

What is trained is a tower of `clipact.models.towers` and label embeddings, by cross-entropy. Only recipes' tables are
made here, no networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal

from clipact.clip_spec import ClipSpec
from clipact.config import to_table
from clipact.errors import UsageError, choices
from clipact.models.checkpoint import checkpoint_folder, read_config
from clipact.models.nn.inserts import INSERTS

_INSERT_PLACES = ("mixed_3c", "mixed_4f")  # behind the third and the fourth stage
# Of a transformer's size: ViT-Ti (arXiv 2012.12877), and below 112 pixels one for small clips on a CPU.
_TINY = {"width": 192, "layers": 12, "heads": 3, "hidden": 768, "patch": 16}
_SMALL = {"width": 128, "layers": 6, "heads": 4, "hidden": 512, "patch": 8}
_SMALL_PIXELS = 112


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A comparator.

    title    what it is, in one line
    source   where it comes from, an arXiv id
    visual   the recipe's init.visual for clips as a spec says
    on       what it stands on: "nothing", it begins at random; a "model", whose image tower stays as it is; or a
             "tower", which `clipact pretrain` wrote and which is fine-tuned
    takes    whether it takes an insert: "i3d+cbam"
    """

    title: str
    source: str
    visual: Callable[[ClipSpec], dict[str, Any]]
    on: Literal["nothing", "model", "tower"] = "nothing"
    takes: bool = False


def _frames(aggregator: str) -> Callable[[ClipSpec], dict[str, Any]]:
    return lambda spec: {"tower": "frame_aggregator", "aggregator": aggregator}


def _vit(spec: ClipSpec) -> dict[str, Any]:
    sizes = _sizes(spec)
    settings = {"img_size": list(spec.size), "patch_size": sizes["patch"], "embed_dim": sizes["width"]}
    settings |= {"depth": sizes["layers"], "num_heads": sizes["heads"], "mlp_ratio": sizes["hidden"] / sizes["width"]}
    return {
        "tower": "frame_aggregator",
        "image": {"tower": "timm", "name": "vit_tiny_patch16_224", "settings": settings},
    }


def _vivit(spec: ClipSpec) -> dict[str, Any]:
    return {"tower": "vivit", **_sizes(spec)}


def _joint_vivit(spec: ClipSpec) -> dict[str, Any]:
    return _vivit(spec) | {"attention": "joint", "class_token": "none", "positions": "number_sines"}


def _sizes(spec: ClipSpec) -> dict[str, int]:
    return _TINY if min(spec.size) >= _SMALL_PIXELS else _SMALL


def _swin(spec: ClipSpec) -> dict[str, Any]:
    maps = gcd(*spec.size) // 32
    if gcd(*spec.size) % 32:
        raise UsageError(f"size is {spec.size}; a Video Swin takes multiples of 32")
    side = max(side for side in range(1, 8) if maps % side == 0)
    return {"tower": "swin3d", "window": [8, side, side]}


def _a(title: str, source: str, visual: Callable[[ClipSpec], dict[str, Any]], **more: Any) -> Baseline:
    return Baseline(title=title, source=source, visual=visual, **more)


BASELINES: dict[str, Baseline] = {
    "i3d": _a("Inception-V1 inflated", "1705.07750", lambda _: {"tower": "i3d"}, takes=True),
    "mean": _a("frozen frames, their mean", "2103.00020", _frames("mean"), on="model"),
    "lstm": _a("frozen frames, an LSTM", "1411.4389", _frames("lstm"), on="model"),
    "gru": _a("frozen frames, a GRU", "1406.1078", _frames("gru"), on="model"),
    "attentive": _a("frozen maps, attention pooling", "2404.08471", lambda _: {"tower": "attention_pool"}, on="model"),
    "vit": _a("ViT over frames, their mean", "2010.11929", _vit),
    "vivit": _a("ViViT, factorised attention", "2103.15691", _vivit),
    "vivit-joint": _a("the ViViT of VideoMAE, not pretrained", "2103.15691", _joint_vivit),
    "swin3d": _a("Video Swin tiny", "2106.13230", _swin),
    "videomae": _a("a ViViT pretrained without labels", "2203.12602", lambda _: {"tower": "vivit"}, on="tower"),
}


def baseline_recipe(name: str, *, clip: ClipSpec, **tables: Any) -> dict[str, Any]:
    """The table of a recipe that trains the baseline of that name: what a `clipact.train.recipe.Recipe` is made of.

    name    a key of BASELINES; "i3d+cbam" has that insert behind two stages; "lstm:runs/mine/best" stands on that
            model, "lstm" on mini; "videomae:runs/pretrained/best" on that tower
    clip    how clips are prepared. Of a baseline on a model in a folder the model's own colours are kept; one on
            another library's model sees clips as that does
    tables  the recipe's others: name, trained_on, data, train, optim, ...; what they say holds
    UsageError for a name that means nothing.
    """
    built, _, place = name.partition(":")
    base, _, insert = built.partition("+")
    if base not in BASELINES:
        raise UsageError(f"no baseline is called {base!r}; {choices(base, BASELINES)}")
    baseline = BASELINES[base]
    if insert and not baseline.takes:
        takers = ", ".join(key for key, one in BASELINES.items() if one.takes)
        raise UsageError(f"{base} takes no insert; these do: {takers}")
    if insert and insert not in INSERTS:
        raise UsageError(f"no insert is called {insert!r}; {choices(insert, INSERTS)}")
    if place and baseline.on == "nothing":
        raise UsageError(f"{base} begins at random and stands on no model; write {built!r}")
    if not place and baseline.on == "tower":
        raise UsageError(f"{base} stands on a tower of `clipact pretrain`; name its folder: {base}:runs/NAME/best")
    visual = baseline.visual(clip) | ({"inserts": dict.fromkeys(_INSERT_PLACES, insert)} if insert else {})
    start: dict[str, Any] = {"visual": visual, "text": {"tower": "label_embeddings"}}
    if baseline.on == "model":
        start["model"] = place or "mini"
        folder = checkpoint_folder(start["model"])
        own = None if folder is None else read_config(folder).clip
        if own is not None:
            start["clip"] = to_table(clip.in_colours_of(own))
    else:
        start["clip"] = to_table(clip)
    if baseline.on == "tower":
        start["pretrained"] = {"visual": place}
    table = {"name": name, "init": start, "visual": {"trainable": "head" if baseline.on == "model" else "all"}}
    return table | tables | {"train": {"loss": "cross_entropy"} | tables.get("train", {})}


def pretraining_recipe(*, clip: ClipSpec, **tables: Any) -> dict[str, Any]:
    """The table of a `clipact.train.masked.PretrainRecipe` whose encoder is that of "vivit-joint".

    So "videomae:FOLDER", on what it writes, and "vivit-joint" differ in pretraining alone. `tables` are its others:
    name, trained_on, data, validation, train, ...; what they say holds.
    """
    encoder = _joint_vivit(clip)
    del encoder["tower"]
    decoder = {"width": encoder["width"] // 2, "layers": 2, "heads": 2, "hidden": 2 * encoder["width"]}
    optim = {"lr": 1.5e-3, "weight_decay": 0.05, "betas": [0.9, 0.95]}
    return {"encoder": encoder, "decoder": decoder, "clip": to_table(clip), "optim": optim} | tables
