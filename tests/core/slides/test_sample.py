import hashlib
import http.server
import threading

import numpy as np
import pytest

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides import sample


@pytest.fixture
def server(tmp_path):
    """Serve a folder on the loopback; yields the folder, its address and the paths that were asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def test_the_tissue_picture_needs_no_network_and_says_that_its_pixel_size_is_assumed():
    slide = sample.tissue_slide()
    assert slide.shape == (512, 512)
    assert slide.mpp_um == YX(0.5, 0.5)
    assert slide.properties["nucleiseg.pixel-size"].startswith("assumed: 0.5 µm")
    pixels = np.asarray(slide.levels[0])
    assert pixels.dtype == np.uint8
    assert pixels[..., 0].mean() > pixels[..., 2].mean() + 20
    assert slide.fingerprint == sample.tissue_slide().fingerprint


def test_the_synthetic_sample_is_as_large_as_it_says():
    assert sample.synthetic_sample().shape == (100_000, 100_000)


def test_the_checksum_is_that_of_the_published_file(shared_data):
    data = (shared_data / "wsi" / "cmu-1-small-region.svs").read_bytes()
    assert hashlib.sha256(data).hexdigest() == sample.CMU_SHA256


def test_the_scan_is_downloaded_once_and_opened(tmp_path, server, shared_data):
    folder, address, asked = server
    (folder / "scan.svs").write_bytes((shared_data / "wsi" / "cmu-1-small-region.svs").read_bytes())
    for _ in range(2):
        slide = sample.cmu_small_region(tmp_path / "cache", url=f"{address}/scan.svs")
        assert slide.shape == (2967, 2220)
        assert slide.mpp_um == pytest.approx((0.499, 0.499))
        slide.close()
    assert asked == ["/scan.svs"]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["CMU-1-Small-Region.svs"]


def test_other_bytes_than_the_published_ones_are_refused_and_not_kept(tmp_path, server):
    folder, address, _ = server
    (folder / "scan.svs").write_bytes(b"please log in")
    with pytest.raises(SlideError, match="is not the published slide"):
        sample.cmu_small_region(tmp_path / "cache", url=f"{address}/scan.svs")
    assert not list((tmp_path / "cache").iterdir())


def test_offline_one_is_told_what_to_do(tmp_path, server):
    _, address, _ = server
    for url in (f"{address}/missing.svs", "http://127.0.0.1:9/scan.svs"):
        with pytest.raises(SlideError, match=r"cannot be downloaded .* with a browser and put it at .*svs"):
            sample.cmu_small_region(tmp_path / "cache", url=url)
