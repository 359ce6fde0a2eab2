"""A model as an evaluation uses it: views to features, features to embeddings, a sample's embeddings to one vector.

The cache keeps embeddings, one a view, or, of a frame-by-frame tower, the backbone's features of each frame: embeddings
are made of these in no time, and another head or aggregator on the same backbone decodes and encodes nothing. None of
them depends on any word, so that many wordings are evaluated on one encoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from clipact import aliases
from clipact.cache import content_key
from clipact.clip_spec import Averaging, ClipSpec
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder, prepare_views, unit
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.zoo import Model


@dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """Adapt a model to an evaluation.

    spec, views, crops, decoder  what is decoded of a file, and by what
    frames_at_once      what one batch usually holds, over files
    kind                what the cache keeps: "frames" (features) or "clips" (embeddings)
    key                 gives the hash of the weights that decide it, of the device and the precision
    identity            of all that decides the vectors
    on_cpu              where it is encoded: workers do it there
    encode_views        views to what the cache keeps
    apply_head          that of one sample to its embeddings
    pool_views          the embeddings of one sample to its vector
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
    encode_views: Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k ..."]]
    apply_head: Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]
    pool_views: Callable[[Float32[np.ndarray, "k d"]], Float32[np.ndarray, " m"]]

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
    """Make the encoder of a model, whose vector of a file is the mean of its views' embeddings, made unit again.

    For another averaging it is the embeddings of all views, one after the other: logits or probabilities are averaged.

    Raises:
        UsageError: crops is neither 1 nor 3.
        ModelError: The model's text embeddings depend on the video.
    """

    def pool_views(rows: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " m"]:
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
        encode_views=_encode_views(
            encoder, split_backbone_head(tower).body if by_frame else encoder.encode_video, spec
        ),
        apply_head=_apply_head(encoder, split_backbone_head(tower).head) if by_frame else lambda rows: rows,
        pool_views=pool_views,
    )


def cache_key(
    clip_encoder: ClipEncoder, key: str, digest: str, span: tuple[float | None, float | None], decoders: str
) -> str:
    """Return the cache's key for a file: its bytes, the part of it, the frames, the weights (`key`), what decodes."""
    seen = (
        digest,
        repr(span),
        aliases.cache_text(repr(asdict(clip_encoder.spec))),
        f"{clip_encoder.views} x {clip_encoder.crops}",
        clip_encoder.decoder,
        decoders,
    )
    return content_key(f"{clip_encoder.kind} 1", key, *seen)


def _encode_views(
    encoder: DualEncoder, network: Callable[[Tensor], Tensor], spec: ClipSpec
) -> Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k ..."]]:
    @torch.inference_mode()
    def encode_views(views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Float32[np.ndarray, "k ..."]:
        video = prepare_views(views, spec, device=encoder.log_scale.device)
        with encoder.looking():
            return network(video).float().cpu().numpy()

    return encode_views


def _apply_head(
    encoder: DualEncoder, head: Callable[[Tensor], Tensor]
) -> Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]:
    @torch.inference_mode()
    def apply_head(features: Float32[np.ndarray, "k ..."]) -> Float32[np.ndarray, "k d"]:
        with encoder.looking():
            found = head(torch.from_numpy(features).to(encoder.log_scale.device))
        return unit(found.float()).cpu().numpy()

    return apply_head


def _usual_frames(encoder: DualEncoder) -> int:
    # On two cores 8 pictures of 260 pixels at once take mini 19 ms each, 16 take 26, 64 take 30: caches are small.
    return 8 if encoder.log_scale.device.type == "cpu" else 256
