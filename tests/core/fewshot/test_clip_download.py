"""CLIPs by address: downloaded once from a server of this machine, licence first, refused once they have changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, WeightsError
from napari_nucleiseg.core.fewshot.clip import load_clip
from napari_nucleiseg.core.fewshot.clip_download import address_of, downloaded_clips, folder_of, get_clip
from napari_nucleiseg.core.fewshot.clip_source import SOURCE, read_source
from napari_nucleiseg.core.fewshot.known_clips import FETCHED, KNOWN
from napari_nucleiseg.core.models.download import sha256_of
from tiny_clip import README, build, taught, write_clip

HUB = "https://huggingface.co"


@pytest.fixture(scope="module")
def model():
    return taught(build())


@pytest.fixture
def site(web, model, tmp_path, monkeypatch):
    """A folder of a web server with a CLIP as a checkpoint, and its address."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    folder, address = web
    write_clip(folder / "tiny", model)
    (folder / "tiny" / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "tiny" / "pytorch_model.bin")
    return folder / "tiny", f"{address}/tiny"


def test_known_ones_have_an_address_and_a_licence():
    assert FETCHED[0].name == "openai/clip-vit-base-patch32"
    for known in FETCHED:
        address = address_of(known.name.upper())
        assert address.base == f"{HUB}/{known.name}/resolve/main"
        assert address.licence == known.licence == "MIT"
        # Its page and its file are the same as its name.
        assert address_of(known.page) == address_of(f"{known.files}/{known.weights}?download=true") == address
    assert all(address_of(known.name) is None for known in KNOWN if known not in FETCHED)


@pytest.mark.parametrize(
    ("where", "base", "weights"),
    [
        (f"{HUB}/vinid/plip", f"{HUB}/vinid/plip/resolve/main", ("model.safetensors", "pytorch_model.bin")),
        (f"{HUB}/a/b/blob/v2/sub/x.pt", f"{HUB}/a/b/resolve/v2/sub", ("x.pt",)),
        ("http://host:80/c/d/", "http://host:80/c/d", ("model.safetensors", "pytorch_model.bin")),
        ("https://host/m.safetensors#x", "https://host", ("m.safetensors",)),
    ],
)
def test_an_address_says_where_the_files_are(where, base, weights):
    address = address_of(where)
    assert (address.base, address.weights, address.licence) == (base, weights, "unknown")
    assert "/" not in address.name


@pytest.mark.parametrize("where", ["clip", "/data/clip", "C:/clip", "ftp://host/clip", "file:///clip", "http:///x"])
def test_what_is_no_address_is_a_path(where):
    assert address_of(where) is None
    assert get_clip(where) == folder_of(where) == Path(where)


def test_each_address_has_a_folder_of_its_own():
    wheres = ["http://a/c", "http://b/c", "http://a/c/x.pt", "http://a/c/y.pt", f"{HUB}/a/c", f"{HUB}/a/c/blob/v2/x.pt"]
    assert len({folder_of(where) for where in wheres}) == len(wheres)


def test_a_clip_is_downloaded_once_with_checksum_and_licence(site):
    folder, address = site
    told = []
    place = get_clip(f"{address}/pytorch_model.bin", progress=lambda done, total: told.append((done, total)))
    size = (folder / "pytorch_model.bin").stat().st_size
    assert told[-1] == (size, size)
    source = read_source(place)
    assert source.url == f"{address}/pytorch_model.bin"
    assert source.licence == "MIT"
    assert source.digests["pytorch_model.bin"] == sha256_of(folder / "pytorch_model.bin")
    assert set(source.digests) == {"config.json", "vocab.json", "merges.txt", "README.md", "pytorch_model.bin"}
    shutil.rmtree(folder)  # nothing is asked for again
    assert get_clip(f"{address}/pytorch_model.bin") == place == folder_of(f"{address}/pytorch_model.bin")
    clip = load_clip(place, sha256=source.digests["pytorch_model.bin"])
    assert (clip.card.licence, clip.card.name) == ("MIT", place.name)
    assert [card.name for card in downloaded_clips().values()] == [place.name]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vocab.json", "config.json"])
def test_a_file_that_has_changed_since_is_refused(site, name):
    place = get_clip(site[1])
    assert load_clip(place).card.licence == "MIT"
    content = (place / name).read_bytes()
    (place / name).write_bytes(content + b" ")
    with pytest.raises(WeightsError, match=rf"{name} is no longer the file that was downloaded.*Delete the folder"):
        load_clip(place)
    (place / name).write_bytes(content)
    assert load_clip(place)
    (place / SOURCE).write_text("{")
    with pytest.raises(WeightsError, match="cannot be read, so it is not known whether"):
        load_clip(place)
    assert downloaded_clips() == {}


@pytest.mark.parametrize(
    ("readme", "licence"), [("", "unknown"), (README.replace("mit", "cc-by-nc-4.0"), "CC-BY-NC-4.0")]
)
def test_the_licence_comes_before_the_weights(site, readme, licence):
    folder, address = site
    (folder / "README.md").unlink()
    if readme:
        (folder / "README.md").write_text(readme)
    with pytest.raises(LicenceNotAcceptedError, match="--accept-licence"):
        get_clip(address)
    assert not (folder_of(address) / "pytorch_model.bin").exists()
    place = get_clip(address, accept_licence=True)
    # It was accepted for good.
    assert load_clip(place).card.licence == licence


def test_a_wanted_checksum_is_compared_and_nothing_else_kept(site):
    folder, address = site
    with pytest.raises(WeightsError, match="is not the published file"):
        get_clip(address, sha256="0" * 64)
    assert not (folder_of(address) / "pytorch_model.bin").exists()
    assert get_clip(address, sha256=sha256_of(folder / "pytorch_model.bin").upper()).is_dir()


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "its source not yet written"])
def test_what_is_here_already_is_compared_too_and_stays(site, is_whole):
    _, address = site
    place = get_clip(address)
    digest = sha256_of(place / "pytorch_model.bin")
    if not is_whole:
        (place / SOURCE).unlink()
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(WeightsError) as error:
        get_clip(address, sha256="0" * 64)
    said = str(error.value)
    assert f"is not the file that is wanted: its SHA-256 is {digest}, not {'0' * 64}" in said
    assert f"delete the folder {place} and get the weights again" in said
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert get_clip(address, sha256=f" {digest.upper()} ") == get_clip(address) == place
    # The file itself is looked at, not what was written down of it; and what is typed wrong is said at once.
    (place / "pytorch_model.bin").write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the file that is wanted"):
        get_clip(address, sha256=digest)
    with pytest.raises(WeightsError, match="is no SHA-256"):
        get_clip(address, sha256="12ab")
    (place / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"cannot be read.*delete the folder"):
        get_clip(address, sha256=digest)


def test_safetensors_are_taken_where_both_are(site, model):
    folder, address = site
    write_clip(folder, model)
    assert (get_clip(address) / "model.safetensors").is_file()
    assert not (folder_of(address) / "pytorch_model.bin").exists()


def test_one_that_ends_a_download_keeps_nothing_of_the_file(site):
    def stop(_done, _total):
        raise WeightsError("enough")

    with pytest.raises(WeightsError, match="enough"):
        get_clip(site[1], progress=stop)
    left = {path.name for path in folder_of(site[1]).iterdir()}
    assert "config.json" in left
    assert not any("bin" in name or name == SOURCE for name in left)
    assert load_clip(get_clip(site[1])).input_px == 16


def _other(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))


MISSING = {
    "config": (lambda folder: (folder / "config.json").unlink(), "there is no config.json at"),
    "another kind": (_other, "is a siglip, not a clip"),
    "vocabulary": (lambda folder: (folder / "merges.txt").unlink(), "the vocabulary is missing at"),
    "weights": (lambda folder: (folder / "pytorch_model.bin").unlink(), "there is no model.safetensors and no pytorch"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_there_gets_a_sentence(site, case):
    spoil, said = MISSING[case]
    spoil(site[0])
    with pytest.raises(WeightsError) as error:
        get_clip(site[1])
    assert said in str(error.value)


def test_wrong_keys_and_code_get_a_sentence_when_loaded(site, model):
    folder, address = site
    torch.save({"visual.proj": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="take those of transformers"):
        load_clip(get_clip(address))
    torch.save(dict(list(model.state_dict().items())[1:]), folder / "other.bin")
    with pytest.raises(WeightsError, match="does not fit the network CLIPModel"):
        load_clip(get_clip(f"{address}/other.bin"))


def test_no_connection_says_what_to_do(site):
    with pytest.raises(WeightsError, match="Check the connection"):
        get_clip("http://127.0.0.1:9/clip")
