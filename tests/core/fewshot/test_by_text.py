"""Scores by words: a CLIP set by hand finds dark nuclei; fusion, ensembles, background, batches, crops."""

import numpy as np
import pytest

from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.fewshot.by_text import TextOptions, fused, score_by_text, score_steps, softmax
from napari_nucleiseg.core.fewshot.clip import ClipReader, load_clip
from napari_nucleiseg.core.fewshot.crops import Crops
from napari_nucleiseg.core.fewshot.square import SquareView
from napari_nucleiseg.core.fewshot.text_options import prompts_of
from napari_nucleiseg.core.geometry import YX
from tiny_clip import nuclei, write_clip

PROMPTS = {"tumour": ["dark"], "stroma": ["pale"]}
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return load_clip(write_clip(tmp_path_factory.mktemp("weights") / "tiny"))


@pytest.fixture(scope="module")
def view():
    return nuclei()


@pytest.fixture(scope="module")
def scores(clip, view):
    return score_by_text(view.image, 0.5, view.labels, PROMPTS, clip, **CPU)


def test_dark_nuclei_are_those_of_the_dark_prompt(scores, view):
    assert scores.classes == ("tumour", "stroma", "background")
    np.testing.assert_array_equal(scores.ids, np.unique(view.labels)[1:])
    np.testing.assert_array_equal(scores.best, np.where(view.is_dark, 0, 1))
    np.testing.assert_array_equal(scores.scores, scores.p_clip)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
def test_nuclei_keep_ids_of_any_size(clip, view, scores, dtype):
    labels = np.where(view.labels > 0, view.labels.astype(np.int64) + 2**31, 0).astype(dtype)
    found = score_by_text(view.image, 0.5, labels, PROMPTS, clip, **CPU)
    np.testing.assert_array_equal(found.ids, np.unique(labels)[1:])
    np.testing.assert_array_equal(found.scores, scores.scores)


def test_scores_of_a_nucleus_add_up_to_one(scores):
    assert scores.scores.shape == (36, 3)
    assert scores.scores.min() >= 0
    np.testing.assert_allclose(scores.scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tumour nucleus; lymphocyte;", {"tumour nucleus": ("tumour nucleus",), "lymphocyte": ("lymphocyte",)}),
        ("a = x; b; a= y ;a=z=1", {"a": ("x", "y", "z=1"), "b": ("b",)}),
    ],
)
def test_a_line_of_text_says_classes_and_their_prompts(text, wanted):
    assert prompts_of(text) == wanted


@pytest.mark.parametrize(
    ("text", "said"), [(" ; ", "with “;” between"), ("a=", "a= is no prompt"), ("=b", "is no prompt")]
)
def test_a_line_of_text_without_words_gets_a_sentence(text, said):
    with pytest.raises(DataError, match=said):
        prompts_of(text)


@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_each_of_the_two_crops_alone_finds_them_too(clip, view, masked):
    options = TextOptions(masked=masked, context_um=0.0)
    found = score_by_text(view.image, 0.5, view.labels, PROMPTS, clip, options=options, **CPU)
    np.testing.assert_array_equal(found.best, np.where(view.is_dark, 0, 1))


def test_batches_say_what_single_nuclei_say_and_progress_is_told(clip, view, scores):
    told = []
    options = TextOptions(batch=1)
    single = score_by_text(
        view.image, 0.5, view.labels, PROMPTS, clip, options=options, on_progress=lambda *pair: told.append(pair), **CPU
    )
    np.testing.assert_allclose(single.scores, scores.scores, atol=1e-6)
    assert told == [(done, 36) for done in range(1, 37)]


def test_whoever_stops_has_cancelled(clip, view, monkeypatch):
    looked = []
    pictures = ClipReader.pictures
    monkeypatch.setattr(ClipReader, "pictures", lambda self, crops: looked.append(len(crops)) or pictures(self, crops))
    steps = score_steps(view.image, 0.5, view.labels, PROMPTS, clip, options=TextOptions(batch=5), **CPU)
    first = next(steps)
    steps.close()
    assert (first.done, first.total, first.scores) == (5, 36, None)
    assert looked == [5, 5]  # with the surroundings and alone


def test_prompts_of_a_class_are_averaged_as_vectors(clip, view):
    prompts = {"dark or tissue": ["dark", "tissue"], "pale": ["pale"]}
    options = TextOptions(background=(), templates=("{}", "a {} one"), masked=1.0)
    found = score_by_text(view.image, 0.5, view.labels, prompts, clip, options=options, **CPU)
    reader = ClipReader(clip, "cpu")
    words = [reader.texts(said).mean(axis=0) for said in (["dark", "a dark one", "tissue", "a tissue one"],
                                                          ["pale", "a pale one"])]  # fmt: skip
    words = np.stack([vector / np.linalg.norm(vector) for vector in words])
    dense = np.searchsorted(np.unique(view.labels), view.labels).astype(np.int32)
    crops = Crops.of(view.image, dense, margin_px=0, side_px=clip.input_px, mean=clip.mean)
    vectors = reader.pictures(np.stack([crops.alone(number) for number in range(1, 37)]))
    np.testing.assert_allclose(found.scores, softmax(10 * vectors @ words.T), atol=1e-5)
    assert found.classes == ("dark or tissue", "pale")


def test_the_background_takes_what_fits_no_class(clip, view):
    grey = np.full_like(view.image, (123, 117, 104))
    found = score_by_text(grey, 0.5, view.labels, {"dark": ["dark"]}, clip, **CPU)
    dark = score_by_text(view.image, 0.5, view.labels, {"dark": ["dark"]}, clip, **CPU)
    assert found.classes == ("dark", "background")
    assert dark.scores[view.is_dark, 0].min() > 0.99
    assert (dark.best[~view.is_dark] == 1).all()
    assert found.scores[:, 1].min() > 0.99


def test_fusion_is_the_stated_formula():
    clip, mask = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]), np.array([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
    unseen = np.cbrt(mask) * np.cbrt(clip) ** 2
    found = fused(clip, mask, np.array([False, False, False]))
    np.testing.assert_allclose(found, unseen / unseen.sum(axis=1, keepdims=True), rtol=1e-6)
    mean = clip[:, :2].mean(axis=1, keepdims=True)
    seen = np.concatenate((np.cbrt(mask[:, :2]) ** 2 * np.cbrt(mean) - 0.1, unseen[:, 2:]), axis=1)
    found = fused(clip, mask, np.array([True, True, False]), TextOptions(calibration=0.1))
    expected = np.maximum(seen, 0)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(("lam", "wanted"), [(0.0, "clip"), (1.0, "mask")])
def test_the_exponent_goes_from_one_to_the_other(lam, wanted):
    said = {"clip": np.array([[0.5, 0.5 - 0.125, 0.125]]), "mask": np.array([[0.25, 0.25, 0.5]])}
    found = fused(said["clip"], said["mask"], np.zeros(3, bool), TextOptions(lam=lam))
    np.testing.assert_allclose(found, said[wanted], rtol=1e-6)


def test_where_the_other_model_excludes_all_clip_decides():
    clip = np.array([[0.75, 0.25]])
    np.testing.assert_allclose(fused(clip, np.zeros((1, 2)), np.zeros(2, bool)), clip)


def test_what_another_model_says_is_joined_and_the_rest_is_background(clip, view, scores):
    p_mask = np.tile(np.array([[0.2, 0.5]], np.float32), (36, 1))
    found = score_by_text(view.image, 0.5, view.labels, PROMPTS, clip, p_mask=p_mask, seen=("stroma",), **CPU)
    whole = np.concatenate((p_mask, np.full((36, 1), 0.3)), axis=1)
    np.testing.assert_allclose(found.scores, fused(scores.p_clip, whole, np.array([False, True, False])), atol=1e-6)
    np.testing.assert_array_equal(found.p_clip, scores.p_clip)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)


def test_a_view_without_nuclei_has_no_scores(clip, view):
    found = score_by_text(view.image, 0.5, np.zeros_like(view.labels), PROMPTS, clip, **CPU)
    assert len(found) == 0
    assert found.scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": {}}, "two classes"),
        ({"prompts": {"a": ["dark"]}, "options": TextOptions(background=("",))}, "two classes"),
        ({"prompts": {"a": []}}, "at least one prompt"),
        ({"prompts": {"a": "dark"}}, "at least one prompt"),
        ({"prompts": {"a": [" "]}}, "no empty ones"),
        ({"prompts": {"background": ["dark"]}}, "background is what none"),
        ({"prompts": {"a": ["dark " * 19]}}, "too long: 21 tokens, and 20"),
        ({"labels": np.zeros((3, 3), np.int32)}, "must be equal"),
        ({"labels": np.full((240, 240), -1, np.int32)}, "below 0"),
        ({"p_mask": np.zeros((36, 3), np.float32)}, "36 nuclei and 2 classes"),
        ({"p_mask": np.full((36, 2), 1.5, np.float32)}, "between 0 and 1"),
        ({"p_mask": np.full((36, 2), np.nan, np.float32)}, "between 0 and 1"),
        ({"seen": ("tumor",)}, "tumor is none of the classes"),
        ({"options": TextOptions(lam=2)}, "lam must lie"),
        ({"options": TextOptions(batch=0)}, "at least one crop"),
        ({"options": TextOptions(context_um=-1)}, "0 to 500 um"),
        ({"options": TextOptions(templates=("H&E",))}, "{}"),
        ({"mpp_um": 0.0}, "pixel size"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(clip, view, change, said):
    what = {"image": view.image, "mpp_um": 0.5, "labels": view.labels, "prompts": PROMPTS} | change
    with pytest.raises(DataError) as error:
        score_by_text(**what, clip=clip, **CPU)
    assert said in str(error.value)


def test_another_device_than_there_is_gets_a_sentence(clip, view):
    with pytest.raises(ModelError, match="choose auto"):
        score_by_text(view.image, 0.5, view.labels, PROMPTS, clip, device="tpu")


def test_a_crop_is_mirrored_beyond_the_rim_and_a_nucleus_alone_is_filled_up():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    labels = np.zeros((4, 4), np.int32)
    labels[0, 0], labels[0, 1], labels[1, 1] = 1, 1, 2
    crops = Crops.of(image, labels, margin_px=1, side_px=4, mean=(1.0, 0.5, 0.0))
    np.testing.assert_array_equal(crops.surrounded(1)[..., 0], [[4, 4, 5, 6], [0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]])
    small = Crops.of(image, labels, margin_px=0, side_px=2, mean=(1.0, 0.5, 0.0)).alone(1)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3).tolist()} == {(0, 0, 0), (1, 1, 1), (255, 128, 0)}
    whole = Crops.of(image, labels, margin_px=50, side_px=101, mean=(0.0, 0.0, 0.0)).surrounded(2)
    np.testing.assert_array_equal(whole[50, 50], (5, 5, 5))


@pytest.mark.parametrize(("fy", "fx"), [(2, 1), (1, 2), (3, 2)])
def test_nuclei_look_the_same_where_pixels_are_not_square(clip, fy, fx, monkeypatch):
    side = 240
    ys, xs = np.mgrid[:side, :side]
    disc = (ys - side / 2) ** 2 + (xs - side / 2) ** 2 <= 30**2
    image = np.full((side, side, 3), 250, np.uint8)
    image[disc] = 20
    image, labels = image[fy // 2 :: fy, fx // 2 :: fx], disc[fy // 2 :: fy, fx // 2 :: fx].astype(np.int32)
    seen, surrounded, alone = [], Crops.surrounded, Crops.alone
    monkeypatch.setattr(Crops, "surrounded", lambda *a: seen.append(surrounded(*a)) or seen[-1])
    monkeypatch.setattr(Crops, "alone", lambda *a: seen.append(alone(*a)) or seen[-1])
    found = score_by_text(image, YX(0.25 * fy, 0.25 * fx), labels, PROMPTS, clip, **CPU)
    assert found.ids.tolist() == [1]
    assert len(seen) == 2
    for crop in seen:
        places = np.argwhere(crop.mean(axis=2) < 90)
        height, width = np.ptp(places, axis=0) + 1
        assert height == pytest.approx(width, rel=0.12)


@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (33, 5)])
@pytest.mark.parametrize("mpp", [YX(0.5, 0.25), YX(0.21, 0.5), YX(0.3, 0.299), YX(0.5, 0.47)])
def test_no_label_is_lost_in_a_view_of_square_pixels(shape, mpp):
    labels = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int32).reshape(shape)
    view = SquareView.of(np.zeros((*shape, 3), np.uint8), mpp)
    over = view.labels_of(labels)
    assert over.shape == view.image.shape[:2]
    np.testing.assert_array_equal(view.on_picture(over), labels)
    np.testing.assert_allclose(np.array(over.shape) * view.mpp_um, np.array(shape) * mpp, atol=view.mpp_um)
    for y, x in np.argwhere(labels > 0):
        row, column = (int(np.floor(place + 0.5)) for place in view.place_of(y, x))
        assert over[row, column] == labels[y, x]
    with pytest.raises(DataError, match="they must be equal"):
        view.labels_of(np.zeros((2, 2), np.int32))
