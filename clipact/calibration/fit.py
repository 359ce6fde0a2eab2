"""Fitting on the logits of labelled clips. Numbers in, a Judgement out; nothing is read."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clipact.calibration.calibration import CalibrationParams, FitMetrics
from clipact.calibration.conformal import conformal_quantile, fewest, label_sets, upper_quantile
from clipact.calibration.labelled_clips import LabelledClips
from clipact.calibration.multi_label import fit_independent, fit_thresholds, log_odds
from clipact.calibration.ood_score import DEFAULT_OOD_SCORE, OOD_SCORES
from clipact.calibration.temperature import fit_temperature, negative_log_likelihood
from clipact.errors import CalibrationError, UsageError, choices
from clipact.metrics import auroc, calibration_error, probabilities

DRAWS = 20


def hidden_halves(labels: int, *, draws: int = DRAWS, seed: int = 0) -> list[Int[np.ndarray, " m"]]:
    """For each draw the labels that are not hidden: half of them, rounded up."""
    generator = np.random.default_rng(seed)
    return [np.sort(generator.permutation(labels)[: (labels + 1) // 2]) for _ in range(draws)]


def hidden_scores(
    clips: LabelledClips, shown: Int[np.ndarray, " m"], *, temperature: float
) -> tuple[dict[str, Float[np.ndarray, " n"]], Bool[np.ndarray, " n"]]:
    """Each score of each clip where only these labels are shown, and which clips are of them."""
    logits, background = clips.among(shown)
    scores = {name: score(logits, background, temperature) for name, score in OOD_SCORES.items()}
    return scores, np.any(clips.true[:, shown], axis=1)


def open_set_auroc(clips: LabelledClips, *, temperature: float, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """The mean AUROC of each score over draws of hidden labels: 0.5 tells nothing, 1 everything."""
    found: dict[str, list[float]] = {name: [] for name in OOD_SCORES}
    for shown in hidden_halves(clips.logits.shape[1], draws=draws, seed=seed):
        scores, known = hidden_scores(clips, shown, temperature=temperature)
        if known.any() and not known.all():
            for name, values in scores.items():
                found[name].append(auroc(values, known))
    return {name: float(np.mean(values)) for name, values in found.items() if values}


_FEWEST = 20


def fit_params(
    clips: LabelledClips,
    *,
    coverage: float = 0.9,
    false_rejection_rate: float = 0.05,
    score: str = DEFAULT_OOD_SCORE,
    seed: int = 0,
) -> tuple[CalibrationParams, FitMetrics]:
    """What these clips teach.

    Half of them (whole groups) give the temperature and what is said of labels one by one; the other half the conformal
    quantile and the threshold of rejection, which hold for clips that nothing else was fitted on. Both promises are for
    new clips that come as these came; where these come in few groups, for less than the number of clips suggests.

    coverage              how often a label set is to hold the right label
    false_rejection_rate  the share of clips that fit a label and may be rejected all the same
    score                 of `ood_score.OOD_SCORES`
    CalibrationError when there are too few clips for that.
    """
    _check(clips, coverage=coverage, false_rejection_rate=false_rejection_rate, score=score)
    one, other = clips.split(seed=seed)
    _check_count(len(clips), len(other), coverage=coverage, false_rejection_rate=false_rejection_rate)
    labels = np.arange(clips.logits.shape[1])
    temperature = fit_temperature(one.logits, one.truth)
    logits, background = other.among(labels)
    independent = fit_independent(log_odds(*one.among(labels)), one.true)
    fits = OOD_SCORES[score](logits, background, temperature)
    params = CalibrationParams(
        temperature=temperature,
        coverage=coverage,
        quantile=conformal_quantile(probabilities(logits / temperature), other.truth, coverage=coverage),
        score=score,
        false_rejection_rate=false_rejection_rate,
        threshold=-upper_quantile(-fits, share=1 - false_rejection_rate),
        independent=independent,
        thresholds=tuple(fit_thresholds(independent.probabilities(*one.among(labels)), one.true).tolist()),
    )
    return params, _figures(clips, other, params)


def _figures(clips: LabelledClips, unseen: LabelledClips, params: CalibrationParams) -> FitMetrics:
    calibrated = unseen.logits / params.temperature
    before, after = probabilities(unseen.logits), probabilities(calibrated)
    right = before.argmax(1) == unseen.truth
    return FitMetrics(
        clips=len(unseen),
        top_1=float(right.mean()),
        calibration_error_before=calibration_error(before.max(1), right),
        calibration_error_after=calibration_error(after.max(1), right),
        loss_before=negative_log_likelihood(unseen.logits, unseen.truth),
        loss_after=negative_log_likelihood(calibrated, unseen.truth),
        set_size=float(label_sets(after, quantile=params.quantile).sum(1).mean()),
        auroc=open_set_auroc(clips, temperature=params.temperature),
    )


def _check(clips: LabelledClips, *, coverage: float, false_rejection_rate: float, score: str) -> None:
    if not 0 < coverage < 1 or not 0 < false_rejection_rate < 1:
        raise UsageError(
            f"coverage is {coverage} and false_rejection_rate {false_rejection_rate}; shares between 0 and 1"
        )
    if score not in OOD_SCORES:
        raise UsageError(f"the out-of-distribution score is {score!r}; {choices(score, OOD_SCORES)}")
    if clips.logits.shape[1] < 2:
        raise CalibrationError("there is one label; a calibration needs clips of two at least")
    if len(clips) < _FEWEST:
        raise CalibrationError(f"{len(clips)} labelled clips could be read; a calibration needs {_FEWEST} at least")
    if clips.groups is not None and len(set(clips.groups)) < 2:
        raise CalibrationError("all clips are of one group; half of them fit and half check, so that it takes two")


def _check_count(clips: int, checking: int, *, coverage: float, false_rejection_rate: float) -> None:
    needed = max(fewest(coverage), fewest(1 - false_rejection_rate))
    if checking < needed:
        raise CalibrationError(
            f"{clips} labelled clips could be read, and {checking} of them are left to check the rest; coverage "
            f"{coverage:g} and false rejections {false_rejection_rate:g} need {needed}: give more clips, or ask for "
            "less (--coverage 0.8 --false-rejection-rate 0.2 needs 10 clips to check)"
        )
