"""How well scores rank abnormal above normal: AUROC, AP and F1-max of images, slices or cases.

Equal to scikit-learn's ``roc_auc_score``, ``average_precision_score`` and ``precision_recall_curve``, ties included.
Everywhere a score at or above a threshold counts as abnormal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.undefined import Undefined, Value, class_missing


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """What each distinct score does as a threshold, from the highest down.

    Attributes:
        thresholds: (T,) distinct scores, descending.
        false_positives: (T,) normal ones at or above the threshold, int64.
        true_positives: (T,) abnormal ones at or above the threshold, int64.
    """

    thresholds: NDArray[Any]
    false_positives: NDArray[np.int64]
    true_positives: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BestF1:
    """The largest F1 (for pixels: Dice) over all thresholds.

    Attributes:
        value: F1 in [0, 1].
        threshold: where it is reached; the highest one of several.
    """

    value: float
    threshold: float


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Labels and scores as flat arrays of one length.

    Raises:
        ValueError: they differ in length, a label is neither 0 nor 1, or a score is not finite.
    """
    truth, values = np.asarray(labels).ravel(), np.asarray(scores).ravel()
    if truth.size != values.size:
        raise ValueError(f"labels ({truth.size}) and scores ({values.size}) must be equally many")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, not {np.unique(truth)[:5].tolist()}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    return truth.astype(bool), values


def operating_points(labels: ArrayLike, scores: ArrayLike) -> OperatingPoints:
    """(N,) labels and scores -> the counts at every distinct score.

    Args:
        labels: 0 normal, 1 abnormal.
        scores: higher means more abnormal; any finite range.
    """
    truth, values = checked(labels, scores)
    order = np.argsort(values, kind="stable")[::-1]
    values, truth = values[order], truth[order]
    last_of_tie = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.array([], int)
    true_positives = np.cumsum(truth, dtype=np.int64)[last_of_tie]
    return OperatingPoints(values[last_of_tie], last_of_tie + 1 - true_positives, true_positives)


def auroc(labels: ArrayLike, scores: ArrayLike, of: str = "image") -> Value:
    """(N,) -> area under the ROC curve in [0, 1]; a tie counts half.

    Args:
        labels: 0 normal, 1 abnormal.
        scores: higher means more abnormal.
        of: what is ranked, for the reason of an undefined value.
    """
    points = operating_points(labels, scores)
    if missing := _missing(points, of):
        return missing
    false_positives = np.append(0, points.false_positives).astype(float)
    true_positives = np.append(0, points.true_positives).astype(float)
    return float(np.trapezoid(true_positives / true_positives[-1], false_positives / false_positives[-1]))


def average_precision(labels: ArrayLike, scores: ArrayLike, of: str = "image") -> Value:
    """(N,) -> average precision in [0, 1]: the mean of precision over steps of recall, not interpolated.

    Undefined also without a normal one, where it would be 1 whatever the scores (scikit-learn gives that 1).

    Args:
        labels: 0 normal, 1 abnormal.
        scores: higher means more abnormal.
        of: what is ranked, for the reason of an undefined value.
    """
    points = operating_points(labels, scores)
    if missing := _missing(points, of):
        return missing
    found = points.true_positives
    precision = found / (found + points.false_positives)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])


def best_f1(labels: ArrayLike, scores: ArrayLike, of: str = "image") -> BestF1 | Undefined:
    """(N,) -> F1-max and its threshold; undefined where AUROC is, for the same reason.

    Args:
        labels: 0 normal, 1 abnormal.
        scores: higher means more abnormal.
        of: what is ranked, for the reason of an undefined value.
    """
    points = operating_points(labels, scores)
    if missing := _missing(points, of):
        return missing
    found = points.true_positives
    f1 = 2 * found / (found + points.false_positives + found[-1])
    best = int(f1.argmax())
    return BestF1(float(f1[best]), float(points.thresholds[best]))


def dice(mask: ArrayLike, heatmap: ArrayLike, threshold: float, of: str = "pixel") -> Value:
    """(...) mask and heatmap -> Dice in [0, 1] of ``heatmap >= threshold``.

    Without a lesion Dice says nothing but whether a single pixel was predicted, and is undefined.
    """
    truth, predicted = np.asarray(mask) > 0, np.asarray(heatmap) >= threshold
    if truth.shape != predicted.shape:
        raise ValueError(f"mask {truth.shape} and heatmap {predicted.shape} must have one shape")
    if not truth.any():
        return Undefined(f"no abnormal {of}")
    return float(2 * np.count_nonzero(truth & predicted) / (np.count_nonzero(truth) + np.count_nonzero(predicted)))


def _missing(points: OperatingPoints, of: str) -> Undefined | None:
    if not points.thresholds.size:
        return class_missing(0, 0, of)
    return class_missing(int(points.true_positives[-1]), int(points.false_positives[-1]), of)
