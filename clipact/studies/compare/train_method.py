"""A row that trains becomes a recipe of `clipact train`, after one of `clipact pretrain` where it asks for that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipact.config import parse, to_table
from clipact.models import zoo
from clipact.models.checkpoint import checkpoint_folder
from clipact.models.zoo import Model
from clipact.studies.compare.execution import ExecutionContext
from clipact.studies.compare.method import Method
from clipact.studies.compare.settings import CompareSettings
from clipact.studies.compare.split import ComparisonSplit
from clipact.train.baselines import baseline_recipe, pretraining_recipe
from clipact.train.contrastive import ContrastiveTrainer
from clipact.train.log import read_log
from clipact.train.masked import MaskedTrainer, PretrainRecipe
from clipact.train.recipe import Recipe, Schedule
from clipact.train.trainer import STATE_FILE, Trainer

_LAST = "last"


@dataclass(frozen=True, kw_only=True)
class TrainedMethod:
    """A model, how many parameters learnt for this row, in how many seconds of steps, and what else is to be said."""

    model: Model
    learnt: int = 0
    seconds: float = 0.0
    more: Mapping[str, float] = field(default_factory=dict)


def train_method(
    contender: Method,
    settings: CompareSettings,
    *,
    table: Path,
    split: ComparisonSplit,
    seed: int,
    hands: ExecutionContext,
    folder: Path,
) -> TrainedMethod:
    """The model of a row, trained in FOLDER/run on the samples of `table` that are learnt from."""
    built, before, more = contender.built, 0.0, dict[str, float]()
    if contender.kind == "pretrained":
        place, pretext = folder / "pretraining", _pretrain_recipe(settings, table=table, split=split, seed=seed)
        _go_through(MaskedTrainer(pretext, data=Path(), device=zoo.pick_device(hands.device)), place, hands)
        before = _seconds(place, pretext.train)
        more = {"pretraining_seconds": before, "explained": read_log(place)[-1]["tested.explained"]}
        built = f"{built}:{place / _LAST}"
    recipe = parse(Recipe, _table(contender, built, settings, table=table, split=split, seed=seed))
    run = ContrastiveTrainer(
        recipe, data=Path(), device=zoo.pick_device(hands.device), cache=hands.cache, progress=hands.progress
    )
    _go_through(run, folder / "run", hands)
    names = set(run.state.names)
    learnt = sum(one.numel() for name, one in run.encoder.named_parameters() if name in names)
    del run
    return TrainedMethod(
        model=zoo.load_model(str(folder / "run" / _LAST), device=hands.device),
        learnt=learnt,
        seconds=before + _seconds(folder / "run", recipe.train),
        more=more,
    )


def _go_through(course: Trainer, place: Path, hands: ExecutionContext) -> None:
    """The run from where it stands to its end; nothing where it has come to that."""
    if checkpoint_folder(str(place / _LAST)) is not None:
        return
    hands.follow(course, course.train(place, resume=(place / STATE_FILE).exists()))
    if course.stopping:
        raise KeyboardInterrupt


def _seconds(place: Path, pace: Schedule) -> float:
    """What all steps of a run took, those before it was resumed among them; judging is left out."""
    return sum(pace.batch / line["samples_per_second"] for line in read_log(place))


def _table(
    contender: Method, built: str, settings: CompareSettings, *, table: Path, split: ComparisonSplit, seed: int
) -> dict[str, Any]:
    budget = settings.whole if contender.learns_whole else settings.head
    source = {"manifest": str(table), "root": str(split.root.resolve()), "frames": settings.clip.frames}
    made = baseline_recipe(
        built,
        clip=settings.clip,
        seed=seed,
        trained_on=[_learnt_from(split)],
        data={"sources": [source], "workers": settings.workers, **_augmented(budget.augment)},
        train=to_table(budget.train),
        optim=to_table(budget.optim),
    )
    if "clip" not in made["init"]:  # another library's model: its colours are known once it is loaded
        own = zoo.load_model(contender.model, device="cpu", defer_text=True).encoder.spec
        made["init"]["clip"] = to_table(settings.clip.in_colours_of(own))
    return made | {"name": contender.name}


def _pretrain_recipe(settings: CompareSettings, *, table: Path, split: ComparisonSplit, seed: int) -> PretrainRecipe:
    """The clips that are learnt from, without their labels; those that judge tell the error, and choose nothing."""
    budget, source = settings.pretraining, {"manifest": str(table), "root": str(split.root.resolve())}
    made = pretraining_recipe(
        name="videomae",
        clip=settings.clip,
        seed=seed,
        trained_on=[f"{_learnt_from(split)}, without labels"],
        data={"sources": [{**source, "split": "train"}], "workers": settings.workers, **_augmented(budget.augment)},
        validation={"sets": [{**source, "split": "test", "name": "tested"}]},
        train=to_table(budget.train),
        optim=to_table(budget.optim),
        mask=to_table(budget.mask),
    )
    return parse(PretrainRecipe, made)


def _augmented(augment: Any) -> dict[str, Any]:
    return {} if augment is None else {"augment": to_table(augment)}


def _learnt_from(split: ComparisonSplit) -> str:
    """A data set's name first, so that it is recognised, and which part of it."""
    return f"{split.protocol.data.set or split.protocol.name} {split.said}"
