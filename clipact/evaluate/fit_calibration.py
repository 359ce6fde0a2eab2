"""Labelled samples become a calibration: they are evaluated against labels and background words at once."""

from clipact.cache import Cache
from clipact.calibration import (
    DEFAULT_OOD_SCORE,
    Calibration,
    CalibrationTarget,
    LabelledClips,
    append_background,
    fit_params,
)
from clipact.classify.calibrated import Background, choose_background, embed_with_background
from clipact.classify.text_classifier import wording_key
from clipact.classify.zero_shot import ZeroShotClassifier
from clipact.data.protocol import Views
from clipact.engines.engine import Engine
from clipact.errors import CalibrationError, UsageError
from clipact.evaluate.encode import EvalOptions
from clipact.evaluate.results import ClassificationResult
from clipact.evaluate.run import evaluate
from clipact.evaluate.samples import EvalSamples
from clipact.prompts import LabelSet, PromptSet


def labelled_clips(
    model: Engine,
    samples: EvalSamples,
    labels: LabelSet,
    prompts: PromptSet,
    *,
    views: Views,
    options: EvalOptions | None = None,
) -> tuple[LabelledClips, Background, ClassificationResult]:
    """What a calibration is fitted on, the background, and the scores with what could not be read."""
    if views.averaging != "embeddings" or views.crops != 1:
        raise CalibrationError(
            f"{views.crops} crops whose {views.averaging} are averaged: `clipact classify` looks at one crop and "
            "averages embeddings, and so must what it is calibrated on"
        )
    if prompts.awaits_weights:
        raise UsageError(f"the templates of {prompts.name!r} await their weights; write weights = [...] into the file")
    cache = (None if options is None else options.cache) or Cache()
    background = choose_background(model, labels, prompts, cache=cache)
    classifier = ZeroShotClassifier(
        model,
        append_background(labels, background.words),
        prompts=prompts,
        spec=views.apply(model.spec),
        clips=views.views,
        words=embed_with_background(model, labels, background.words, prompts, cache=cache),
    )
    scores, count = evaluate(classifier, samples, options=options), len(labels)
    clips = LabelledClips(
        logits=scores.scores[:, :count],
        background=scores.scores[:, count:],
        near=background.near,
        truth=scores.truth,
        groups=scores.groups,
        multi_truth=None if scores.multi_truth is None else scores.multi_truth[:, :count],
    )
    return clips, background, scores


def fit_calibration(
    model: Engine,
    samples: EvalSamples,
    *,
    prompts: PromptSet,
    views: Views,
    labels: LabelSet | None = None,
    source: str = "",
    coverage: float = 0.9,
    false_rejection_rate: float = 0.05,
    score: str = DEFAULT_OOD_SCORE,
    options: EvalOptions | None = None,
) -> tuple[Calibration, ClassificationResult]:
    """A calibration of the model's answers among the samples' labels, and the scores that it was fitted on.

    `labels` stand instead of the samples' own, of which they hold all; the rest as for `fit_params`.
    CalibrationError when there are too few samples, UsageError for captions.
    """
    own = labels or samples.labels
    if own is None:
        raise UsageError("these samples have captions; a calibration is fitted on clips with labels")
    clips, background, scores = labelled_clips(model, samples, own, prompts, views=views, options=options)
    params, metrics = fit_params(clips, coverage=coverage, false_rejection_rate=false_rejection_rate, score=score)
    target = CalibrationTarget(
        model=model.name,
        model_key=model.key,
        labels=own,
        background=background.far,
        prompts=prompts,
        sentences=wording_key(append_background(own, background.far), prompts),
        views=views,
    )
    found = Calibration(
        target=target,
        params=params,
        source=source,
        clips=len(clips),
        groups=len(clips if clips.groups is None else set(clips.groups)),
        metrics=metrics,
    )
    return found, scores
