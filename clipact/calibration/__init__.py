"""Answers one can trust: calibrated probabilities, "none of these", label sets of stated coverage, labels one by one.

All of it is fitted on the logits of labelled clips and applied to those of new ones; nothing here sees a video.
"""

from clipact.calibration.background import background_words, beside, near, unlike
from clipact.calibration.calibration import Answers, Calibration, Figures, Judgement, Verdict, free_place
from clipact.calibration.fit import fit_judgement
from clipact.calibration.labelled_clips import LabelledClips
from clipact.calibration.multi_label import UNCALIBRATED, Independent
from clipact.calibration.ood_score import DEFAULT, SCORES

__all__ = [
    "DEFAULT",
    "SCORES",
    "UNCALIBRATED",
    "Answers",
    "Calibration",
    "Figures",
    "Independent",
    "Judgement",
    "LabelledClips",
    "Verdict",
    "background_words",
    "beside",
    "fit_judgement",
    "free_place",
    "near",
    "unlike",
]
