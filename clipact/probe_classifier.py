"""A probe as a classifier: a frozen model's embedding of a clip, and a probe's labels for it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from clipact import zoo
from clipact.baselines.probes import Probe
from clipact.clip_spec import ClipSpec
from clipact.errors import UsageError
from clipact.prediction import Prediction, Scored
from clipact.video_classifier import VideoClassifier
from clipact.views import agreement_of, embed_views, mean_view


class ProbeClassifier(VideoClassifier):
    """Names the action in a clip by a probe that learnt its labels from examples; satisfies `Recognizer`.

    model       what `clipact.zoo.load` gives: the one whose embeddings the probe was fitted to
    probe       as `clipact.evaluate.probing.fit_probes` makes it
    labels      in the order of the probe's numbers; UsageError when they are not as many
    spec        how clips are prepared, and `clips` a video, as they were for the probe
    taught      how the probe learnt, in words
    files_seen  the sha256 of the files that it learnt from
    """

    def __init__(
        self,
        model: zoo.Model,
        probe: Probe,
        labels: tuple[str, ...],
        *,
        spec: ClipSpec | None = None,
        clips: int = 1,
        decoder: str = "pyav",
        taught: str = "a probe",
        files_seen: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(spec or model.encoder.spec, clips=clips, decoder=decoder)
        if len(labels) != probe.labels or model.encoder.visual.dim != probe.dim:
            raise UsageError(
                f"{len(labels)} labels and embeddings of {model.encoder.visual.dim} numbers, but the probe knows "
                f"{probe.labels} labels by {probe.dim} numbers"
            )
        self.model, self.probe, self._labels = model, probe, labels
        self.taught, self.files_seen = taught, files_seen

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses from."""
        return self._labels

    def answer(self, views: Sequence[UInt8[np.ndarray, "t h w c"]]) -> Prediction:
        """The prediction for the views of one video, from the mean of their embeddings; it names no prompts."""
        embeddings = embed_views(self.model.encoder, views, self.spec)
        rows = torch.cat([mean_view(embeddings), embeddings]).float().cpu().numpy()
        logits = torch.from_numpy(self.probe.logits(rows))
        scores = logits[0].softmax(0)
        ranked = tuple(Scored(self.labels[i], scores[i].item()) for i in scores.argsort(descending=True).tolist())
        return Prediction(
            ranked=ranked,
            model=f"probe of {self.model.name}",
            prompts="",
            agreement=agreement_of(logits[1:], self.labels, answer=ranked[0].label),
        )
