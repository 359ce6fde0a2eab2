"""Towers too small to be worth anything, which obey every rule that a real one obeys."""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipact.clip_spec import ClipSpec
from clipact.models.checkpoint import Precision
from clipact.models.towers.tower import TextTower, VisualTower

SPEC = ClipSpec(frames=4, size=(8, 8))


class TinyVisual(VisualTower):
    """The mean colour of a clip, through one linear layer."""

    def __init__(self, dim: int = 6, spec: ClipSpec = SPEC) -> None:
        super().__init__()
        self.spec, self.dim, self.order_free = spec, dim, True
        self.linear = nn.Linear(3, dim)

    def forward(self, video: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b d"]:
        return self.linear(rearrange(video, "b t c h w -> b (t h w) c").mean(1))


class TinyText(TextTower):
    """The mean embedding of a sentence's bytes; 0 is padding."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(256, dim, padding_idx=0)

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "b l"]:
        rows = [list(sentence.encode())[:32] for sentence in sentences]
        length = max(map(len, rows))
        return torch.tensor([row + [0] * (length - len(row)) for row in rows])

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
        count = (ids != 0).sum(1, keepdim=True)
        return self.embedding(ids).sum(1) / count

    def save_tokenizer(self, folder: Path) -> None:
        """Bytes need no table."""


def tiny_tokenizer(path: Path) -> Path:
    """A WordPiece table of the lower-case letters and a few words, written to `path`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), "a", "is", ".", ","]
    table = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))
    return path


def tiny_checkpoint(folder: Path, *, seed: int = 0, name: str = "tiny", precision: Precision = "fp32") -> Path:
    """A whole model folder with random weights: mini's architecture, as small as it goes."""
    from clipact.models.dual_encoder import DualEncoder
    from clipact.models.save_checkpoint import save_model
    from clipact.models.towers.efficientnet_lite import EfficientNetLite
    from clipact.models.towers.frame_aggregator import FrameAggregator
    from clipact.models.towers.text import BertText
    from clipact.models.towers.tower import Head

    torch.manual_seed(seed)
    head = Head.Config(dim=16, hidden=16)
    image = EfficientNetLite(EfficientNetLite.Config(variant="lite0", head=head))
    visual = FrameAggregator(image, spec=ClipSpec(frames=4, size=(32, 32)))
    tokenizer = tiny_tokenizer(folder.parent / f"{folder.name}.tokenizer.json")
    text = BertText(
        BertText.Config(vocabulary=64, width=16, layers=1, heads=2, hidden=32, max_tokens=32, head=head), tokenizer
    )
    return save_model(
        DualEncoder(visual, text, log_scale=3.0),
        folder,
        name=name,
        precision=precision,
        trained_on=("nothing",),
        card="# tiny\n",
    )
