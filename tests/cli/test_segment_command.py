"""``segment`` from the shell: results, JSON, statuses, and a sentence for every bad input."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch

from dark_model import PITCH_PX, RESEARCH, disc_centres, disc_picture
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.store.project import Project

TESTS = Path(__file__).parents[1]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.usefixtures("_dark_model")
def test_a_picture_becomes_a_label_tiff(shell, png, out):
    answer = shell("segment", png, "--out", out, "--mpp", 0.5)
    count = len(disc_centres((192, 256)))
    assert answer.status == 0
    assert answer.out == ""
    assert f"a.png: {count} nuclei in" in answer.err
    assert len(np.unique(tifffile.imread(out / "a.tif"))) == count + 1


@pytest.mark.usefixtures("_dark_model")
def test_json_goes_to_stdout_and_words_to_stderr(shell, png, out):
    answer = shell("segment", png, "--out", out, "--mpp", 0.5, "--format", "csv", "--format", "geojson", "--json")
    assert answer.status == 0
    (slide,) = answer.document["slides"]
    assert slide["ok"]
    assert slide["nuclei"] == len(disc_centres((192, 256)))
    assert [Path(path).name for path in slide["outputs"]] == ["a.nucleiseg", "a.csv", "a.geojson"]
    assert (answer.document["done"], answer.document["failed"]) == (1, 0)
    again = shell("segment", png, "--out", out, "--mpp", 0.5, "--format", "csv", "--format", "geojson", "--json")
    assert again.document["slides"][0]["from_before"]


@pytest.mark.usefixtures("_dark_model")
def test_some_failing_is_status_three_and_all_failing_is_one(shell, png, out):
    text = png.with_name("b.png")
    text.write_text("no picture")
    answer = shell("segment", png, text, "--out", out, "--mpp", 0.5, "--json")
    assert answer.status == 3
    good, bad = answer.document["slides"]
    assert good["ok"]
    assert bad == {"ok": False, "path": str(text), "error": bad["error"], "kind": "SlideError"}
    assert "is no slide or picture of a kind that can be read" in bad["error"]
    assert f"Error: {text} is no slide" in answer.err
    assert shell("segment", text, "--out", out).status == 1


@pytest.mark.parametrize("region", ["1,2,3", "a,b,c,d", "0,0,-5,5"])
def test_a_region_that_is_none_is_status_two(shell, png, out, region):
    answer = shell("segment", png, "--out", out, f"--region={region}")
    assert answer.status == 2
    assert f"{region} is no region; give four whole numbers y,x,height,width" in answer.err


@pytest.fixture
def scan(tmp_path):
    """A scan of dark discs, of 3 rows and 4 columns of tiles."""
    image = disc_picture((700, 900))
    facts = "Aperio Image Library v1\r\n900x700 |AppMag = 20|MPP = 0.5"
    path = tmp_path / "scan.svs"
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", compression="zlib", description=facts, metadata=None
    )
    return path


def spoil_tile(path, number):
    """Overwrite a tile of the first page, so that it can no longer be decoded."""
    with tifffile.TiffFile(path) as file:
        start, size = file.pages.first.dataoffsets[number], file.pages.first.databytecounts[number]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))


@pytest.mark.usefixtures("_dark_model")
def test_a_damaged_tile_is_told_and_the_others_are_done(shell, scan, out):
    whole = shell("segment", scan, "--out", out / "whole", "--no-tissue-mask", "--json").document["slides"][0]
    spoil_tile(scan, 5)
    answer = shell("segment", scan, "--out", out / "damaged", "--no-tissue-mask", "--json")
    assert answer.status == 0
    (slide,) = answer.document["slides"]
    (note,) = slide["notes"]
    assert note.startswith("tile 5 (row 1, column 1) is damaged: cannot be decoded")
    assert f"scan.svs: {note}\n" in answer.err
    assert "; 1 tile could not be read and is tried again next time" in answer.err
    assert slide["skipped_tiles"] == 1
    assert slide["nuclei"] == whole["nuclei"] - (256 // PITCH_PX) ** 2


@pytest.mark.usefixtures("_dark_model")
def test_damaged_tiles_of_a_picture_are_told_and_it_is_tried_again_next_time(shell, tmp_path, out):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, disc_picture((700, 900)), tile=(128, 128), photometric="rgb", compression="zlib")
    words = ("segment", path, "--out", out, "--mpp", 0.5, "--json")
    whole = shell(*words).document["slides"][0]
    for number in range(7):
        spoil_tile(path, number)
    answer = shell(*words)
    (slide,) = answer.document["slides"]
    assert (answer.status, slide["skipped_tiles"]) == (0, 7)
    assert slide["nuclei"] == whole["nuclei"] - 7 * (128 // PITCH_PX) ** 2
    told = re.findall(r"a\.tif: rows 0 to 128, columns (\d+) to \d+ cannot be read and hold no nuclei: ", answer.err)
    assert len(set(told)) == 5
    assert "a.tif: 2 more tiles had such trouble\n" in answer.err
    assert not shell(*words).document["slides"][0]["from_before"]


@pytest.mark.usefixtures("_dark_model")
@pytest.mark.parametrize("shape", [(1, 1), (1, 300)])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_picture_of_a_pixel_or_a_line_has_no_nuclei_and_a_result(shell, tmp_path, out, name, shape):
    pixels = np.full((*shape, 3), 230, np.uint8)
    if name == "a.png":
        (tmp_path / name).write_bytes(imagecodecs.png_encode(pixels))
    else:
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb")
    answer = shell("segment", tmp_path / name, "--out", out, "--mpp", 0.5)
    assert answer.status == 0
    assert "0 nuclei in" in answer.err
    labels = tifffile.imread(out / "a.tif")
    assert (labels.shape, labels.any()) == (shape, False)


@pytest.mark.usefixtures("_dark_model")
def test_the_same_command_on_a_folder_with_its_results_does_nothing_again(shell, png):
    for _ in range(2):
        answer = shell("segment", png.parent, "--out", png.parent, "--mpp", 0.5, "--json")
        assert answer.status == 0
    assert [slide["from_before"] for slide in answer.document["slides"]] == [True]


@pytest.mark.usefixtures("_dark_model")
def test_empty_and_damaged_slides_of_a_folder_are_told(shell, png, out):
    (png.parent / "slide17.svs").touch()
    (png.parent / "text.svs").write_text("not a slide")
    answer = shell("segment", png.parent, "--out", out, "--mpp", 0.5)
    assert answer.status == 3
    for name in ("slide17.svs", "text.svs"):
        assert f"Error: {png.parent / name} is no slide or picture of a kind that can be read" in answer.err


# ---------------------------------------------------------------------- bad input, through the real model


def refused(answer, sentence):
    assert answer.status == 1
    assert answer.err.startswith("Error: ")
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_no_slide(shell, tmp_path, out):
    (tmp_path / "a.svs").write_text("not a slide")
    refused(shell("segment", tmp_path / "a.svs", "--out", out), "is no slide or picture of a kind that can be read")
    refused(shell("segment", tmp_path / "gone.svs", "--out", out), "does not exist; check the name, and that its drive")


def write_png_without_pixels(path):
    """A PNG that states a width of 0, with its checksum right."""
    whole = imagecodecs.png_encode(np.zeros((4, 4, 3), np.uint8))
    header = bytearray(whole[12:29])
    header[4:8] = bytes(4)
    path.write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])


def write_tiff_without_pixels(path):
    tifffile.imwrite(path, np.zeros((4, 4, 3), np.uint8), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(0)


@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        ("a.png", write_png_without_pixels, "a.png is a damaged PNG"),
        ("a.tif", write_tiff_without_pixels, "a.tif cannot be used"),
        ("b.png", Path.touch, "b.png is no slide or picture of a kind that can be read"),
    ],
)
def test_a_picture_without_pixels(shell, tmp_path, out, name, write, sentence):
    write(tmp_path / name)
    refused(shell("segment", tmp_path / name, "--out", out, "--mpp", 0.5), sentence)
    assert not (out / "a.tif").exists()


def test_no_pixel_size(shell, png, out):
    answer = shell("segment", png, "--out", out)
    refused(answer, "does not say how large its pixels are")
    assert "(0.25 for most 40x scans, 0.5 for 20x). The option is --mpp, such as --mpp 0.25." in answer.err


@pytest.mark.parametrize("mpp", [0, -1, 500, "nan"])
def test_a_pixel_size_that_cannot_be(shell, png, out, mpp):
    refused(shell("segment", png, "--out", out, f"--mpp={mpp}"), "micrometres per pixel cannot be right")


def test_a_pixel_size_that_no_nucleus_can_be_seen_at(shell, png, out):
    answer = shell("segment", png, "--out", out, "--mpp", 15, "--json")
    refused(answer, "a.png: pixels of 15 x 15 µm are not for nuclei, which works at 0.5 µm. Check the value")
    assert "The option is --mpp" in answer.err
    assert "--mpp" not in answer.document["slides"][0]["error"]


def test_an_address(shell, out):
    refused(
        shell("segment", "https://example.org/a.zarr", "--out", out), "https://example.org/a.zarr is an address, and"
    )


@pytest.mark.usefixtures("_dark_model")
def test_a_region_beside_the_picture(shell, png, out):
    answer = shell("segment", png, "--out", out, "--mpp", 0.5, "--region", "5000,5000,10,10")
    refused(
        answer, "is 192 pixels high and 256 wide; the region 5000,5000,10,10 (y, x, height, width) lies beside that"
    )
    assert not (out / "a.tif").exists()


def test_an_unknown_model_and_an_unknown_device(shell, png, out):
    refused(
        shell("segment", png, "--out", out, "--model", "nucleii"), "there is no model called nucleii; there are nuclei"
    )
    answer = shell("segment", png, "--out", out, "--mpp", 0.5, "--device", "abacus")
    refused(answer, "there is no device called abacus; choose auto, cuda, mps or cpu")


def test_a_pickled_model(shell, png, out, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "zip.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"weight": [0]}))
    for name in ("zip.pt", "old.pt"):
        refused(shell("segment", png, "--out", out, "--model", tmp_path / name), "is a pickled checkpoint")


def test_a_model_file_with_wrong_keys_or_none(shell, png, out, tmp_path):
    spec = network_spec("nuclei")
    network = build_network(spec)
    network.register_buffer("foreign", torch.zeros(2))
    save_model(tmp_path / "odd.safetensors", network, spec, ModelCard("odd", "nuclei", commercial_use=True))
    refused(
        shell("segment", png, "--out", out, "--model", tmp_path / "odd.safetensors"), "does not fit the network nuclei"
    )
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors at all")
    refused(
        shell("segment", png, "--out", out, "--model", tmp_path / "bad.safetensors"), "is not a readable weight file"
    )


def test_a_licence_that_was_not_accepted(shell, png, out, tmp_path):
    spec = network_spec("nuclei")
    path = tmp_path / "research.safetensors"
    card = ModelCard(RESEARCH.name, "nuclei", licence=RESEARCH.licence, commercial_use=False)
    save_model(path, build_network(spec), spec, card)
    words = ("segment", png, "--out", out, "--model", path, "--mpp", 0.5)
    refused(shell(*words), "are under CC-BY-NC-SA-4.0 and not for commercial use")
    assert shell(*words, "--accept-licence").status == 0


def test_a_place_where_nothing_can_be_written(shell, png, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(shell("segment", png, "--out", tmp_path / "file" / "out", "--mpp", 0.5), "choose another folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission(shell, png, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(shell("segment", png, "--out", locked, "--mpp", 0.5), "nothing can be written to")


def test_a_picture_beside_which_its_labels_would_have_its_name(shell, png, tmp_path):
    own = tmp_path / "own" / "a.tif"
    own.parent.mkdir()
    tifffile.imwrite(own, disc_picture((192, 256)), photometric="rgb")
    before = own.read_bytes()
    refused(shell("segment", own, "--out", own.parent, "--mpp", 0.5), "a.tif would be replaced by its own results")
    refused(shell("segment", png, "--out", own.parent, "--mpp", 0.5), f"{own} is there already and is no result of")
    assert own.read_bytes() == before


@pytest.mark.parametrize("area", ["nan", "inf", "-1"])
def test_a_smallest_area_that_makes_no_sense(shell, png, out, area):
    answer = shell("segment", png, "--out", out, "--mpp", 0.5, f"--min-area={area}")
    refused(answer, "the smallest area cannot be negative and must be a finite number")
    assert not out.exists()


def test_a_threshold_that_makes_no_sense(shell, png, out):
    refused(shell("segment", png, "--out", out, "--mpp", 0.5, "--threshold", 3), "must lie between 0 and 1")


# ---------------------------------------------------------------------- stopped from outside

# A shell's background jobs ignore SIGINT, and so would what the tests start from there.
SLOW_PROGRAM = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)
from dark_model import CARD, SPEC, Dark
from napari_nucleiseg.core.models.weights import LoadedModel
import napari_nucleiseg.core.batch.segmentation as segmentation
torch.set_num_threads(1)
network = Dark().eval()
seconds, begin = float(sys.argv.pop(1)), network.log.begin
def begin_slowly(tiles):
    begin(tiles)
    time.sleep(seconds)
network.log.begin = begin_slowly
segmentation.load_model = lambda name, accept_licence: LoadedModel(SPEC, CARD, network)
from napari_nucleiseg.cli import main
status = main()
print("FORWARDS", network.log.tiles)
sys.exit(status)
"""


def start(scan, out, seconds):
    words = ["segment", str(scan), "--out", str(out), "--no-tissue-mask", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_PROGRAM, str(seconds), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def nuclei_so_far(folder):
    if not (folder / "project.sqlite").exists():
        return 0
    with Project.open(folder, writable=False) as project:
        return project.count_in(Region(0, 0, *project.shape))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")
@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopped_at_any_time_the_same_command_goes_on(scan, tmp_path, stop, status):
    out = tmp_path / "out"
    slow = start(scan, out, 0.5)
    end = time.monotonic() + 150
    while nuclei_so_far(out / "scan.nucleiseg") == 0:
        assert time.monotonic() < end
        assert slow.poll() is None, slow.communicate()
        time.sleep(0.05)
    slow.send_signal(stop)
    _, said = slow.communicate(timeout=150)
    assert slow.returncode == status, said
    assert "Traceback" not in said
    if stop == signal.SIGINT:
        assert "the same command goes on from there" in said

    quick = start(scan, out, 0)
    printed, said = quick.communicate(timeout=150)
    assert quick.returncode == 0, said
    assert f'"nuclei": {len(disc_centres((700, 900)))}' in printed
    assert 0 < int(printed.rpartition("FORWARDS")[2]) < 12  # of 12 tiles, those that were missing
