"""What an evaluation needs of a model, whatever the model is: views in, rows out; a sample's rows in, one vector out.

The store keeps rows (an embedding a view) or, of a tower that sees frame by frame, what its body makes of each frame:
rows are made of that in no time, and another head or aggregator on the same body decodes and encodes nothing. The
vector is what labels or texts are compared with. None of them depends on any word, so that many wordings are judged on
one encoding (`label_logits`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from clipact import aliases
from clipact.cache import content_key
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.data.protocol import Averaging
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder, prepare_views, unit
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.zoo import Model

_CLIPS_AT_ONCE = 256  # x 48 templates x 700 labels: 34 MB of logits


@dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """A model as an evaluation sees it.

    spec, views, crops, decoder  what is decoded of a file, and by what
    frames_at_once      what one batch usually holds, over files
    kind                what the store keeps: "frames" (features) or "clips" (rows)
    key                 gives the hash of the weights that decide it, of the device and the precision
    identity            of all that decides the vectors
    on_cpu              where it is encoded: workers do it there
    see                 views to what the store keeps
    finish              that of one sample to its rows
    gather              the rows of one sample to its vector
    """

    spec: ClipSpec
    views: int
    crops: int
    decoder: str
    frames_at_once: int
    kind: Literal["frames", "clips"]
    key: Callable[[], str]
    identity: str
    on_cpu: bool
    see: Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k ..."]]
    finish: Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]
    gather: Callable[[Float32[np.ndarray, "k d"]], Float32[np.ndarray, " m"]]

    @property
    def views_a_sample(self) -> int:
        """Views of one file, all crops counted."""
        return self.views * self.crops


def make_clip_encoder(
    model: Model,
    spec: ClipSpec,
    *,
    views: int = 1,
    crops: int = 1,
    averaging: Averaging = "embeddings",
    decoder: str = "pyav",
) -> ClipEncoder:
    """A model that gives one unit embedding a file, the mean of its views' made unit again; or, for another
    averaging, the embeddings of all views one after the other: what is averaged then are logits or probabilities."""

    def gather(rows: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " m"]:
        if averaging != "embeddings" or len(rows) == 1:
            return rows.reshape(-1)
        return unit(torch.from_numpy(rows).mean(0, keepdim=True))[0].numpy()

    if crops not in (1, 3):
        raise UsageError(f"crops is {crops}; 1 or 3")
    encoder, device = model.encoder, model.encoder.log_scale.device
    if encoder.text_depends_on_video:  # a clip's embedding alone says nothing of words
        raise encoder.text_needs_video()
    place = f"{device}" if encoder.precision == "fp32" else f"{device} {encoder.precision}"
    tower = encoder.visual
    by_frame = tower if isinstance(tower, FrameAggregator) else None
    return ClipEncoder(
        spec=spec,
        views=views,
        crops=crops,
        decoder=decoder,
        frames_at_once=_usual_frames(encoder),
        kind="frames" if by_frame else "clips",
        key=lambda: content_key(hash_backbone(tower) if by_frame else model.key, place),
        identity=content_key(
            "rows", model.key, aliases.cache_text(repr(asdict(spec))), f"{views} x {crops}", place, averaging, decoder
        ),
        on_cpu=device.type == "cpu",
        see=_see(encoder, split_backbone_head(tower).body if by_frame else encoder.encode_video, spec),
        finish=_finish(encoder, split_backbone_head(tower).head) if by_frame else lambda rows: rows,
        gather=gather,
    )


@torch.inference_mode()
def clip_vectors(
    classifier: ZeroShotClassifier, vectors: Float32[np.ndarray, "n m"]
) -> tuple[Float[Tensor, "b d"], int]:
    """What `gather` gave of n samples as embeddings on the model's device, and how many each sample has."""
    width = classifier.model.encoder.dim
    clips = torch.from_numpy(vectors.reshape(-1, width)).to(classifier.model.encoder.log_scale.device)
    return clips, vectors.shape[1] // width


@torch.inference_mode()
def label_logits(
    classifier: ZeroShotClassifier, vectors: Float32[np.ndarray, "n m"], *, averaging: Averaging
) -> Float32[np.ndarray, "n l"]:
    """Logits of the classifier's labels, averaged over the views of each sample.

    embeddings     the mean of the views' unit vectors, made unit again, gives the logits: what `classify` does
    logits         the mean of the views' logits
    probabilities  the logarithm of the mean of the views' softmax
    """
    clips, views = clip_vectors(classifier, vectors)
    found = []
    for batch in torch.split(clips, _CLIPS_AT_ONCE * views):
        logits = rearrange(classifier.logits(batch).float(), "(b k) l -> b k l", k=views)
        if averaging == "probabilities":
            logits = logits.log_softmax(2).logsumexp(1, keepdim=True) - np.log(views)
        found.append(logits.mean(1))
    return torch.cat(found).cpu().numpy()


def store_key(
    judged: ClipEncoder, key: str, digest: str, span: tuple[float | None, float | None], decoders: str
) -> str:
    """The store's key for a file: its bytes, the part of it, the frames, the weights (`judged.key()`), what decodes."""
    seen = (
        digest,
        repr(span),
        aliases.cache_text(repr(asdict(judged.spec))),
        f"{judged.views} x {judged.crops}",
        judged.decoder,
        decoders,
    )
    return content_key(f"{judged.kind} 1", key, *seen)


def _see(
    encoder: DualEncoder, look: Callable[[Tensor], Tensor], spec: ClipSpec
) -> Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k ..."]]:
    @torch.inference_mode()
    def see(views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Float32[np.ndarray, "k ..."]:
        video = prepare_views(views, spec, device=encoder.log_scale.device)
        with encoder.looking():
            return look(video).float().cpu().numpy()

    return see


def _finish(
    encoder: DualEncoder, head: Callable[[Tensor], Tensor]
) -> Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]:
    @torch.inference_mode()
    def finish(features: Float32[np.ndarray, "k ..."]) -> Float32[np.ndarray, "k d"]:
        with encoder.looking():
            found = head(torch.from_numpy(features).to(encoder.log_scale.device))
        return unit(found.float()).cpu().numpy()

    return finish


def _usual_frames(encoder: DualEncoder) -> int:
    # On two cores 8 pictures of 260 pixels at once take mini 19 ms each, 16 take 26, 64 take 30: caches are small.
    return 8 if encoder.log_scale.device.type == "cpu" else 256
