"""Slides to try things on: a real picture and a synthetic slide that need no network, and a small scan to download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import SyntheticSlide, synthetic_slide

CMU_URL = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
CMU_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
_CMU_NAME = "CMU-1-Small-Region.svs"
_TIMEOUT_S = 30

# The picture comes without a pixel size. Small lymphocyte nuclei, 6 to 7 um in tissue sections, are 11 to 14
# pixels wide in it.
TISSUE_ASSUMED_MPP_UM = 0.5


def tissue_slide() -> Slide:
    """Return the picture of real tissue that scikit-image ships: colon, DAB and haematoxylin, 512 x 512 px.

    Returns
    -------
    Slide
        Its pixel size is an assumption, which ``properties["nucleiseg.pixel-size"]`` says.
    """
    from skimage.data import immunohistochemistry

    picture = np.ascontiguousarray(immunohistochemistry(), dtype=np.uint8)
    picture.flags.writeable = False
    return Slide(
        path="colon-immunohistochemistry.sample",
        levels=(picture,),
        downsamples=(YX(1.0, 1.0),),
        mpp_um=YX(TISSUE_ASSUMED_MPP_UM, TISSUE_ASSUMED_MPP_UM),
        vendor="scikit-image sample",
        reader="sample",
        properties={
            "nucleiseg.pixel-size": f"assumed: {TISSUE_ASSUMED_MPP_UM} µm, judged from the size of lymphocyte nuclei; "
            "the picture does not state it",
            "source": "scikit-image data.immunohistochemistry: colonic glands, FHL2 by DAB, haematoxylin; "
            "Center for Microscopy and Molecular Imaging; no known copyright restrictions",
        },
        fingerprint=hashlib.sha256(picture.tobytes()).hexdigest()[:32],
    )


def synthetic_sample() -> SyntheticSlide:
    """Return a synthetic H&E slide of 100,000 x 100,000 px at 0.5 um, drawn where it is looked at."""
    return synthetic_slide(100_000, 100_000, 0.5)


def cmu_small_region(folder: str | Path | None = None, *, url: str = CMU_URL) -> Slide:
    """Open OpenSlide's small test slide (Aperio SVS, H&E, 20x, 1.9 MB, CC0), downloaded once.

    Parameters
    ----------
    folder : path-like, optional
        Where to keep it; default the package's cache folder.
    url : str, optional
        Where to get it.

    Raises
    ------
    SlideError
        If it cannot be downloaded or is not the published file.
    """
    return open_slide(download_cmu_small_region(folder, url=url))


def download_cmu_small_region(folder: str | Path | None = None, *, url: str = CMU_URL) -> Path:
    """Download the file of `cmu_small_region` if it is not there yet, check it, and return where it is."""
    import platformdirs
    import pooch

    place = Path(folder) if folder is not None else Path(platformdirs.user_cache_dir("napari-nucleiseg")) / "samples"
    # Through a proxy page or a full disk other bytes than the file's may arrive; pooch then raises ValueError.
    try:
        found = pooch.retrieve(
            url,
            known_hash=f"sha256:{CMU_SHA256}",
            fname=_CMU_NAME,
            path=place,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S),
        )
    except ValueError as error:
        raise SlideError(
            f"what {url} sent is not the published slide (its checksum differs); try again later or elsewhere."
        ) from error
    except OSError as error:
        raise SlideError(
            f"the sample slide cannot be downloaded from {url}. Check the connection, or download it with a browser "
            f"and put it at {place / _CMU_NAME}. The other samples need no network."
        ) from error
    return Path(found)
