"""``by-text`` from the shell: words in, a table with scores, outlines with classes or a map of classes out."""

import csv
import json
import shutil

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.models.download import sha256_of
from tiny_clip import nuclei, write_clip

VIEW = nuclei()
IDS = np.unique(VIEW.labels)[1:]
WORDS = ("--prompt", "tumour=dark", "--prompt", "stroma = pale", "--mpp", 0.5, "--device", "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, its label image and a CLIP."""
    folder = tmp_path_factory.mktemp("by_text")
    (folder / "a.png").write_bytes(imagecodecs.png_encode(VIEW.image))
    tifffile.imwrite(folder / "labels.tif", VIEW.labels.astype(np.uint16))
    return folder / "a.png", folder / "labels.tif", write_clip(folder / "tiny")


@pytest.fixture
def by_text(shell, files):
    """Call the command on the files."""
    picture, labels, clip = files
    return lambda *words: shell("by-text", picture, "--labels", labels, "--clip", clip, *words)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_has_the_class_and_the_score_of_each(by_text, tmp_path):
    answer = by_text(*WORDS, "--out", tmp_path / "a.csv", "--json")
    assert answer.status == 0, answer.err
    rows = rows_of(tmp_path / "a.csv")
    assert [int(row["id"]) for row in rows] == IDS.tolist()
    assert [row["class_name"] for row in rows] == ["tumour" if dark else "stroma" for dark in VIEW.is_dark]
    for row in rows:
        parts = [float(row[f"p_{name}"]) for name in ("tumour", "stroma", "background")]
        assert sum(parts) == pytest.approx(1, abs=1e-4)
        assert float(row["score"]) == pytest.approx(max(parts), abs=1e-4)
    assert answer.document["classes"] == {"tumour": 12, "stroma": 24, "background": 0}
    assert answer.document["clip"].startswith("tiny@")
    assert answer.document["licence"] == "MIT"
    assert "36 nuclei by words" in answer.err


def test_a_tiff_is_a_map_of_the_classes_and_background_is_none(by_text, tmp_path):
    words = ("--prompt", "tumour=dark", "--background", "tissue", "--background", "pale", "--mpp", 0.5)
    answer = by_text(*words, "--device", "cpu", "--out", tmp_path / "a.tif")
    assert answer.status == 0, answer.err
    found = tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, np.isin(VIEW.labels, IDS[VIEW.is_dark]))


def test_outlines_carry_the_classes(by_text, tmp_path):
    answer = by_text(*WORDS, "--out", tmp_path / "a.geojson")
    assert answer.status == 0, answer.err
    names = [one["properties"]["classification"]["name"] for one in json.loads((tmp_path / "a.geojson").read_text())["features"]]  # fmt: skip  # noqa: E501
    assert (names.count("tumour"), names.count("stroma")) == (12, 24)


def test_what_another_model_says_is_joined(by_text, tmp_path):
    rows = ["id,p_tumour,stroma", *(f"{number},{0.999},{0.001}" for number in [7777, *IDS])]
    (tmp_path / "known.csv").write_text("\n".join(rows))
    known = ("--known", tmp_path / "known.csv", "--lam", 0.9)
    answer = by_text(*WORDS, *known, "--out", tmp_path / "a.csv", "--json")
    assert answer.document["classes"] == {"tumour": 36, "stroma": 0, "background": 0}, answer.err
    # Its own table is one that can be given.
    again = by_text(*WORDS, "--known", tmp_path / "a.csv", "--seen", "tumour", "--out", tmp_path / "b.csv")
    assert again.status == 0, again.err
    assert len(rows_of(tmp_path / "b.csv")) == 36


def test_a_region_has_the_labels_of_the_region(by_text, tmp_path, files):
    tifffile.imwrite(tmp_path / "part.tif", VIEW.labels[40:160, 80:240].astype(np.uint16))
    words = (*WORDS, "--region", "40,80,120,160", "--labels", tmp_path / "part.tif")
    answer = by_text(*words, "--out", tmp_path / "a.csv", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["nuclei"] == 12
    assert answer.document["region"] == {"y": 40, "x": 80, "height": 120, "width": 160}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--clip", "vinid/plip"), "states no licence"),
        (("--clip", "http://127.0.0.1:9/clip"), "cannot be downloaded from"),
        (("--sha256", "12"), "64 hexadecimal digits"),
        (("--prompt", "dark"), "class=words"),
        (("--region", "900,900,9,9"), "--region"),
        (("--region", "0,0,9,9"), "must be equal"),
        (("--labels", "nowhere.tif"), "cannot be read as a label image"),
        (("--known", "nowhere.csv"), "cannot be read as a table"),
        (("--lam", "3"), "lam must lie"),
        (("--out", "a.docx"), "does not say in which format"),
    ],
)
def test_bad_input_gets_a_sentence(by_text, tmp_path, words, said):
    answer = by_text(*WORDS, "--out", tmp_path / "a.csv", *words)
    assert answer.status in {1, 2}
    assert said in answer.err
    assert not (tmp_path / "a.csv").exists()


def test_an_address_is_downloaded_once_and_its_checksum_is_shown(by_text, tmp_path, web, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    folder, address = web
    digest = sha256_of(write_clip(folder / "tiny") / "model.safetensors")
    where = (*WORDS, "--clip", f"{address}/tiny/model.safetensors", "--out", tmp_path / "a.csv", "--json")
    wrong = by_text(*where, "--sha256", "0" * 64)
    assert wrong.status == 1
    assert "not 00000000" in wrong.err
    answer = by_text(*where, "--sha256", digest)
    assert answer.status == 0, answer.err
    assert (answer.document["sha256"], answer.document["licence"]) == (digest, "MIT")
    assert f"licence MIT, SHA-256 {digest}" in answer.err
    shutil.rmtree(folder / "tiny")
    assert by_text(*where).document["classes"] == answer.document["classes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,tumour\n2,0.5\n", "no column p_stroma"),
        ("", "no column id"),
        ("id,tumour,stroma\n2,0.5,0.5\n", "says nothing of nucleus 5"),
        ("id,tumour,stroma\n2,much,0.5\n", "something else than numbers"),
        ("id,tumour,stroma\n2,0.5\n", "something else than numbers"),
    ],
)
def test_another_model_s_table_must_fit(by_text, tmp_path, text, said):
    (tmp_path / "known.csv").write_text(text)
    answer = by_text(*WORDS, "--known", tmp_path / "known.csv", "--out", tmp_path / "a.csv")
    assert answer.status == 1
    assert said in answer.err


def test_labels_are_not_written_over(by_text, files):
    before = files[1].read_bytes()
    answer = by_text(*WORDS, "--out", files[1])
    assert answer.status != 0
    assert "would be lost. Choose another name" in answer.err
    assert files[1].read_bytes() == before
