"""How well a score tells clips of the labels from others: labels are hidden, and their clips are the others."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clipact.calibration.clips import LabelledClips
from clipact.calibration.rejection import SCORES
from clipact.metrics import auroc

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
    scores = {name: score(logits, background, temperature) for name, score in SCORES.items()}
    return scores, np.any(clips.true[:, shown], axis=1)


def hidden_auroc(clips: LabelledClips, *, temperature: float, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """The mean AUROC of each score over draws of hidden labels: 0.5 tells nothing, 1 everything."""
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    for shown in hidden_halves(clips.logits.shape[1], draws=draws, seed=seed):
        scores, known = hidden_scores(clips, shown, temperature=temperature)
        if known.any() and not known.all():
            for name, values in scores.items():
                found[name].append(auroc(values, known))
    return {name: float(np.mean(values)) for name, values in found.items() if values}
