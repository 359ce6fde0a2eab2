"""Make the clip encoder of a model of torch: its visual tower in two, backbone and head, behind NumPy arrays.

What is cached are the backbone's features: another head on the same backbone decodes and encodes nothing anew.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from clipact import aliases
from clipact.cache import content_key
from clipact.clip_spec import ClipSpec
from clipact.engines.clip_encoder import ClipEncoder
from clipact.errors import UsageError
from clipact.models.dual_encoder import DualEncoder, computing, normalise_frames, unit
from clipact.models.towers.backbone_head import hash_backbone, split_backbone_head
from clipact.models.towers.frame_aggregator import FrameAggregator
from clipact.models.towers.tower import ConditionsText

_changing, _blocks, _before = threading.Lock(), list[int](), 1  # of `_threads`, for all encoders
_most = os.cpu_count() or 1  # threads that `_threads` may set


def _after_fork() -> None:
    """Compute with one thread: OpenMP's others are not in the child, which would wait for them without end."""
    global _changing, _most
    _changing, _most = threading.Lock(), 1
    _blocks.clear()
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)


def make_clip_encoder(
    encoder: DualEncoder, key: str, *, spec: ClipSpec | None = None, clips: int = 1, crops: int = 1,
    decoder: str = "pyav", precision: str | None = None,
) -> ClipEncoder:  # fmt: skip
    """Make the clip encoder of a model whose weights have this hash.

    It computes in `precision`, a name in PRECISIONS; by default in the model's own.

    Raises:
        UsageError: crops is neither 1 nor 3, or clips below 1.
    """
    if crops not in (1, 3):
        raise UsageError(f"crops is {crops}; 1 (the centre) or 3 (start, centre and end of the longer side)")
    if clips < 1:
        raise UsageError(f"clips is {clips}; a video gives at least 1")
    tower, device, spec = encoder.visual, encoder.log_scale.device, spec or encoder.spec
    precision = precision or encoder.precision
    place = f"{device}" if precision == "fp32" else f"{device} {precision}"
    parts = split_backbone_head(tower)
    prompts_text = isinstance(tower, ConditionsText)
    body: Callable[[Tensor], Tensor] = tower.context if isinstance(tower, ConditionsText) else parts.body
    return ClipEncoder(
        spec=spec,
        clips=clips,
        crops=crops,
        decoder=decoder,
        by_frame=sees_frames_apart(tower),
        frames_at_once=_usual_frames(device),
        key=lambda: content_key(hash_backbone(tower), place),
        identity=content_key(
            "embeddings 1", key, aliases.cache_text(repr(asdict(spec))), f"{clips} x {crops}", place, decoder
        ),
        on_cpu=device.type == "cpu",
        encode=_encode(body, spec, device=device, precision=precision),
        head=_context if prompts_text else _head(parts.head, device=device, precision=precision),
        threads=_threads,
    )


def sees_frames_apart(tower: nn.Module) -> bool:
    """Whether the tower's features of a clip are those of its frames, none of which sees another."""
    return isinstance(tower, FrameAggregator) and not tower.config.shift and not tower.config.inserts


def _encode(
    body: Callable[[Tensor], Tensor], spec: ClipSpec, *, device: torch.device, precision: str
) -> Callable[[UInt8[np.ndarray, "n t h w c"]], Float32[np.ndarray, "n ..."]]:
    @torch.inference_mode()
    def encode(clips: UInt8[np.ndarray, "n t h w c"]) -> Float32[np.ndarray, "n ..."]:
        pictures = rearrange(clips, "n t h w c -> (n t) h w c")
        frames = normalise_frames(pictures, spec, device=device)
        with computing(precision, device):
            features = body(rearrange(frames, "(n t) c h w -> n t c h w", n=len(clips)))
        return features.float().cpu().numpy()

    return encode


def _head(
    head: Callable[[Tensor], Tensor], *, device: torch.device, precision: str
) -> Callable[[Float32[np.ndarray, "k ..."]], Float32[np.ndarray, "k d"]]:
    @torch.inference_mode()
    def embed(features: Float32[np.ndarray, "k ..."]) -> Float32[np.ndarray, "k d"]:
        with computing(precision, device):
            found = head(torch.from_numpy(features).to(device))
        return unit(found.float()).cpu().numpy()

    return embed


def _context(features: Float32[np.ndarray, "k m"]) -> Float32[np.ndarray, "k m"]:
    return features


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let threads that begin inside compute with `count` of torch's own; when the last block ends, all is as before."""
    global _before
    with _changing:
        _blocks.append(count)
        if len(_blocks) == 1:
            _before = torch.get_num_threads()
        torch.set_num_threads(min(count, _most))
    try:
        yield
    finally:
        with _changing:
            _blocks.pop()
            if not _blocks:
                torch.set_num_threads(_before)


def _usual_frames(device: torch.device) -> int:
    # On two cores 8 pictures of 260 pixels at once take mini 19 ms each, 16 take 26, 64 take 30: caches are small.
    return 8 if device.type == "cpu" else 256
