"""A clustering with its chosen clusters is a model like any other: saved, loaded, and used tile by tile."""

from contextlib import closing
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from stained import stained_picture

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.models.weights import LoadedModel, load_model, save_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.clustering.choice import nuclei_of_clusters, proposed_clusters, ranked
from napari_nucleiseg.core.training.clustering.config import ClusterConfig
from napari_nucleiseg.core.training.clustering.fit import cluster
from napari_nucleiseg.core.training.clustering.fitted import fitted_model

CONFIG = ClusterConfig(width=16, blocks=1, iterations=8, min_clusters=4, device="cpu")


@pytest.fixture(scope="module")
def fitted():
    image, mask = stained_picture(96, 112)
    *_, end = cluster(image, CONFIG)
    return image, mask, end.result, proposed_clusters(ranked(end.labels, image))


@pytest.fixture
def saved(fitted, tmp_path):
    _, _, result, chosen = fitted
    model = fitted_model(result, chosen, "mine", picture="a.png")
    path = tmp_path / "mine.safetensors"
    card = save_model(path, model.network, model.spec, model.card, half=False)
    return path, model, card


def slide_of(image, folder):
    path = folder / "picture.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
    return open_slide(path, mpp_um=0.5)


def test_a_loaded_fit_finds_the_nuclei_that_the_clusters_show(fitted, saved, tmp_path):
    image, _, result, chosen = fitted
    model = load_model(str(saved[0]))
    with closing(slide_of(image, tmp_path)) as slide:
        labels = segment_picture(slide, model, device="cpu")
    direct = nuclei_of_clusters(result.labels, chosen, 0.5).labels
    assert labels.max() > 10
    # Beyond the picture's border the engine mirrors while the fit saw nothing, so only the inside must agree.
    inside = (slice(24, -24), slice(24, -24))
    assert ((labels > 0) == (direct > 0))[inside].mean() > 0.99


def test_tiles_do_not_show(fitted, saved, tmp_path):
    image, _ = stained_picture(160, 176, seed=3)
    whole = load_model(str(saved[0]))
    tiled = LoadedModel(replace(whole.spec, tile_px=64), whole.card, whole.network)
    with closing(slide_of(image, tmp_path)) as slide:
        one, other = (segment_picture(slide, model, device="cpu") for model in (whole, tiled))
    assert ((one > 0) == (other > 0)).mean() > 0.995


def test_other_pictures_of_the_stain_are_segmented_without_a_fit(saved, tmp_path):
    image, mask = stained_picture(80, 96, seed=9)
    with closing(slide_of(image, tmp_path)) as slide:
        labels = segment_picture(slide, load_model(str(saved[0])), device="cpu")
    both, either = (mask & (labels > 0)).sum(), (mask | (labels > 0)).sum()
    assert both / either > 0.7


def test_the_version_is_known_before_it_is_saved(saved):
    path, model, card = saved
    assert model.version == card.version == load_model(str(path)).version
    assert card.network == "s3net"
    assert card.decoder == "watershed"
    assert card.params == {"width": 16, "blocks": 1, "reach_px": 8.0}
    assert "a.png" in card.title


def test_the_licence_of_the_picture_is_that_of_the_weights(fitted, saved, tmp_path):
    _, _, result, chosen = fitted
    assert saved[2].commercial_use
    model = fitted_model(result, chosen, "theirs", picture="b.png", licence="CC-BY-NC-SA-4.0")
    save_model(tmp_path / "theirs.safetensors", model.network, model.spec, model.card)
    with pytest.raises(LicenceNotAcceptedError, match="not for commercial use"):
        load_model(str(tmp_path / "theirs.safetensors"))


def test_choosing_leaves_the_clustering_as_it_was(fitted):
    _, _, result, _ = fitted
    fitted_model(result, (2, 5), "mine")
    assert result.network.chosen.nonzero().ravel().tolist() == [0]


def test_what_cannot_become_a_model_is_said(fitted):
    image, _, result, _ = fitted
    with pytest.raises(ModelError, match="at least one cluster"):
        fitted_model(result, (), "mine")
    with pytest.raises(ModelError, match="no cluster 99"):
        fitted_model(result, (99,), "mine")
    *_, free = cluster(image, ClusterConfig(width=8, blocks=1, iterations=1, offsets="free", device="cpu"))
    with pytest.raises(ModelError, match="fit with predicted offsets"):
        fitted_model(free.result, (0,), "mine")
