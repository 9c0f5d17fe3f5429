"""The samples of File > Open Sample."""

from __future__ import annotations

from napari_nucleiseg.viewer.layers import LayerData, slide_layer


def tissue_picture() -> list[LayerData]:
    """Return the picture of real tissue that scikit-image ships."""
    from napari_nucleiseg.core.slides.sample import tissue_slide

    return [slide_layer(tissue_slide())]


def synthetic() -> list[LayerData]:
    """Return a synthetic H&E slide of 100,000 x 100,000 pixels, drawn where it is looked at."""
    from napari_nucleiseg.core.slides.sample import synthetic_sample

    return [slide_layer(synthetic_sample())]


def cmu_small_region() -> list[LayerData]:
    """Return OpenSlide's small test slide, downloaded once."""
    from napari_nucleiseg.core.slides.sample import cmu_small_region as download

    return [slide_layer(download())]
