"""Findings become results: which samples have a row, and everything that a result says of itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from clipact.classify.zero_shot import ZeroShotClassifier, wording_key
from clipact.data.protocol import Averaging
from clipact.errors import DataError
from clipact.evaluate.encode import DECODERS
from clipact.evaluate.encoder_adapter import ClipEncoder
from clipact.evaluate.journal import SampleEmbedding
from clipact.evaluate.results import ClassificationResult
from clipact.evaluate.samples import EvalSamples, files_digest
from clipact.prompts import LabelDetails


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSamples:
    """What was found of the samples. `rows` are the numbers of those that could be read, `vectors` theirs."""

    samples: EvalSamples
    findings: Sequence[SampleEmbedding]
    rows: Int64[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "n m"]

    @classmethod
    def of(cls, samples: EvalSamples, findings: Sequence[SampleEmbedding]) -> "EncodedSamples":
        """The outcome of findings, one a sample; DataError when not one file could be read."""
        items = samples.items
        rows = np.array([i for i, one in enumerate(findings) if one.vector is not None], dtype=np.int64)
        if len(rows) == 0:
            cause = f"the first, {items[0].path}: {findings[0].cause}" if findings else "there is no sample"
            raise DataError(f"not one of {len(items):,} files could be read; {cause}")
        vectors = np.stack([one.vector for one in findings if one.vector is not None])
        return cls(samples=samples, findings=findings, rows=rows, vectors=vectors)

    @property
    def names(self) -> tuple[str, ...]:
        """What could be read."""
        return tuple(self.samples.items[i].name for i in self.rows)

    @property
    def digests(self) -> tuple[str, ...]:
        """The sha256 of each distinct file that could be read."""
        return tuple(dict.fromkeys(one.digest for one in self.findings if one.digest))

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """What could not, and why."""
        pairs = zip(self.samples.items, self.findings, strict=True)
        return tuple((item.name, one.cause) for item, one in pairs if one.vector is None)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each row; None when each stands for itself."""
        groups = tuple(self.samples.items[i].group for i in self.rows)
        return groups if any(groups) else None

    @property
    def parts(self) -> dict[str, Int64[np.ndarray, " m"]]:
        """The rows of each part of the protocol."""
        place = {int(i): row for row, i in enumerate(self.rows)}
        return {
            name: np.array([place[int(i)] for i in own if int(i) in place], dtype=np.int64)
            for name, own in self.samples.parts.items()
        }

    def label_scores(
        self,
        labels: tuple[str, ...],
        truth: Int64[np.ndarray, " s"],
        scores: Float32[np.ndarray, "n l"],
        *,
        run: Mapping[str, Any],
        seconds: Mapping[str, float],
    ) -> ClassificationResult:
        """The result for labels; `truth` is of all samples, `scores` of the rows, `run` from `describe`."""
        return ClassificationResult(
            samples=self.names,
            labels=labels,
            truth=truth[self.rows],
            scores=scores,
            groups=self.groups,
            parts=self.parts,
            multi_truth=self._all_true(labels),
            unreadable=self.unreadable,
            run=run,
            seconds=seconds,
        )

    def _all_true(self, labels: tuple[str, ...]) -> Bool[np.ndarray, "n l"] | None:
        """Every label that is true of each row; None when each has one."""
        items = [self.samples.items[i] for i in self.rows]
        if not any(item.extra_labels for item in items):
            return None
        return np.array([[label in (item.label, *item.extra_labels) for label in labels] for item in items], dtype=bool)

    def describe(self, facts: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        """A whole `run`: `facts` and `more`, and what was found on the way: decoders, notes, what is partial."""
        names = [item.name for item in self.samples.items]
        digests = dict(zip(names, (one.digest for one in self.findings), strict=True))
        lost = len(names) - len(self.rows)
        why = [*self.samples.partial_why, *more.get("partial_why", ())]
        if lost:
            why.append(f"{lost:,} of {len(names):,} files could not be read: figures are of the others")
        decoders = Counter(one.decoder for one in self.findings if one.decoder)
        notes = Counter(note for one in self.findings for note in one.notes)
        return facts | dict(more) | {
            "data": dict(self.samples.data) | {"files_sha256": files_digest(names, digests), "count": len(names)},
            "views": facts["views"] | {"decoder": DECODERS, "decoded_by": dict(decoders), "notes": dict(notes)},
            "partial": bool(why),
            "partial_why": why,
        }  # fmt: skip


def describe_words(classifier: ZeroShotClassifier) -> dict[str, Any]:
    """What a result says of the words that it was found with."""
    prompts, labels = classifier.prompts, classifier.label_set
    about = [labels.about.get(label, LabelDetails()) for label in labels.labels]
    return {
        "name": prompts.name,
        "templates": [template.text for template in prompts.templates],
        "wording": asdict(prompts.wording) | {"words": list(prompts.wording.words)},
        "weights": list(prompts.weights),
        "phrases": list(labels.written(prompts.wording.names)),
        "synonyms": [list(one.synonyms) for one in about] if "synonyms" in prompts.wording.words else [],
        "descriptions": [list(one.descriptions) for one in about] if "descriptions" in prompts.wording.words else [],
        "sha256": wording_key(labels, prompts),
    }


def describe_views(judged: ClipEncoder, averaging: Averaging) -> dict[str, Any]:
    """What a result says of how the files were looked at."""
    return asdict(judged.spec) | {"views": judged.views, "crops": judged.crops, "averaging": averaging}
