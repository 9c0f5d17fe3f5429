"""How good a segmentation is: AJI, AJI+, PQ, F1, Dice and Hausdorff distances against true labels.

``scores(truth, pred)`` gives all of them, single ones start from ``overlaps(truth, pred)``, and
``evaluate_folders`` does a data set. What does not fit into memory is counted by an ``OverlapCounter``.
"""

from napari_nucleiseg.core.evaluation.agreement import (
    Detection,
    PanopticQuality,
    aji,
    aji_plus,
    detection,
    dice,
    f1,
    panoptic_quality,
)
from napari_nucleiseg.core.evaluation.contours import ahd, ahd_as_coded
from napari_nucleiseg.core.evaluation.folders import EvaluationReport, evaluate_folders
from napari_nucleiseg.core.evaluation.foreground import (
    ForegroundScores,
    best_cluster,
    foreground_scores,
    hammoude,
    scores_with_leaked_truth,
    xor,
)
from napari_nucleiseg.core.evaluation.kinds import Kind, judged, kinds_of
from napari_nucleiseg.core.evaluation.overlaps import LabelImage, OverlapCounter, Overlaps, overlaps
from napari_nucleiseg.core.evaluation.scores import ImageScores, mean_scores, scores, table_scores
from napari_nucleiseg.core.evaluation.slide_report import SlideReport

__all__ = [
    "Detection",
    "EvaluationReport",
    "ForegroundScores",
    "ImageScores",
    "Kind",
    "LabelImage",
    "OverlapCounter",
    "Overlaps",
    "PanopticQuality",
    "SlideReport",
    "ahd",
    "ahd_as_coded",
    "aji",
    "aji_plus",
    "best_cluster",
    "detection",
    "dice",
    "evaluate_folders",
    "f1",
    "foreground_scores",
    "hammoude",
    "judged",
    "kinds_of",
    "mean_scores",
    "overlaps",
    "panoptic_quality",
    "scores",
    "scores_with_leaked_truth",
    "table_scores",
    "xor",
]
