"""By text: how well nuclei fit words, by CLIP on their crops, and that joined with what another model says of them.

After decoupled zero-shot segmentation (ZegFormer, Ding et al., CVPR 2022): regions come from a model that needs no
classes, here from any label image; their classes come from words. What its learned vector of the background was for is
done by prompts, and crops with and without the surroundings are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.crops import Crops
from napari_nucleiseg.core.fewshot.square import SquareView
from napari_nucleiseg.core.fewshot.text_options import BACKGROUND, TextOptions, TextScores, TextStep
from napari_nucleiseg.core.geometry import YX

if TYPE_CHECKING:
    from napari_nucleiseg.core.fewshot.clip import ClipReader, LoadedClip

__all__ = ["BACKGROUND", "TextOptions", "TextScores", "TextStep", "fused", "score_by_text", "score_steps"]

# Told how many nuclei are done, of how many.
Progress = Callable[[int, int], None]
Probabilities = NDArray[np.float32]
_TINY = 1e-12


def score_by_text(
    image: NDArray[np.uint8],
    mpp_um: float | YX,
    labels: NDArray[np.integer[Any]],
    prompts: Mapping[str, Sequence[str]],
    clip: LoadedClip,
    *,
    options: TextOptions | None = None,
    p_mask: NDArray[np.floating] | None = None,
    seen: Collection[str] = (),
    device: str = "auto",
    on_progress: Progress | None = None,
) -> TextScores:
    """Score nuclei by words; see `score_steps`, which does the same and can be left half-way.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the view.
    mpp_um : float or YX
        Micrometres per pixel of `image`; both sides where they differ.
    labels : ndarray of integers, shape (y, x)
        Nuclei or superpixels, none overlapping; 0 is none, ids may have gaps.
    prompts : mapping of str to sequence of str
        Of each class what describes it; vectors of the prompts of a class are averaged.
    clip : LoadedClip
        See `load_clip`.
    options : TextOptions, optional
        Settings.
    p_mask : ndarray of float, shape (n, len(prompts)), optional
        Probabilities by another model, rows as the ids, columns as `prompts`; the background gets the rest to 1.
    seen : collection of str
        Classes that the other model was trained on.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    on_progress : callable, optional
        Told how many nuclei are done, of how many.

    Returns
    -------
    TextScores
        Of every nucleus, each row summing to 1; ids in the type of `labels`.

    Raises
    ------
    DataError
        If picture, labels, prompts, probabilities or settings make no sense, or a prompt is too long.
    ModelError
        If there is no such device or its memory is full.
    """
    scores: TextScores | None = None
    for step in score_steps(
        image, mpp_um, labels, prompts, clip, options=options, p_mask=p_mask, seen=seen, device=device
    ):
        scores = step.scores
        if on_progress is not None:
            on_progress(step.done, step.total)
    if scores is None:
        raise DataError("these nuclei could not be scored; choose another view")
    return scores


def score_steps(
    image: NDArray[np.uint8],
    mpp_um: float | YX,
    labels: NDArray[np.integer[Any]],
    prompts: Mapping[str, Sequence[str]],
    clip: LoadedClip,
    *,
    options: TextOptions | None = None,
    p_mask: NDArray[np.floating] | None = None,
    seen: Collection[str] = (),
    device: str = "auto",
) -> Iterator[TextStep]:
    """Score nuclei by words, batch by batch; parameters and errors as for `score_by_text`.

    Yields
    ------
    TextStep
        After each batch; the last one holds the scores. Whoever stops iterating has cancelled.
    """
    from napari_nucleiseg.core.fewshot.clip import ClipReader

    options = options or TextOptions()
    view = SquareView.of(image, mpp_um)
    sentences = _sentences(prompts, options)
    ids, dense = _numbered(view, labels)
    known = _known(p_mask, len(ids), prompts, with_background=len(sentences) > len(prompts))
    is_seen = _seen(seen, sentences)
    reader = ClipReader(clip, device)
    words = np.stack([_mean_vector(reader.texts(said)) for said in sentences.values()])
    margin_px = round(options.context_um / view.mpp_um)
    crops = Crops.of(view.image, dense, margin_px=margin_px, side_px=clip.input_px, mean=clip.mean)
    found = [np.zeros((0, len(sentences)), np.float32)]
    for first in range(0, len(ids), options.batch):
        numbers = range(first + 1, min(first + options.batch, len(ids)) + 1)
        vectors = _vectors(crops, numbers, reader, options)
        found.append(softmax(clip.scale * vectors @ words.T))
        if numbers[-1] < len(ids):
            yield TextStep(numbers[-1], len(ids))
    p_clip = np.concatenate(found)
    scores = p_clip if known is None else fused(p_clip, known, is_seen, options)
    yield TextStep(len(ids), len(ids), TextScores(ids, tuple(sentences), scores, p_clip))


def fused(
    p_clip: NDArray[np.floating],
    p_mask: NDArray[np.floating],
    is_seen: NDArray[np.bool_],
    options: TextOptions | None = None,
) -> Probabilities:
    """Join what CLIP and another model say of regions.

    A class that the other model was not trained on gets ``p_mask ** lam * p_clip ** (1 - lam)``. One that it was
    trained on gets ``p_mask ** seen_lam * mean ** (1 - seen_lam)`` with the mean of CLIP's scores of all such classes,
    less the calibration, at least 0. Then each row is divided by its sum.

    Parameters
    ----------
    p_clip, p_mask : ndarray of float, shape (n, classes)
        Probabilities, 0..1.
    is_seen : ndarray of bool, shape (classes,)
        Whether the other model was trained on a class.
    options : TextOptions, optional
        `lam`, `seen_lam` and `calibration` are used.

    Returns
    -------
    ndarray of float32, shape (n, classes)
        Each row sums to 1; where all is 0, CLIP alone.
    """
    options = options or TextOptions()
    words, said = np.asarray(p_clip, np.float64), np.asarray(p_mask, np.float64)
    joined = said**options.lam * words ** (1 - options.lam)
    if is_seen.any():
        mean = words[:, is_seen].mean(axis=1, keepdims=True)
        joined[:, is_seen] = said[:, is_seen] ** options.seen_lam * mean ** (1 - options.seen_lam)
        joined[:, is_seen] = np.maximum(joined[:, is_seen] - options.calibration, 0)
    sums = joined.sum(axis=1, keepdims=True)
    return np.where(sums > _TINY, joined / np.maximum(sums, _TINY), words).astype(np.float32)


def softmax(values: NDArray[np.floating]) -> Probabilities:
    """Return the softmax of each row, ``(n, classes)``."""
    powers = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _sentences(prompts: Mapping[str, Sequence[str]], options: TextOptions) -> dict[str, list[str]]:
    """Return the sentences of each column."""
    if problem := options.validation_error():
        raise DataError(problem)
    columns: dict[str, Sequence[str]] = dict(prompts)
    if options.background_prompts:
        if BACKGROUND in columns:
            raise DataError(
                f"{BACKGROUND} is what none of the classes is; give its prompts as the background's, or call the class "
                "otherwise"
            )
        columns[BACKGROUND] = options.background_prompts
    for name, said in columns.items():
        if isinstance(said, str) or not said or not all(prompt.strip() for prompt in said):
            raise DataError(f"the class {name or 'without a name'} needs at least one prompt, and no empty ones")
    if not prompts or len(columns) < 2:
        raise DataError("two classes are needed at least, or one and a prompt of the background")
    return {
        name: [template.replace("{}", prompt.strip()) for prompt in said for template in options.templates]
        for name, said in columns.items()
    }


def _numbered(view: SquareView, labels: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the ids, and the labels over the view with numbers from 1 on without gaps."""
    if labels.shape != view.shape or labels.dtype.kind not in "iu":
        raise DataError(f"the labels are {labels.shape} px but the view {view.shape}; they must be equal")
    if labels.min() < 0:
        raise DataError("the ids of labels are 0 for none and whole numbers above; some are below 0")
    ids = np.unique(labels)
    ids = ids[ids > 0]
    dense = np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0).astype(np.int32)
    return ids, view.labels_of(dense)


def _known(
    p_mask: NDArray[np.floating] | None, count: int, prompts: Mapping[str, Sequence[str]], *, with_background: bool
) -> Probabilities | None:
    """Return what the other model says of each column, the background's included."""
    if p_mask is None:
        return None
    said = np.asarray(p_mask, np.float32)
    if said.shape != (count, len(prompts)):
        raise DataError(
            f"the other model's probabilities are {said.shape}, but there are {count} nuclei and {len(prompts)} classes"
        )
    if not np.isfinite(said).all() or (said < 0).any() or (said > 1).any():
        raise DataError("the other model's probabilities must lie between 0 and 1, all of them")
    if not with_background:
        return said
    return np.concatenate((said, np.maximum(1 - said.sum(axis=1, keepdims=True), 0)), axis=1)


def _seen(seen: Collection[str], sentences: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
    if unknown := sorted(set(seen) - set(sentences)):
        raise DataError(f"{unknown[0]} is none of the classes: {', '.join(sentences)}")
    return np.array([name in seen for name in sentences], bool)


def _mean_vector(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), _TINY), np.float32)


def _vectors(crops: Crops, numbers: Sequence[int], reader: ClipReader, options: TextOptions) -> NDArray[np.float32]:
    """Return the vectors of nuclei, ``(n, channels)``: those of both crops averaged, of length 1."""
    found = np.zeros((), np.float32)
    for share, cut in ((1 - options.masked, crops.surrounded), (options.masked, crops.alone)):
        if share:
            found = found + np.float32(share) * reader.pictures(np.stack([cut(number) for number in numbers]))
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _TINY), np.float32)
