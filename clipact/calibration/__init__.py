"""Answers one can trust: calibrated probabilities, "none of these", label sets of stated coverage, labels one by one.

All of it is fitted on the logits of labelled clips and applied to those of new ones; nothing here sees a video.
"""

from clipact.calibration.background import append_background, background_words, exclude_labels, near_labels
from clipact.calibration.calibration import (
    CalibratedScores,
    Calibration,
    CalibrationParams,
    CalibrationTarget,
    FitMetrics,
    check_out_path,
)
from clipact.calibration.fit import fit_params
from clipact.calibration.labelled_clips import LabelledClips
from clipact.calibration.multi_label import UNCALIBRATED, IndependentProbabilities
from clipact.calibration.ood_score import DEFAULT_OOD_SCORE, OOD_SCORES

__all__ = [
    "DEFAULT_OOD_SCORE",
    "OOD_SCORES",
    "UNCALIBRATED",
    "CalibratedScores",
    "Calibration",
    "CalibrationParams",
    "CalibrationTarget",
    "FitMetrics",
    "IndependentProbabilities",
    "LabelledClips",
    "append_background",
    "background_words",
    "check_out_path",
    "exclude_labels",
    "fit_params",
    "near_labels",
]
