"""One row under one seed: what it learns is learnt, then it is judged, and the result says what it took.

    FOLDER/run          of a row that trains: its log, and the model in run/last
    FOLDER/pretraining  the same of what it learnt before, without labels
    FOLDER/result       what the one evaluation runner found: there once the cell is finished, whole or not at all

A cell that was killed goes on from the last step that was saved, as any run does.
"""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clipact.classify.probe import KNNProbe, LinearProbe, ProbeClassifier
from clipact.classify.supervised import SupervisedClassifier
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.errors import DataError, ResultError, UsageError
from clipact.evaluate import EvalOptions, evaluate
from clipact.evaluate import results as scores
from clipact.evaluate.fit_probes import ProbeConfig, fit_probes
from clipact.evaluate.journal import SampleEmbedding
from clipact.evaluate.results import ClassificationResult
from clipact.models import zoo
from clipact.models.profile import count_parameters, profile_model
from clipact.models.zoo import Model
from clipact.studies.compare.execution import ExecutionContext
from clipact.studies.compare.method import Method
from clipact.studies.compare.settings import CompareSettings
from clipact.studies.compare.split import ComparisonSplit
from clipact.studies.compare.train_method import TrainedMethod, train_method
from clipact.train.log import peak_memory_bytes, reset_peak_memory
from clipact.train.trainer import STATE_FILE

_RESULT = "result"


@dataclass(frozen=True, kw_only=True)
class MethodRun:
    """A row under a seed; `key` is of all that decides what comes out, `table` the split that training reads."""

    contender: Method
    seed: int
    key: str
    split: ComparisonSplit
    settings: CompareSettings
    folder: Path
    table: Path

    def finished(self) -> ClassificationResult | None:
        """Its result, where it is there and whole."""
        if not (self.folder / _RESULT).is_dir():
            return None
        try:
            found = scores.load_result(self.folder / _RESULT)
        except ResultError:
            return None
        return found if isinstance(found, ClassificationResult) and found.run.get("asked") == self.key else None

    def carry_out(self, hands: ExecutionContext) -> ClassificationResult:
        """The result, written to the folder.

        UsageError where "zero-shot" would be said of a model that learnt from this data set, or from any of its files.
        """
        device = zoo.pick_device(hands.device)
        reset_peak_memory(device)

        def watch(findings: Iterable[SampleEmbedding], total: int) -> Iterable[SampleEmbedding]:
            return hands.progress(findings, total, "judging")

        options = EvalOptions(cache=hands.cache, watch=watch)
        recognizer, taught = self._recognizer(hands, options)
        cost = profile_model(taught.model.encoder, spec=self.settings.clip.in_colours_of(taught.model.encoder.spec))
        protocol = self.split.protocol
        run = {
            "protocol": protocol.name,
            "title": protocol.title,
            "metric": "top_1",
            "seed": self.seed,
            "asked": self.key,
        }
        result = evaluate(
            recognizer,
            self.split.tested,
            averaging="embeddings" if isinstance(recognizer, ProbeClassifier) else protocol.views.averaging,
            crops=protocol.views.crops,
            options=replace(options, run=run),
        )
        if self.contender.kind == "zero-shot" and result.run["zero_shot"] is False:
            raise UsageError(
                f"{self.contender.model} is not zero-shot here ({result.run['zero_shot_why']}); compare another model, "
                "or ask `clipact eval` about this one"
            )
        facts = {
            "row": self.contender.name,
            "split": self.split.said,
            "parameters": count_parameters(taught.model.encoder)["visual"],
            "learnt": taught.learnt,
            "training_seconds": taught.seconds,
            **taught.more,
            **asdict(cost),
            "peak_memory_bytes": peak_memory_bytes(device),
        }
        result = replace(result, run={**result.run, "comparison": facts})
        scores.save_result(result, self.folder / _RESULT)
        for kept in ("run", "pretraining"):
            (self.folder / kept / STATE_FILE).unlink(missing_ok=True)  # three times the model, and of no more use
        return result

    def _recognizer(
        self, hands: ExecutionContext, options: EvalOptions
    ) -> tuple[ZeroShotClassifier | SupervisedClassifier | ProbeClassifier, TrainedMethod]:
        kind, clips = self.contender.kind, self.split.protocol.views.views
        if kind in ("trained", "pretrained"):
            taught = train_method(
                self.contender, self.settings, table=self.table, split=self.split, seed=self.seed, hands=hands,
                folder=self.folder,
            )  # fmt: skip
            spec = self.settings.clip.in_colours_of(taught.model.encoder.spec)
            return SupervisedClassifier(taught.model, clips=clips, spec=spec), taught
        model = zoo.load_model(self.contender.model, device=hands.device, defer_text=kind != "zero-shot")
        if kind != "zero-shot":
            return self._probe(model, options)
        if model.labels:
            raise UsageError(f"{model.name} was trained on labels of its own and knows no words: it is not zero-shot")
        assert self.split.tested.labels is not None
        words = ZeroShotClassifier(
            model,
            self.split.tested.labels,
            prompts=self.split.protocol.words.templates,
            clips=clips,
            spec=self.settings.clip.in_colours_of(model.encoder.spec),
            cache=hands.cache,
        )
        return words, TrainedMethod(model=model)

    def _probe(self, model: Model, options: EvalOptions) -> tuple[ProbeClassifier, TrainedMethod]:
        spec, clips = self.settings.clip.in_colours_of(model.encoder.spec), self.split.protocol.views.views
        learnt = self.split.learnt
        # Clips are encoded now, and kept: the seconds are those of learning, whichever row is the first.
        all_of_them = next(
            fit_probes(model, learnt, ProbeConfig(kind="nearest"), spec=spec, clips=clips, options=options)
        ).probe
        assert isinstance(all_of_them, KNNProbe)
        if lost := len(learnt) - len(all_of_them.truth):
            raise DataError(
                f"{lost} of the {len(learnt)} clips to learn from cannot be read; `clipact data check {self.table}` "
                "names them"
            )
        begun = time.perf_counter()
        probing = self.contender.probing(self.seed)
        probe = next(
            fit_probes(model, learnt, probing, spec=spec, clips=clips, options=EvalOptions(cache=options.cache))
        )
        seconds, fitted = time.perf_counter() - begun, probe.probe
        count = fitted.weight.size + fitted.bias.size if isinstance(fitted, LinearProbe) else 0
        return probe, TrainedMethod(model=model, learnt=count, seconds=seconds)
