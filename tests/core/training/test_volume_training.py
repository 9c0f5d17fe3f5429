"""A network for stacks learns from a folder of stacks, from a few annotated planes too, and finds nuclei then."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.inference.stacks import StackOptions, segment_stack
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.volume_batches import VolumeBatchMaker, VolumeValidator, border_ridge
from napari_nucleiseg.core.training.volumes import StackSampler, load_stacks
from stack_parts import VOXEL_UM, Bright, balls, stack_scores, write_labelled

SLIM = {"width": 4}
CALM = AugmentConfig(scale=1, colour=0, blur_px=0, noise=0)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("stacks") / "set", (0, 1))


@pytest.fixture
def config(stacks, tmp_path):
    return TrainConfig(
        out=str(tmp_path / "run"),
        network="unet-3d",
        params=SLIM,
        train=(DataSet(str(stacks), None, licence="CC0-1.0"),),
        crop_px=32,
        batch_size=2,
        steps=4,
        warmup=1,
        validate_every=4,
        threads=1,
        device="cpu",
    )


def maker(config):
    return VolumeBatchMaker(config, network_spec(config.network, config.params))


def test_a_batch_has_all_targets_and_is_the_same_again(config):
    batch, again = maker(config).batch(3), maker(config).batch(3)
    assert set(batch) == {"image", "nuclei", "distance", "separated", "known", "weights"}
    assert all(values.shape == (2, 1, 32, 32, 32) and values.dtype == torch.float32 for values in batch.values())
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert not torch.equal(batch["image"], maker(config).batch(4)["image"])
    assert batch["nuclei"].mean() > 0.02
    bright = batch["image"][batch["nuclei"] > 0].mean()
    assert bright > batch["image"][batch["nuclei"] == 0].mean() + 1


def test_crops_are_mirrored_and_turned_with_their_labels(stacks):
    (stack, _) = load_stacks(DataSet(str(stacks), None))
    sampler = StackSampler([([stack], 1.0)], 0.5, (24, 16, 40), CALM, seed=0)
    for number in range(6):
        crop = sampler.draw(number)
        assert crop.image.shape == crop.labels.shape == (24, 16, 40)
        assert crop.image[crop.labels > 0].mean() > crop.image[crop.labels == 0].mean() + 0.3
        assert (crop.weights == (crop.labels >= 0)).all()


def test_beyond_a_thin_stack_nothing_is_known(tmp_path):
    folder = write_labelled(tmp_path / "thin", (0,))
    for name in ("images", "labels"):
        path = folder / name / "0.tif"
        tifffile.imwrite(path, tifffile.imread(path)[8:13])
    data = DataSet(str(folder), 0.5, z_um=1.0)
    (stack,) = load_stacks(data)
    assert stack.voxel_um == (1.0, 0.5, 0.5)
    crop = StackSampler([([stack], 1.0)], 0.5, (24, 32, 32), CALM, seed=0).draw(0)
    known = (crop.labels >= 0).any(axis=(1, 2))
    assert known.sum() == 10
    # Crops are no higher than need be.
    small = TrainConfig(network="unet-3d", params=SLIM, train=(data,), crop_px=64)
    assert maker(small).sides == (16, 64, 64)


def test_planes_that_nobody_annotated_count_for_nothing(config, tmp_path):
    def planes(labels):
        weights = np.zeros(labels.shape, np.uint8)
        weights[::7] = 1
        return weights

    folder = write_labelled(tmp_path / "sparse", (0,), planes)
    sparse = replace(config, train=(DataSet(str(folder), None),), augment=CALM)
    batch = maker(sparse).batch(0)
    annotated = batch["known"][0, 0] > 0
    assert 0 < annotated.float().mean() < 0.2
    assert (batch["nuclei"] * (1 - batch["known"])).sum() == 0
    losses = [step.loss for step in train(sparse)]
    assert np.isfinite(losses).all()
    # The middle of a nucleus is far from its border in the plane that is known, though its neighbours are not.
    assert batch["distance"].max() == 1.0
    assert (batch["distance"] == 1.0).sum() < 0.3 * batch["nuclei"].sum()


def test_negative_labels_are_not_annotated_either(stacks, tmp_path):
    folder = shutil.copytree(stacks, tmp_path / "copy")
    labels = tifffile.imread(folder / "labels" / "0.tif")
    labels[:, :32] = -1
    tifffile.imwrite(folder / "labels" / "0.tif", labels)
    (stack, _) = load_stacks(DataSet(str(folder), None))
    crop = StackSampler([([stack], 1.0)], 0.5, (56, 64, 64), CALM, seed=0).draw(0)
    assert 0.3 < (crop.weights == 0).mean() < 0.7


def test_the_ridge_lies_between_neighbours():
    labels = np.zeros((9, 9, 20), np.int32)
    labels[2:7, 2:7, 2:8], labels[2:7, 2:7, 11:17] = 1, 2
    ridge = border_ridge(labels, 10.0, 2.0)
    assert ridge[4, 4, 9] == ridge.max()
    assert ridge[4, 4, 0] < 1e-3 * ridge.max()
    assert border_ridge(labels, 0.0, 2.0).max() == 0
    assert border_ridge(labels * (labels < 2), 10.0, 2.0).max() == 0


def test_the_validator_scores_what_is_annotated(stacks, config):
    judged = replace(config, validate=config.train)
    spec = network_spec("unet-3d", SLIM)
    validator = VolumeValidator(judged, replace(spec, halo_px=16))
    assert validator
    assert not VolumeValidator(config, spec)
    scores = validator.scores(Bright(), torch.device("cpu"))
    assert scores["f1"] == 1.0
    assert scores["choice"] == pytest.approx((scores["aji"] + scores["pq"]) / 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_px": 256}, r"a cube of 256 voxels a side is 17 million .* crop_px between 32 and 192"),
        ({"crop_px": 36}, "cannot give crops of 36 px; the next side that fits is 40"),
        ({"terms": {"ms_ssim": 1.0}}, "the loss ms_ssim looks at pictures"),
        ({"self_training": 0.5}, "self_training is for pictures"),
        ({"losses": {"offsets": 1.0}}, "has no output offsets to train: losses can name nuclei, distance, separated"),
        ({"train": (DataSet("/nowhere", None),)}, "needs two folders, images/ and labels/"),
        ({"train": (DataSet("x", None, z_um=5000.0),)}, "cannot lie 5000.0 micrometres apart"),
    ],
)
def test_what_stacks_do_not_have_is_refused_in_a_sentence(config, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        next(train(replace(config, **changes)))


def test_pictures_and_halves_of_pairs_are_refused(stacks, tmp_path):
    folder = shutil.copytree(stacks, tmp_path / "copy")
    tifffile.imwrite(folder / "labels" / "0.tif", np.zeros((2, 5, 6), np.int32))
    with pytest.raises(DataError, match=r"0\.tif: the stack is \(28, 64, 64\), labels says \(2, 5, 6\)"):
        load_stacks(DataSet(str(folder), None))
    (folder / "labels" / "0.tif").unlink()
    with pytest.raises(DataError, match="has no file called 0"):
        load_stacks(DataSet(str(folder), None))
    with pytest.raises(DataError, match="holds no stack"):
        load_stacks(DataSet(str(folder), None, include=("z*",)))
    tifffile.imwrite(folder / "images" / "0.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"no planes along z.*A network for stacks learns from stacks"):
        load_stacks(DataSet(str(folder), None))
    tifffile.imwrite(folder / "images" / "0.tif", np.zeros((9, 9, 9), np.uint8))
    tifffile.imwrite(folder / "labels" / "0.tif", np.zeros((9, 9, 9), np.uint8))
    with pytest.raises(DataError, match=r"does not say how large its voxels are; state mpp_um and z_um"):
        load_stacks(DataSet(str(folder), None))


@pytest.mark.slow
def test_a_slim_network_learns_to_find_nuclei(config):
    learning = replace(
        config, params={"width": 8}, steps=90, learning_rate=5e-3, warmup=5, ema=0.9, augment=AugmentConfig(scale=1.1)
    )
    losses = [step.loss for step in train(learning)]
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])
    model = load_model(f"{learning.out}/best.safetensors", dimensions=3)
    assert model.card.licence == "CC0-1.0"
    image, labels = balls(seed=9)
    found = segment_stack(image, model, VOXEL_UM, StackOptions(device="cpu"))
    assert stack_scores(labels, found).f1 > 0.7
