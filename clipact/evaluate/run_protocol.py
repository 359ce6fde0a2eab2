"""Run a protocol: a model and a data folder become a result in OUT/PROTOCOL--MODEL.

Until it is finished a journal stands beside that folder, so that a run that was killed goes on.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from clipact.cache import content_key
from clipact.classify.supervised import SupervisedClassifier
from clipact.classify.text_classifier import wording_key
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.clip_spec import Averaging
from clipact.config import to_table
from clipact.data.protocol import Protocol
from clipact.engines.engine import Engine
from clipact.errors import ResultError, UsageError
from clipact.evaluate.encode import EvalOptions
from clipact.evaluate.results import ClassificationResult, RetrievalResult, load_result, read_run, save_result
from clipact.evaluate.run import evaluate, evaluate_retrieval
from clipact.evaluate.samples import EvalSamples
from clipact.prompts import PromptSet


@dataclass(frozen=True, kw_only=True)
class ProtocolOverrides:
    """Override parts of a protocol; None leaves the protocol's own."""

    prompts: str | None = None
    frames: int | None = None
    views: int | None = None
    averaging: Averaging | None = None

    def apply(self, protocol: Protocol) -> tuple[Protocol, tuple[str, ...]]:
        """Return the changed protocol under a name of its own, and each change in words."""
        words, views = protocol.words, protocol.views
        changes, tags = [], []
        if protocol.retrieval and self.averaging is not None:
            raise UsageError(
                "captions are compared with embeddings, averaged over the views: --averaging is for labels"
            )
        if self.prompts is not None and self.prompts != words.templates:
            if protocol.retrieval:
                raise UsageError("captions are sentences already: --prompts is for labels")
            changes.append(f"prompts {self.prompts} instead of {words.templates}")
            tags.append(Path(self.prompts).stem)
            words = replace(words, templates=self.prompts)
        for name in ("frames", "views", "averaging"):
            asked, own = getattr(self, name), getattr(views, name)
            if asked is not None and asked != own:
                changes.append(f"{name} {asked} instead of {'the model’s own' if own is None else own}")
                tags.append(f"{name}-{asked}" if name != "averaging" else asked)
                views = replace(views, **{name: asked})
        return replace(protocol, name="--".join([protocol.name, *tags]), words=words, views=views), tuple(changes)


def run_protocol(
    protocol: Protocol,
    samples: EvalSamples,
    model: Engine,
    out: Path,
    *,
    changed: tuple[str, ...] = (),
    options: EvalOptions | None = None,
) -> tuple[ClassificationResult | RetrievalResult, Path]:
    """Evaluate a model under a protocol; return the result and the folder that holds it.

    With `options.resume` a result that is there already is kept when the same was asked for (model, protocol, list of
    samples, and every sentence of every label; the samples' files are not read again), and a journal is taken up.
    """
    precision = model.precision
    letters = _letters(protocol, model.name)
    folder = result_folder(protocol, model.name, out, precision=precision)
    journal = folder.with_name(f"{folder.name}.journal")
    prompts = None if samples.labels is None else PromptSet.load(protocol.words.templates)
    sentences = "" if samples.labels is None or prompts is None else wording_key(samples.labels, prompts)
    table = json.dumps(to_table(protocol), sort_keys=True, default=str)
    request_key = content_key("asked 3", model.key, precision, table, sentences)
    options = options or EvalOptions()
    if options.resume and not journal.exists() and (kept := _finished(folder, request_key, samples)) is not None:
        return kept, folder
    run = {
        "protocol": protocol.name,
        "title": protocol.title,
        "metric": protocol.metric,
        "request_key": request_key,
        "name_key": letters,
        "partial_why": list(changed),
        **options.run,
    }
    options = replace(options, journal=journal, run=run)
    spec = protocol.views.apply(model.spec)
    result: ClassificationResult | RetrievalResult
    if samples.labels is None or prompts is None:
        result = evaluate_retrieval(
            model, samples, spec=spec, views=protocol.views.views, crops=protocol.views.crops, options=options
        )  # fmt: skip
    else:
        classifier: ZeroShotClassifier | SupervisedClassifier
        if model.labels:
            classifier = SupervisedClassifier(model, samples.labels, clips=protocol.views.views, spec=spec)
        else:
            classifier = ZeroShotClassifier(
                model, samples.labels, prompts=prompts, clips=protocol.views.views, spec=spec, cache=options.cache
            )
        result = evaluate(
            classifier, samples, averaging=protocol.views.averaging, crops=protocol.views.crops, options=options
        )
    save_result(result, folder)
    journal.unlink(missing_ok=True)
    return result, folder


def result_folder(protocol: Protocol, model: str, out: Path, *, precision: str = "fp32") -> Path:
    """Return OUT/PROTOCOL--MODEL, with the precision where it is not fp32.

    When a result of another model, table or prompt file of that name lies there, letters are appended.

    runs/a/best and runs/b/best are two models, a/test.csv and b/test.csv two tables: neither overwrites the other.
    ResultError when something else lies there.
    """
    name = f"{file_name(protocol.name)}--{file_name(model)}" + ("" if precision == "fp32" else f"-{precision}")
    plain, letters = out / name, _letters(protocol, model)
    run = read_run(plain)
    if not run or run.get("name_key") == letters:
        return plain
    other = plain.with_name(f"{plain.name}-{letters}")
    read_run(other)
    return other


def file_name(name: str) -> str:
    """A name that a folder can have: a path becomes its last part, and what is no word a dash."""
    return re.sub(r"[^\w.+-]+", "-", Path(name).name if Path(name).is_dir() else name).strip("-.") or "model"


def _letters(protocol: Protocol, model: str) -> str:
    """What tells apart results that would have one name."""
    return content_key(
        model, protocol.source, str(protocol.folder), protocol.name, protocol.words.set, protocol.words.templates
    )[:8]


def _finished(folder: Path, request_key: str, samples: EvalSamples) -> ClassificationResult | RetrievalResult | None:
    if not folder.is_dir():
        return None
    try:
        kept = load_result(folder)
    except ResultError:
        return None
    same = kept.run.get("request_key") == request_key and kept.run["data"]["list_sha256"] == samples.data["list_sha256"]
    return kept if same and kept.run["data"]["count"] == len(samples) else None
