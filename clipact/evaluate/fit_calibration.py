"""Labelled samples become a calibration: they are evaluated against labels and background words at once."""

from collections.abc import Sequence

from clipact.cache import Store
from clipact.calibration import DEFAULT, Answers, Calibration, LabelledClips, beside, fit_judgement
from clipact.classify.calibrated import Background, choose_background, weigh
from clipact.classify.text_classifier import words_key
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.protocol import Views
from clipact.errors import CalibrationError, UsageError
from clipact.evaluate.options import How
from clipact.evaluate.results import Scores
from clipact.evaluate.run import evaluate
from clipact.evaluate.samples import Samples
from clipact.models.zoo import Model
from clipact.prompts import LabelSet, PromptSet


def labelled_clips(
    model: Model, samples: Samples, labels: LabelSet, prompts: PromptSet, *, views: Views, how: How | None = None
) -> tuple[LabelledClips, Background, Scores]:
    """What a calibration is fitted on, the background, and the scores with what could not be read."""
    if views.averaging != "embeddings" or views.crops != 1:
        raise CalibrationError(
            f"{views.crops} crops whose {views.averaging} are averaged: `clipact classify` looks at one crop and "
            "averages embeddings, and so must what it is calibrated on"
        )
    if prompts.awaits_weights:
        raise UsageError(f"the templates of {prompts.name!r} await their weights; write weights = [...] into the file")
    store = (None if how is None else how.store) or Store()
    background = choose_background(model, labels, prompts, store=store)
    classifier = ZeroShotClassifier(
        model,
        beside(labels, background.words),
        prompts=prompts,
        spec=views.apply(model.encoder.spec),
        clips=views.views,
        words=weigh(model, labels, background.words, prompts, store=store),
    )
    scores, count = evaluate(classifier, samples, how=how), len(labels)
    clips = LabelledClips(
        logits=scores.scores[:, :count],
        background=scores.scores[:, count:],
        near=background.near,
        truth=scores.truth,
        groups=scores.groups or _files(samples, scores.samples),
        multi_truth=None if scores.multi_truth is None else scores.multi_truth[:, :count],
    )
    return clips, background, scores


def _files(samples: Samples, names: Sequence[str]) -> tuple[str, ...] | None:
    """The file of each sample of those names, where several are stretches of one: they belong together."""
    file_of = {item.name: str(item.path) for item in samples.items}
    files = tuple(file_of[name] for name in names)
    return files if len(set(files)) < len(files) else None


def calibrate(
    model: Model,
    samples: Samples,
    *,
    prompts: PromptSet,
    views: Views,
    labels: LabelSet | None = None,
    source: str = "",
    coverage: float = 0.9,
    false_rejections: float = 0.05,
    score: str = DEFAULT,
    how: How | None = None,
) -> tuple[Calibration, Scores]:
    """A calibration of the model's answers among the samples' labels, and the scores that it was fitted on.

    `labels` stand instead of the samples' own, of which they hold all; the rest as for `fit_judgement`.
    CalibrationError when there are too few samples, UsageError for captions.
    """
    own = labels or samples.labels
    if own is None:
        raise UsageError("these samples have captions; a calibration is fitted on clips with labels")
    clips, background, scores = labelled_clips(model, samples, own, prompts, views=views, how=how)
    judgement, figures = fit_judgement(clips, coverage=coverage, false_rejections=false_rejections, score=score)
    answers = Answers(
        model=model.name,
        model_key=model.key,
        labels=own,
        background=background.far,
        prompts=prompts,
        sentences=words_key(beside(own, background.far), prompts),
        views=views,
    )
    found = Calibration(
        answers=answers,
        judgement=judgement,
        source=source,
        clips=len(clips),
        groups=len(clips if clips.groups is None else set(clips.groups)),
        figures=figures,
    )
    return found, scores
