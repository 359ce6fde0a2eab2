"""What an evaluation needs of a model, whatever the model is: views in, rows out; a sample's rows in, one vector out.

Rows are what the store keeps (an embedding a view): they depend on no label and no template. The vector is what a
result holds: the logits of all labels, or one unit embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from clipact.classifier import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.dual_encoder import DualEncoder, unit
from clipact.errors import UsageError
from clipact.protocol import Averaging
from clipact.store import content_key
from clipact.video.normalise import normalise_frames
from clipact.zoo import Model


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model as an evaluation sees it.

    spec, views, crops  what is decoded of a file
    frames_at_once      what one batch usually holds, over files
    key                 of the weights: with the spec it decides the rows
    identity            of all that decides the vectors
    encode              views to rows
    reduce              the rows of one sample to its vector
    """

    spec: ClipSpec
    views: int
    crops: int
    frames_at_once: int
    key: str
    identity: str
    encode: Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k d"]]
    reduce: Callable[[Float32[np.ndarray, "k d"]], Float32[np.ndarray, " m"]]

    @property
    def views_a_sample(self) -> int:
        """Views of one file, all crops counted."""
        return self.views * self.crops


def judge_labels(classifier: ZeroShotClassifier, *, averaging: Averaging = "embeddings", crops: int = 1) -> Judged:
    """Logits of the classifier's labels, averaged over its clips.

    embeddings     the mean of the views' unit vectors, made unit again, gives the logits: what `classify` does
    logits         the mean of the views' logits
    probabilities  the logarithm of the mean of the views' softmax
    """
    encoder, text = classifier.model.encoder, classifier.text_embeddings

    @torch.inference_mode()
    def reduce(rows: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " m"]:
        clips = torch.from_numpy(rows).to(text.device)
        if averaging == "embeddings":
            logits = encoder.logits(unit(clips.mean(0, keepdim=True)), text)[0]
        elif averaging == "logits":
            logits = encoder.logits(clips, text).mean(0)
        else:
            logits = (encoder.logits(clips, text).log_softmax(1).logsumexp(0)) - np.log(len(clips))
        return logits.float().cpu().numpy()

    words = text.detach().float().cpu().numpy().tobytes()
    identity = content_key(
        "labels", *_facts(classifier.model, classifier.spec, classifier.clips, crops), averaging, words
    )
    return Judged(
        spec=classifier.spec,
        views=classifier.clips,
        crops=crops,
        frames_at_once=_usual_frames(encoder),
        key=classifier.model.key,
        identity=identity,
        encode=_encode(encoder, classifier.spec),
        reduce=reduce,
    )


def judge_retrieval(model: Model, spec: ClipSpec, *, views: int = 1, crops: int = 1) -> Judged:
    """One unit embedding a file: the mean of its views', made unit again."""

    def reduce(rows: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, " m"]:
        if len(rows) == 1:
            return rows[0]
        return unit(torch.from_numpy(rows).mean(0, keepdim=True))[0].numpy()

    return Judged(
        spec=spec,
        views=views,
        crops=crops,
        frames_at_once=_usual_frames(model.encoder),
        key=model.key,
        identity=content_key("retrieval", *_facts(model, spec, views, crops)),
        encode=_encode(model.encoder, spec),
        reduce=reduce,
    )


def rows_key(judged: Judged, digest: str, span: tuple[float | None, float | None], decoders: str) -> str:
    """The store's key for a file's rows: the bytes, the part of it, the frames, the weights, what decodes."""
    return content_key(
        "clip embeddings 1", judged.key, digest, repr(span), repr(asdict(judged.spec)),
        f"{judged.views} x {judged.crops}", decoders
    )  # fmt: skip


def _encode(
    encoder: DualEncoder, spec: ClipSpec
) -> Callable[[Sequence[UInt8[np.ndarray, "t h w c"]]], Float32[np.ndarray, "k d"]]:
    @torch.inference_mode()
    def encode(views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Float32[np.ndarray, "k d"]:
        device = encoder.log_scale.device
        video = torch.stack([normalise_frames(frames, spec, device=device) for frames in views])
        return encoder.encode_video(video).float().cpu().numpy()

    return encode


def _usual_frames(encoder: DualEncoder) -> int:
    # On two cores 8 pictures of 260 pixels at once take mini 19 ms each, 16 take 26, 64 take 30: caches are small.
    return 8 if encoder.log_scale.device.type == "cpu" else 256


def _facts(model: Model, spec: ClipSpec, views: int, crops: int) -> tuple[str, ...]:
    if crops not in (1, 3):
        raise UsageError(f"crops is {crops}; 1 or 3")
    return model.key, repr(asdict(spec)), f"{views} x {crops}", str(model.encoder.log_scale.device)
