"""Answers one can trust: calibrated probabilities, "none of these", label sets of stated coverage, labels one by one.

All of it is fitted on the logits of labelled clips and applied to those of new ones; nothing here sees a video.
"""

from clipact.calibration.background import background_words, beside, near, unlike
from clipact.calibration.calibration import Answers, Calibration, free_place
from clipact.calibration.clips import LabelledClips
from clipact.calibration.fit import Figures, fit_judgement
from clipact.calibration.judgement import Judgement, Verdict
from clipact.calibration.multi_label import UNCALIBRATED, Independent
from clipact.calibration.rejection import DEFAULT, SCORES

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
