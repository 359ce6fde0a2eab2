"""A row of a comparison, by name, becomes a recogniser: by words alone, by a probe, or by training.

    zero-shot:MODEL       words alone
    probe:MODEL           a linear probe of all examples; probe@4:MODEL of 4 a label, drawn anew by each seed
    nearest:MODEL         the votes of the nearest examples; nearest@4:MODEL
    videomae              a ViViT pretrained on the examples without their labels, then fine-tuned
    any other             a name of `clipact.baselines.baseline_recipe`: i3d, i3d+cbam, lstm:mini, vivit, ...

All of them see the frames of one `Lesson`. What is trained lies in a folder, is found there again, and goes on where it
was stopped.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from clipact import zoo
from clipact.baselines import baseline_recipe, pretraining_recipe
from clipact.classifier import ZeroShotClassifier
from clipact.clip_spec import ClipSpec
from clipact.config import parse
from clipact.data.manifest import read_manifest
from clipact.errors import UsageError
from clipact.evaluate import How, manifest_card, read_samples
from clipact.evaluate.probing import Probing, fit_probes
from clipact.probe_classifier import ProbeClassifier
from clipact.store import Store
from clipact.supervised import SupervisedClassifier
from clipact.training.course import STATE, Course
from clipact.training.loop import Run
from clipact.training.pretrain import Pretraining, PretrainRecipe
from clipact.training.recipe import Recipe
from clipact.training.report import Report

Contender: TypeAlias = ZeroShotClassifier | ProbeClassifier | SupervisedClassifier
Follow: TypeAlias = Callable[[Course, Iterator[Report]], None]

_PROBE = re.compile(r"(probe|nearest)(?:@(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What all rows learn from, and how they see it.

    manifest    a CSV table with the columns path, label and split: "train" is learnt from, "test" is looked at by
                nothing but the curve of pretraining
    data        the folder below which its paths lie
    clip        frames and size; a model that learnt on colours of its own keeps these
    trained_on  what a model that learnt here says of its data
    prompts     the sentences of those that know words
    tables      of the recipe of all that are trained: train and what else a recipe holds; how long, how fast
    pretraining the same, of a "videomae" before that
    """

    manifest: Path
    data: Path
    clip: ClipSpec
    trained_on: tuple[str, ...]
    prompts: str = "action"
    tables: Mapping[str, Any]
    pretraining: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> dict[str, str]:
        """The table as a source of a recipe."""
        return {"manifest": str(self.manifest.absolute()), "root": str(self.data.absolute())}


def make_recognizer(
    name: str,
    lesson: Lesson,
    *,
    out: Path,
    seed: int = 0,
    device: str = "auto",
    store: Store | None = None,
    follow: Follow | None = None,
) -> Contender:
    """The recogniser of that name, ready to be judged by `clipact.evaluate.evaluate`.

    out     where what is trained lies: OUT/last, and OUT/pretrained of a "videomae". What is whole there is taken as
            it is, what was begun goes on
    store   where embeddings and frozen features are kept; the default folder when None
    follow  is given each run with its reports, to take it to its end and show how far it is
    UsageError for a name that means nothing; KeyboardInterrupt when `follow` stops a run before its end.
    """
    store, follow = store or Store(), follow or _drain
    kind, _, place = name.partition(":")
    if kind == "zero-shot" and place:
        model = zoo.load(place, device=device)
        return ZeroShotClassifier(
            model, _labels(lesson), prompts=lesson.prompts, spec=_own_colours(lesson.clip, model), store=store
        )
    if (probe := _PROBE.fullmatch(kind)) and place:
        shots = None if probe[2] is None else int(probe[2])
        probing = Probing(kind="linear" if probe[1] == "probe" else "nearest", shots=shots, seed=seed)
        model = zoo.load(place, device=device)
        samples = read_samples(manifest_card(lesson.manifest, split="train"), lesson.data)
        return next(fit_probes(model, samples, probing, spec=_own_colours(lesson.clip, model), how=How(store=store)))
    if name == "videomae":
        pretrained = _pretrain(lesson, out / "pretrained", seed=seed, device=device, follow=follow)
        name = f"videomae:{pretrained}"
    table = baseline_recipe(
        name,
        clip=lesson.clip,
        seed=seed,
        trained_on=list(lesson.trained_on),
        data={"sources": [{**lesson.source, "frames": lesson.clip.frames}]},
        **lesson.tables,
    )
    run = Run(
        parse(Recipe, table),
        data=lesson.data,
        device=zoo.pick_device(device),
        store=store,
        watch=lambda items, total, what: items,
    )
    return SupervisedClassifier.load(str(_finish(run, out, follow)), device=device)


def _pretrain(lesson: Lesson, out: Path, *, seed: int, device: str, follow: Follow) -> Path:
    table = pretraining_recipe(
        clip=lesson.clip,
        name="videomae",
        seed=seed,
        trained_on=list(lesson.trained_on),
        data={"sources": [lesson.source]},
        judge={"sets": [{"name": "test", "split": "test", **lesson.source}]},
        **lesson.pretraining,
    )
    run = Pretraining(parse(PretrainRecipe, table), data=lesson.data, device=zoo.pick_device(device))
    return _finish(run, out, follow)


def _finish(run: Course, out: Path, follow: Follow) -> Path:
    last = out / "last"
    if not last.exists():
        follow(run, run.train(out, resume=(out / STATE).exists()))
    if not last.exists():
        raise KeyboardInterrupt
    return last


def _drain(run: Course, reports: Iterator[Report]) -> None:
    for _ in reports:
        pass


def _labels(lesson: Lesson) -> tuple[str, ...]:
    samples = read_manifest(lesson.manifest, lesson.data).of_split("train")
    if any(sample.label is None for sample in samples):
        raise UsageError(f"{lesson.manifest} has samples without a label; a comparison is among labels")
    return tuple(sorted({str(sample.label) for sample in samples}))


def _own_colours(clip: ClipSpec, model: zoo.Model) -> ClipSpec:
    own = model.encoder.spec
    return replace(clip, mean=own.mean, std=own.std)
