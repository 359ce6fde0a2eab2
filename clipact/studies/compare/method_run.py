"""One method under one seed: trained, evaluated, and recorded with the resources that it used.

    FOLDER/run          of a method that is trained: its log, and the model in run/last
    FOLDER/pretraining  the same of its training before, without labels
    FOLDER/result       of its evaluation: there once the run is finished, whole or not at all

A run that was killed goes on from the last step that was saved, as any training does.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clipact.classify.embedding_recognizer import EmbeddingRecognizer
from clipact.classify.probe import KNNProbe, LinearProbe, ProbeClassifier
from clipact.classify.supervised import SupervisedClassifier
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.config import parse, to_table
from clipact.errors import DataError, ResultError, UsageError
from clipact.evaluate import EvalOptions, evaluate
from clipact.evaluate.fit_probes import ProbeConfig, fit_probes
from clipact.evaluate.results import ClassificationResult, load_result, save_result
from clipact.models import zoo
from clipact.models.checkpoint import checkpoint_folder
from clipact.models.profile import count_parameters, profile_model
from clipact.models.zoo import Model
from clipact.progress import no_progress
from clipact.studies.compare.method import Method
from clipact.studies.compare.settings import CompareSettings, ExecutionContext
from clipact.studies.compare.split import ComparisonSplit
from clipact.train.baselines import baseline_recipe, pretraining_recipe
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.log import peak_memory_bytes, read_log, reset_peak_memory
from clipact.train.masked import MaskedTrainer, PretrainRecipe
from clipact.train.recipe import Recipe, Schedule
from clipact.train.trainer import STATE_FILE, Trainer

_RESULT, _LAST = "result", "last"


@dataclass(frozen=True, kw_only=True)
class TrainedMethod:
    """Hold a trained model, how many of its parameters were trained, in how many seconds, and more facts."""

    model: Model
    trainable_parameters: int = 0
    seconds: float = 0.0
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodRun:
    """Run a method under a seed; `key` is of all that its result depends on, `table` the split that training reads."""

    method: Method
    seed: int
    key: str
    split: ComparisonSplit
    settings: CompareSettings
    folder: Path
    table: Path

    def finished(self) -> ClassificationResult | None:
        """Return its result, where it is there and whole."""
        if not (self.folder / _RESULT).is_dir():
            return None
        try:
            found = load_result(self.folder / _RESULT)
        except ResultError:
            return None
        return found if isinstance(found, ClassificationResult) and found.run.get("request_key") == self.key else None

    def execute(self, context: ExecutionContext) -> ClassificationResult:
        """Train and evaluate the method, and write the result to the folder.

        UsageError where "zero-shot" would be said of a model that learnt from this data set, or from any of its files.
        """
        device = zoo.pick_device(context.device)
        reset_peak_memory(device)

        options = EvalOptions(cache=context.cache, progress=context.progress)
        recognizer, trained = self._recognizer(context, options)
        cost = profile_model(trained.model.encoder, spec=self.settings.clip.in_colours_of(trained.model.encoder.spec))
        protocol = self.split.protocol
        run = {
            "protocol": protocol.name,
            "title": protocol.title,
            "metric": "top_1",
            "seed": self.seed,
            "request_key": self.key,
        }
        result = evaluate(
            recognizer,
            self.split.test,
            averaging=protocol.views.averaging if protocol.views.averaging in recognizer.averagings else "embeddings",
            crops=protocol.views.crops,
            options=replace(options, run=run, features=self._features(recognizer, context)),
        )
        if self.method.kind == "zero-shot" and result.run["zero_shot"] is False:
            raise UsageError(
                f"{self.method.model} is not zero-shot here ({result.run['zero_shot_why']}); compare another model, "
                "or ask `clipact eval` about this one"
            )
        facts = {
            "row": self.method.name,
            "split": self.split.description,
            "parameters": count_parameters(trained.model.encoder)["visual"],
            "trainable_parameters": trained.trainable_parameters,
            "training_seconds": trained.seconds,
            **trained.more,
            **asdict(cost),
            "peak_memory_bytes": peak_memory_bytes(device),
        }
        result = replace(result, run={**result.run, "comparison": facts})
        save_result(result, self.folder / _RESULT)
        for kept in ("run", "pretraining"):
            (self.folder / kept / STATE_FILE).unlink(missing_ok=True)  # three times the model, and of no more use
        return result

    def _recognizer(self, context: ExecutionContext, options: EvalOptions) -> tuple[EmbeddingRecognizer, TrainedMethod]:
        kind, clips = self.method.kind, self.split.protocol.views.views
        if kind in ("trained", "pretrained"):
            trained = train_method(
                self.method, self.settings, table=self.table, split=self.split, seed=self.seed, context=context,
                folder=self.folder,
            )  # fmt: skip
            spec = self.settings.clip.in_colours_of(trained.model.encoder.spec)
            return SupervisedClassifier(trained.model, clips=clips, spec=spec), trained
        model = zoo.load_model(self.method.model, device=context.device, defer_text=kind != "zero-shot")
        if kind != "zero-shot":
            return self._probe(model, options, context)
        if model.labels:
            raise UsageError(f"{model.name} was trained on labels of its own and knows no words: it is not zero-shot")
        assert self.split.test.labels is not None
        words = ZeroShotClassifier(
            model,
            self.split.test.labels,
            prompts=self.split.protocol.words.templates,
            clips=clips,
            spec=self.settings.clip.in_colours_of(model.encoder.spec),
            cache=context.cache,
        )
        return words, TrainedMethod(model=model)

    def _features(self, recognizer: EmbeddingRecognizer, context: ExecutionContext) -> Path | None:
        if self.method.kind in ("trained", "pretrained"):
            return None
        return context.features_of(recognizer.model, recognizer.spec, clips=recognizer.clips)

    def _probe(
        self, model: Model, options: EvalOptions, context: ExecutionContext
    ) -> tuple[ProbeClassifier, TrainedMethod]:
        spec, clips = self.settings.clip.in_colours_of(model.encoder.spec), self.split.protocol.views.views
        options = replace(options, features=context.features_of(model, spec, clips=clips))
        train = self.split.train
        # Clips are encoded now, and kept: the seconds are those of the fit, whichever row is the first.
        nearest = next(
            fit_probes(model, train, ProbeConfig(kind="nearest"), spec=spec, clips=clips, options=options)
        ).probe
        assert isinstance(nearest, KNNProbe)
        if unreadable := len(train) - len(nearest.truth):
            raise DataError(
                f"{unreadable} of the {len(train)} clips to learn from cannot be read; "
                f"`clipact data check {self.table}` names them"
            )
        begun = time.perf_counter()
        probe_config = self.method.probe_config(self.seed)
        probe = next(
            fit_probes(
                model, train, probe_config, spec=spec, clips=clips, options=replace(options, progress=no_progress)
            )
        )
        seconds, fitted = time.perf_counter() - begun, probe.probe
        count = fitted.weight.size + fitted.bias.size if isinstance(fitted, LinearProbe) else 0
        return probe, TrainedMethod(model=model, trainable_parameters=count, seconds=seconds)


def train_method(
    method: Method,
    settings: CompareSettings,
    *,
    table: Path,
    split: ComparisonSplit,
    seed: int,
    context: ExecutionContext,
    folder: Path,
) -> TrainedMethod:
    """Train the model of a method in FOLDER/run on the training samples of `table`."""
    baseline, pretraining_seconds, more = method.baseline, 0.0, dict[str, float]()
    if method.kind == "pretrained":
        out, pretrain_recipe = folder / "pretraining", _pretrain_recipe(settings, table=table, split=split, seed=seed)
        _complete(MaskedTrainer(pretrain_recipe, data=Path(), device=zoo.pick_device(context.device)), out, context)
        pretraining_seconds = _seconds(out, pretrain_recipe.train)
        more = {"pretraining_seconds": pretraining_seconds, "explained": read_log(out)[-1]["tested.explained"]}
        baseline = f"{baseline}:{out / _LAST}"
    recipe = parse(Recipe, _table(method, baseline, settings, table=table, split=split, seed=seed))
    run = ContrastiveTrainer(
        recipe, data=Path(), device=zoo.pick_device(context.device), cache=context.cache, progress=context.progress
    )
    _complete(run, folder / "run", context)
    names = set(run.state.names)
    trainable = sum(one.numel() for name, one in run.encoder.named_parameters() if name in names)
    del run
    return TrainedMethod(
        model=zoo.load_model(str(folder / "run" / _LAST), device=context.device),
        trainable_parameters=trainable,
        seconds=pretraining_seconds + _seconds(folder / "run", recipe.train),
        more=more,
    )


def _complete(trainer: Trainer, out: Path, context: ExecutionContext) -> None:
    """Train to the last step, from where it stands."""
    if checkpoint_folder(str(out / _LAST)) is not None:
        return
    context.follow(trainer, trainer.train(out, resume=(out / STATE_FILE).exists()))
    if trainer.stopping:
        raise KeyboardInterrupt


def _seconds(out: Path, schedule: Schedule) -> float:
    """The seconds of all steps of a run, those before it was resumed among them; validation is left out."""
    return sum(schedule.batch / line["samples_per_second"] for line in read_log(out))


def _table(
    method: Method, baseline: str, settings: CompareSettings, *, table: Path, split: ComparisonSplit, seed: int
) -> dict[str, Any]:
    budget = settings.whole if method.trains_whole else settings.head
    source = {"manifest": str(table), "root": str(split.root.resolve()), "frames": settings.clip.frames}
    recipe_table = baseline_recipe(
        baseline,
        clip=settings.clip,
        seed=seed,
        trained_on=[_trained_on(split)],
        data={"sources": [source], "workers": settings.workers, **_augmented(budget.augment)},
        train=to_table(budget.train),
        optim=to_table(budget.optim),
    )
    if "clip" not in recipe_table["init"]:  # another library's model: its colours are known once it is loaded
        own = zoo.load_model(method.model, device="cpu", defer_text=True).encoder.spec
        recipe_table["init"]["clip"] = to_table(settings.clip.in_colours_of(own))
    return recipe_table | {"name": method.name}


def _pretrain_recipe(settings: CompareSettings, *, table: Path, split: ComparisonSplit, seed: int) -> PretrainRecipe:
    """The training clips without their labels; the test clips measure the error, and choose nothing."""
    budget, source = settings.pretraining, {"manifest": str(table), "root": str(split.root.resolve())}
    recipe_table = pretraining_recipe(
        name="videomae",
        clip=settings.clip,
        seed=seed,
        trained_on=[f"{_trained_on(split)}, without labels"],
        data={"sources": [{**source, "split": "train"}], "workers": settings.workers, **_augmented(budget.augment)},
        validation={"sets": [{**source, "split": "test", "name": "tested"}]},
        train=to_table(budget.train),
        optim=to_table(budget.optim),
        mask=to_table(budget.mask),
    )
    return parse(PretrainRecipe, recipe_table)


def _augmented(augment: Any) -> dict[str, Any]:
    return {} if augment is None else {"augment": to_table(augment)}


def _trained_on(split: ComparisonSplit) -> str:
    """A data set's name first, so that it is recognised, and which part of it."""
    return f"{split.protocol.data.set or split.protocol.name} {split.description}"
