"""Embeddings of samples become a result: which samples have a row, and how the result came about.

Recorded are versions, machine, model, data, views, what is partial, and whether the result is zero-shot.
"""

import os
import platform
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from clipact import __version__
from clipact.clip_spec import Averaging
from clipact.embed.feature_cache import DECODERS
from clipact.embed.video_embedding import VideoEmbedding
from clipact.engines.clip_encoder import ClipEncoder
from clipact.engines.engine import Engine
from clipact.errors import DataError
from clipact.evaluate.results import ClassificationResult
from clipact.evaluate.samples import EvalSamples, files_digest
from clipact.models.checkpoint import read_files_seen

_LIBRARIES = ("torch", "numpy", "av", "pillow", "tokenizers", "open_clip_torch", "timm", "transformers", "torchcodec")


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSamples:
    """Hold the embeddings of samples: `rows` are the numbers of those that could be read, `vectors` theirs."""

    samples: EvalSamples
    embeddings: Sequence[VideoEmbedding]
    rows: Int64[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "n m"]

    @classmethod
    def of(cls, samples: EvalSamples, embeddings: Sequence[VideoEmbedding]) -> "EncodedSamples":
        """Collect the embeddings, one a sample; DataError when not one file could be read."""
        items = samples.items
        rows = np.array([i for i, one in enumerate(embeddings) if one.embeddings is not None], dtype=np.int64)
        if len(rows) == 0:
            cause = f"the first, {items[0].path}: {embeddings[0].cause}" if embeddings else "there is no sample"
            raise DataError(f"not one of {len(items):,} files could be read; {cause}")
        vectors = np.stack([one.embeddings.reshape(-1) for one in embeddings if one.embeddings is not None])
        return cls(samples=samples, embeddings=embeddings, rows=rows, vectors=vectors)

    @property
    def names(self) -> tuple[str, ...]:
        """What could be read."""
        return tuple(self.samples.items[i].name for i in self.rows)

    @property
    def digests(self) -> tuple[str, ...]:
        """The sha256 of each distinct file that could be read."""
        return tuple(dict.fromkeys(one.digest for one in self.embeddings if one.digest))

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """What could not, and why."""
        pairs = zip(self.samples.items, self.embeddings, strict=True)
        return tuple((item.name, one.cause) for item, one in pairs if one.embeddings is None)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group of each row; None when no group is stated and each row has a file of its own."""
        groups, stated = self.samples.groups, any(self.samples.items[i].group for i in self.rows)
        own = tuple(groups[i] for i in self.rows)
        return own if stated or len(set(own)) < len(own) else None

    @property
    def parts(self) -> dict[str, Int64[np.ndarray, " m"]]:
        """The rows of each part of the protocol."""
        place = {int(i): row for row, i in enumerate(self.rows)}
        return {
            name: np.array([place[int(i)] for i in own if int(i) in place], dtype=np.int64)
            for name, own in self.samples.parts.items()
        }

    def classification_result(
        self,
        labels: tuple[str, ...],
        truth: Int64[np.ndarray, " s"],
        scores: Float32[np.ndarray, "n l"],
        *,
        run: Mapping[str, Any],
        seconds: Mapping[str, float],
    ) -> ClassificationResult:
        """Make the result for labels; `truth` is of all samples, `scores` of the rows, `run` from `describe`."""
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
        """Complete a result's `run`: `facts`, `more`, decoders, notes, and what is partial."""
        names = [item.name for item in self.samples.items]
        digests = dict(zip(names, (one.digest for one in self.embeddings), strict=True))
        lost = len(names) - len(self.rows)
        why = [*self.samples.partial_why, *more.get("partial_why", ())]
        if lost:
            why.append(f"{lost:,} of {len(names):,} files could not be read: figures are of the others")
        decoders = Counter(one.decoder for one in self.embeddings if one.decoder)
        notes = Counter(note for one in self.embeddings for note in one.notes)
        return facts | dict(more) | {
            "data": dict(self.samples.data) | {"files_sha256": files_digest(names, digests), "count": len(names)},
            "views": facts["views"] | {"decoder": DECODERS, "decoded_by": dict(decoders), "notes": dict(notes)},
            "partial": bool(why),
            "partial_why": why,
        }  # fmt: skip


def describe_views(clip_encoder: ClipEncoder, averaging: Averaging) -> dict[str, Any]:
    """Describe how frames were taken from the files."""
    return asdict(clip_encoder.spec) | {
        "views": clip_encoder.clips,
        "crops": clip_encoder.crops,
        "averaging": averaging,
    }


def files_seen(model: Engine) -> frozenset[str]:
    """Return the sha256 of the files that a model learnt from, as far as it says."""
    return frozenset() if model.folder is None else frozenset(read_files_seen(model.folder))


def describe_run(
    model: Engine | None,
    data: dict[str, Any],
    *,
    digests: Sequence[str] = (),
    seen: frozenset[str] = frozenset(),
    supervision: str = "",
) -> dict[str, Any]:
    """Describe the model, the data, the versions and the machine for a result's `run`.

    `digests` are the sha256 of the files that were read, `seen` those that the model learnt from: when they meet the
    result is not zero-shot, whatever the data set is called. `supervision` says how labels were learnt from examples,
    where they were by more than the model.
    """
    zero_shot, why = zero_shot_by_name(() if model is None else model.trained_on, data)
    if supervision or (model is not None and model.labels):
        zero_shot, why = False, f"supervised: {supervision or 'trained on these labels'}"
    if common := sum(digest in seen for digest in digests):
        zero_shot, why = False, f"trained on {common:,} of these {len(digests):,} files"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "folder": str(Path.cwd()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": 0,
        "model": None if model is None else {
            "name": model.name,
            "key": model.key,
            "trained_on": list(model.trained_on),
            "scale": model.scale,
            "precision": model.precision,
        },
        "versions": {"clipact": __version__, "python": platform.python_version(), **_versions()},
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": _threads(),
            "device": "cpu" if model is None else model.device,
        },
        "zero_shot": zero_shot,
        "zero_shot_why": why,
    }  # fmt: skip


def zero_shot_by_name(trained_on: tuple[str, ...], data: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether a score on this data set is zero-shot, and why not; None when the model does not say what it learnt from.

    A name in `trained_on` may go on with the part, as in "flickr8k train": any part of a set counts. A table of one's
    own is of no named set, and says only what the model learnt from.
    """
    ours = {_bare(name): name for name in (data["set"], *data.get("aliases", ())) if name}
    seen = [name for name in trained_on if _bare(name) in ours or _bare(name.partition(" ")[0]) in ours]
    if seen:
        return False, f"trained on {', '.join(seen)}"
    if not trained_on:
        return None, "the model does not say what it was trained on"
    if not ours:
        return (
            None,
            f"the model was trained on {', '.join(trained_on)}; of which data set these files are, no protocol says",
        )
    return True, ""


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional one
            continue
    return found


def _threads() -> int:
    """Return how many threads torch computes with; 0 where no torch was needed."""
    torch = sys.modules.get("torch")
    return 0 if torch is None else torch.get_num_threads()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor()
