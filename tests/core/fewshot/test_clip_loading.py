"""Files of a CLIP: the right ones load strictly, wrong ones get a sentence, none is unpickled or downloaded."""

import importlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, MissingDependencyError, WeightsError
from napari_nucleiseg.core.fewshot.clip import ClipReader, load_clip
from napari_nucleiseg.core.models.download import sha256_of
from tiny_clip import LONGEST, README, SIDE, build, vocabulary, write_clip


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def folder(tmp_path, model):
    return write_clip(tmp_path / "tiny", model)


def test_the_right_keys_load_one_by_one(folder, model):
    clip = load_clip(folder)
    loaded = clip.network.state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
    assert not clip.network.training
    assert (clip.input_px, clip.longest) == (SIDE, LONGEST)
    assert clip.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert clip.card.licence == "MIT"
    assert clip.card.version == f"tiny@{sha256_of(folder / 'model.safetensors')[:12]}"


def test_vectors_are_those_of_transformers(folder, model):
    clip = load_clip(folder)
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    tokens = clip.tokens(["a dark one", "pale"], padding=True, return_tensors="pt")
    pixels = (torch.from_numpy(pictures) / 255 - torch.tensor(clip.mean)) / torch.tensor(clip.std)
    with torch.inference_mode():
        said = model(pixel_values=pixels.permute(0, 3, 1, 2), **tokens)
    reader = ClipReader(clip, "cpu")
    np.testing.assert_allclose(reader.texts(["a dark one", "pale"]), said.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(reader.pictures(pictures), said.image_embeds.numpy(), atol=1e-5)


def test_a_scale_beyond_a_hundred_counts_as_a_hundred(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"logit_scale": torch.tensor(9.0)}, folder / "model.safetensors")
    assert load_clip(folder).scale == 100


def test_files_of_older_versions_load_and_so_does_a_file_of_any_name(folder):
    tensors = load_file(folder / "model.safetensors")
    places = {f"{tower}.embeddings.position_ids": torch.arange(5)[None] for tower in ("text_model", "vision_model")}
    save_file({key: value.half() for key, value in tensors.items()} | places, folder / "ours.safetensors")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"text_config_dict": config.pop("text_config"), "torch_dtype": "float16", "auto_map": {"x": "y.Z"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_clip(folder).network.logit_scale.dtype == torch.float32
    assert load_clip(folder / "ours.safetensors").input_px == SIDE


def test_one_file_of_the_vocabulary_does_as_well_as_two(folder):
    before = load_clip(folder).tokens(["Dark  tissue, a dark one"])["input_ids"]
    words, merges = vocabulary()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    for rows in ([list(pair) for pair in merges], [" ".join(pair) for pair in merges]):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words, "merges": rows}}))
        assert load_clip(folder).tokens(["Dark  tissue, a dark one"])["input_ids"] == before
    assert before[0][1] == words["dark</w>"]


def test_colours_are_those_of_the_preprocessor(folder):
    stated = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    assert load_clip(folder).mean == (0.5, 0.5, 0.5)
    (folder / "preprocessor_config.json").write_text(json.dumps(stated | {"image_std": [0, 1, 1]}))
    with pytest.raises(WeightsError, match="image_std"):
        load_clip(folder)


def _without(name):
    return lambda folder: (folder / name).unlink()


def _tensors(change):
    def act(folder):
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")

    return act


def _config(**changes):
    def act(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return act


def _words(change):
    def act(folder):
        (folder / "vocab.json").write_text(json.dumps(change(vocabulary()[0])))

    return act


def _pickle_only(folder):
    _without("model.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise AssertionError('it ran')",))


def _saved(content):
    def act(folder):
        _without("model.safetensors")(folder)
        torch.save(content, folder / "pytorch_model.bin")

    return act


_code_only, _nothing_only, _list_only = _saved({"text_model.a": Code()}), _saved({}), _saved([torch.zeros(1)])


def _two(folder):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())


VISION = {"hidden_size": 8, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
WRONG = {
    "a tensor too many": (_tensors(lambda all_: all_ | {"head": torch.zeros(1)}), "does not fit the network CLIPModel"),
    "a tensor too few": (_tensors(lambda all_: dict(list(all_.items())[1:])), "does not fit the network CLIPModel"),
    "another layout": (_tensors(lambda _: {"visual.proj": torch.zeros(2)}), "take those of transformers"),
    "no weights": (_without("model.safetensors"), "holds no model.safetensors"),
    "two weights": (_two, "give the one that is meant"),
    "a pickle with code in it": (_code_only, "holds more than tensors and plain values"),
    "a pickle of nothing": (_nothing_only, "holds no CLIP in transformers' layout"),
    "a list of tensors": (_list_only, "holds no named tensors"),
    "a damaged checkpoint": (_pickle_only, "is damaged or cut off"),
    "a pickle in disguise": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."),
        "is a pickled checkpoint",
    ),
    "no config": (_without("config.json"), "config.json is missing"),
    "a damaged config": (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "does not hold what its name says"),
    "another kind": (_config(model_type="siglip"), "is that of a siglip"),
    "other sizes": (_config(projection_dim=4), "does not fit the network CLIPModel"),
    "no sizes": (_config(vision_config=VISION), "no CLIP can have the sizes"),
    "sizes of no number": (_config(projection_dim="two"), "no CLIP can have the sizes"),
    "no vocabulary": (_without("vocab.json"), "the vocabulary is missing"),
    "too many words": (_words(lambda words: words | {"new": 900}), "and the weights know"),
    "no ends": (
        _words(lambda words: {word: at for word, at in words.items() if "|" not in word}),
        "not that of a CLIP",
    ),
    "no numbers": (_words(lambda words: words | {"new": "1"}), "is damaged"),
    "other merges": (
        lambda folder: (folder / "merges.txt").write_text("#version\nq q\n"),
        "does not fit the vocabulary",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_gets_a_sentence(folder, case):
    spoil, said = WRONG[case]
    spoil(folder)
    with pytest.raises(WeightsError) as error:
        load_clip(folder)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai/clip-vit-base-patch32", "licence MIT"),
        ("openai/clip-vit-base-patch32", "by-text --clip openai/clip-vit-base-patch32"),
        ("MahmoodLab/CONCH", "It cannot be used."),
        ("vinid/plip", "states no licence"),
        ("nowhere", "there is no folder nowhere"),
    ],
)
def test_loading_downloads_nothing(name, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as error:
        load_clip(name)
    assert said in str(error.value)


def test_a_checkpoint_of_tensors_is_read_and_safetensors_come_first(folder, model):
    torch.save(model.state_dict() | {"text_model.embeddings.position_ids": torch.arange(5)[None]}, folder / "clip.pt")
    loaded = load_clip(folder / "clip.pt").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
    assert load_clip(folder).card.sha256 == sha256_of(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert load_clip(folder).card.sha256 == sha256_of(folder / "clip.pt")


def test_a_file_of_no_known_kind_is_not_opened(folder):
    (folder / "model.safetensors").rename(folder / "clip.ckpt")
    for path in (folder, folder / "clip.ckpt"):
        with pytest.raises(WeightsError, match=r"holds no model.safetensors|is no file of weights"):
            load_clip(path)


def test_a_checksum_that_is_wanted_is_compared(folder):
    digest = sha256_of(folder / "model.safetensors")
    assert load_clip(folder, sha256=f" {digest.upper()} ").card.sha256 == digest
    with pytest.raises(WeightsError, match="is not the file that is wanted"):
        load_clip(folder, sha256="0" * 64)
    with pytest.raises(WeightsError, match="64 hexadecimal digits"):
        load_clip(folder, sha256="12ab")


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        ("", "states their licence"),
        (README.replace("mit", "cc-by-nc-nd-4.0"), "CC-BY-NC-ND-4.0"),
        ("license: mit", "states"),
    ],
)
def test_a_licence_is_accepted_or_free(tmp_path, model, readme, said, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    folder = write_clip(tmp_path / "tiny", model, readme=readme)
    with pytest.raises(LicenceNotAcceptedError) as error:
        load_clip(folder)
    assert said in str(error.value)
    assert not load_clip(folder, accept_licence=True).card.commercial_use


def test_without_transformers_the_extra_is_named(folder, monkeypatch):
    there = importlib.import_module

    def missing(name, *rest):
        if name.partition(".")[0] == "transformers":
            raise ModuleNotFoundError(name)
        return there(name, *rest)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"scoring by text needs transformers.*\[zoo\]"):
        load_clip(folder)
