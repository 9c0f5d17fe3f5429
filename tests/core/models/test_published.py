"""Published checkpoints: nothing but tensors is unpickled, what fits is converted once, licences come first."""

import argparse
import hashlib
import io
import pickle
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models import encoders, published, weights
from napari_nucleiseg.core.models.download import Source, download
from napari_nucleiseg.core.models.encoders import build_encoder, load_encoder, own_encoders_folder
from napari_nucleiseg.core.models.published import PUBLISHED, convert, get_published, read_teacher
from napari_nucleiseg.core.models.weights import licence_accepted, read_card

PATCH = {"embed": 12, "depth": 2, "heads": 3, "patch_px": 8, "input_px": 32, "grid": 3}
REGION = {"features": 12, "embed": 8, "depth": 2, "heads": 2, "grid": 3}
LICENCE = "Apache-2.0 WITH Commons-Clause (non-commercial, academic)"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for module in (weights, encoders):
        monkeypatch.setattr(module, "user_folder", lambda: tmp_path / "home")
    return tmp_path / "home"


def state(name, params, seed=0):
    torch.manual_seed(seed)
    return build_encoder(name, params)[1].state_dict()


def dino(name="hipt-256", params=PATCH, **changes):
    """What DINO writes while it trains: two networks with their heads, the optimizer, the options."""
    head = {"head.mlp.0.weight": torch.zeros(3, 3), "head.last_layer.weight_g": torch.ones(5, 1)}

    def wrapped(tensors):
        return {f"module.backbone.{key}": value for key, value in tensors.items()} | {
            f"module.{key}": value for key, value in head.items()
        }

    teacher, student = state(name, params), state(name, params, seed=1)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    # Rates are read off an array there, so that they are numpy's numbers and not Python's.
    optimizer.param_groups[0]["lr"] = np.linspace(0, 1, 3)[1]
    found = {
        "student": wrapped(student),
        "teacher": wrapped(teacher),
        "optimizer": optimizer.state_dict(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16, use_fp16=True, local_crops_scale=(0.05, 0.4)),
        "dino_loss": {"center": torch.zeros(1, 5)},
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(dino(), tmp_path / "ours.pth")
    return tmp_path / "ours.pth"


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


# ---------------------------------------------------------------------- reading


def test_the_teacher_is_read_without_wrappers_and_heads(checkpoint):
    assert_same(read_teacher(checkpoint), state("hipt-256", PATCH))


def test_files_of_older_programs_are_read(tmp_path):
    torch.save(dino(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(read_teacher(tmp_path / "old.pth"), state("hipt-256", PATCH))
    # Numpy 1 called the module of its numbers otherwise.
    buffer = io.BytesIO()
    torch.save(dino(), buffer)
    now, then = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    with zipfile.ZipFile(buffer) as new, zipfile.ZipFile(tmp_path / "numpy1.pth", "w") as old:
        pickled = next(name for name in new.namelist() if name.endswith("data.pkl"))
        content = new.read(pickled)
        assert now in content or then in content
        for name in new.namelist():
            old.writestr(name, content.replace(now, then) if name == pickled else new.read(name))
    assert_same(read_teacher(tmp_path / "numpy1.pth"), state("hipt-256", PATCH))


def test_tensors_alone_are_read_too(tmp_path):
    torch.save({f"backbone.{key}": value.half() for key, value in state("hipt-256", PATCH).items()}, tmp_path / "a.pth")
    found = read_teacher(tmp_path / "a.pth")
    assert found.keys() == state("hipt-256", PATCH).keys()
    assert {value.dtype for value in found.values()} == {torch.float32}


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


class Foreign:
    """Something that is no tensor."""


@pytest.mark.parametrize("where", ["teacher", "args", "optimizer"])
@pytest.mark.parametrize("what", [Bomb, Foreign])
@pytest.mark.parametrize("new", [True, False])
def test_pickled_code_is_refused_and_never_run(tmp_path, where, what, new):
    torch.save(dino(**{where: {"a": what()}}), tmp_path / "evil.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match="could run foreign code, so it is refused"):
        read_teacher(tmp_path / "evil.pth")


def test_a_bare_pickle_is_refused_and_never_run(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="could run foreign code"):
        read_teacher(tmp_path / "evil.pth")


def test_files_that_are_cut_off_anywhere_are_refused(tmp_path, checkpoint):
    torch.save(dino(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (checkpoint, tmp_path / "old.pth"):
        content = path.read_bytes()
        for size in (*range(0, len(content), len(content) // 23), len(content) - 1):
            path.write_bytes(content[:size])
            with pytest.raises(WeightsError, match=r"is damaged or cut off \([\d,]+ bytes\)|could run foreign code"):
                read_teacher(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (dino(teacher=None), "holds a student without its teacher"),
        (dino(teacher=3), "holds no named tensors as its teacher"),
        (torch.zeros(3), "holds no named tensors;"),
        ({"epoch": 3}, "holds no tensors of a transformer"),
    ],
)
def test_files_without_a_teacher_are_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=sentence):
        read_teacher(tmp_path / "a.pth")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(WeightsError, match="there is no weight file"):
        read_teacher(tmp_path / "nothing.pth")


# ---------------------------------------------------------------------- converting


def test_a_checkpoint_becomes_an_encoder_with_a_card(checkpoint):
    card = convert(checkpoint, "hipt-256", params=PATCH)
    loaded = load_encoder("ours", accept_licence=True)
    assert loaded.card == card
    assert (card.network, card.params, card.licence, card.commercial_use) == ("hipt-256", PATCH, "unknown", False)
    assert card.training_data == ()
    assert_same(loaded.network.state_dict(), state("hipt-256", PATCH))
    assert [path.name for path in own_encoders_folder().iterdir()] == ["ours.safetensors"]


def test_the_published_file_gets_its_name_and_licence(checkpoint, as_published):
    as_published(hipt_256=checkpoint)
    card = convert(checkpoint, "hipt-256", params=PATCH)
    assert (card.name, card.licence, card.commercial_use) == ("hipt-256", LICENCE, False)
    assert "TCGA" in card.training_data[0]
    assert "https://arxiv.org/abs/2206.02647" in card.notes
    with pytest.raises(LicenceNotAcceptedError, match=re.escape(LICENCE)):
        load_encoder("hipt-256")


def test_an_encoder_of_regions_says_whose_features_it_reads(tmp_path, checkpoint, as_published):
    torch.save(dino("hipt-4k", REGION), tmp_path / "region.pth")
    as_published(hipt_256=checkpoint, hipt_4k=tmp_path / "region.pth")
    with pytest.raises(ModelError, match="reads the features of hipt-256, which is not here"):
        convert(tmp_path / "region.pth", "hipt-4k", params=REGION)
    patches = convert(checkpoint, "hipt-256", params=PATCH)
    card = convert(tmp_path / "region.pth", "hipt-4k", params=REGION)
    assert (card.name, card.features_of) == ("hipt-4k", patches.version)


def test_whose_features_are_read_can_be_said(tmp_path, checkpoint):
    torch.save(dino("hipt-4k", REGION), tmp_path / "region.pth")
    ours = convert(checkpoint, "hipt-256", params=PATCH)
    assert convert(tmp_path / "region.pth", "hipt-4k", params=REGION, reads="ours").features_of == ours.version
    assert convert(tmp_path / "region.pth", "hipt-4k", params=REGION, name="alone").features_of == ""


@pytest.mark.parametrize(
    ("held", "params", "wanted", "wanted_params", "sentence"),
    [
        (
            "hipt-4k",
            REGION,
            "hipt-256",
            PATCH,
            "holds a transformer of regions, and hipt-256 is none; convert it as hipt-4k",
        ),
        (
            "hipt-256",
            PATCH,
            "hipt-4k",
            REGION,
            "holds a transformer of patches, and hipt-4k is none; convert it as hipt-256",
        ),
        ("hipt-256", {**PATCH, "patch_px": 4}, "hipt-256", PATCH, "squares of 4 px, and hipt-256 at squares of 8 px"),
        (
            "hipt-256",
            {**PATCH, "depth": 3},
            "hipt-256",
            PATCH,
            "0 tensors are missing or of another size, 12 are foreign",
        ),
        (
            "hipt-256",
            {**PATCH, "grid": 4},
            "hipt-256",
            PATCH,
            "1 tensors are missing or of another size, 0 are foreign",
        ),
        ("hipt-256", PATCH, "hipt-256", {}, "does not fit the network hipt-256|squares of 8 px"),
    ],
)
def test_what_does_not_fit_exactly_is_refused(tmp_path, held, params, wanted, wanted_params, sentence):
    torch.save(dino(held, params), tmp_path / "ours.pth")
    with pytest.raises(WeightsError, match=sentence):
        convert(tmp_path / "ours.pth", wanted, params=wanted_params)
    assert not own_encoders_folder().exists()


def test_another_architecture_is_refused(tmp_path):
    torch.save({"teacher": {"module.backbone.conv1.weight": torch.zeros(3, 3)}}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match="does not fit the network hipt-256: 30 tensors are missing"):
        convert(tmp_path / "resnet.pth", "hipt-256", params=PATCH)


def test_nothing_is_overwritten(tmp_path, checkpoint):
    first = convert(checkpoint, "hipt-256", params=PATCH)
    assert convert(checkpoint, "hipt-256", params=PATCH) == first
    torch.save(dino(teacher=state("hipt-256", PATCH, seed=7)), checkpoint)
    with pytest.raises(ModelError, match="another encoder called ours already"):
        convert(checkpoint, "hipt-256", params=PATCH)
    assert load_encoder("ours", accept_licence=True).version == first.version
    second = convert(checkpoint, "hipt-256", params=PATCH, name="ours-2")
    assert second.sha256 != first.sha256


def test_what_was_left_broken_is_replaced(checkpoint):
    first = convert(checkpoint, "hipt-256", params=PATCH)
    path = own_encoders_folder() / "ours.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert convert(checkpoint, "hipt-256", params=PATCH).sha256 == first.sha256
    assert load_encoder("ours", accept_licence=True).version == first.version


@pytest.mark.parametrize("name", ["../evil", "a b", "a.b", "-a"])
def test_names_that_are_no_file_names_are_refused(checkpoint, name):
    with pytest.raises(ModelError, match="cannot be the name of an encoder"):
        convert(checkpoint, "hipt-256", name=name, params=PATCH)


def test_only_the_published_file_is_called_as_the_published_one(checkpoint):
    with pytest.raises(ModelError, match="is not the file that its authors published as hipt-4k"):
        convert(checkpoint, "hipt-256", name="hipt-4k", params=PATCH)


def test_a_folder_that_cannot_be_written_is_said(checkpoint, home):
    home.mkdir()
    (home / "encoders").write_text("no folder")
    with pytest.raises(WeightsError, match="the weights cannot be written"):
        convert(checkpoint, "hipt-256", params=PATCH)


@pytest.mark.parametrize(("name", "size"), [("hipt-256", 704_238_867), ("hipt-4k", 395_710_078)])
def test_networks_of_published_size_are_converted(tmp_path, name, size):
    tensors = state(name, {})
    torch.save({"teacher": {f"module.backbone.{key}": value for key, value in tensors.items()}}, tmp_path / "own.pth")
    card = convert(tmp_path / "own.pth", name)
    assert_same(load_encoder("own", accept_licence=True).network.state_dict(), tensors)
    assert (card.params, PUBLISHED[name].source.size_bytes) == ({}, size)


# ---------------------------------------------------------------------- downloading


@pytest.fixture
def as_published(monkeypatch):
    """Take files for the published ones, by their size and the ends of their digests."""

    def publish(address="https://nowhere.invalid", **files):
        changed = dict(PUBLISHED)
        for key, path in files.items():
            name = key.replace("_", "-")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            source = Source(
                "the weights of HIPT", f"{address}/{path.name}", digest[:12], digest[-5:], path.stat().st_size
            )
            changed[name] = replace(PUBLISHED[name], source=source)
        monkeypatch.setattr(published, "PUBLISHED", changed)

    return publish


@pytest.fixture
def served(web, as_published, monkeypatch):
    """The two checkpoints on a web server of this machine, with small networks; returns the folder."""
    folder, address = web
    torch.save(dino(), folder / "vit256.pth")
    torch.save(dino("hipt-4k", REGION), folder / "vit4k.pth")
    as_published(address, hipt_256=folder / "vit256.pth", hipt_4k=folder / "vit4k.pth")
    small = {"hipt-256": PATCH, "hipt-4k": REGION}
    monkeypatch.setattr(published, "build_encoder", lambda name, _params: build_encoder(name, small[name]))
    return folder


def test_nothing_is_downloaded_before_the_licence_is_accepted(tmp_path, served):
    with pytest.raises(LicenceNotAcceptedError, match=r"hipt-256 are under Apache-2.0 WITH .* forbids to sell them"):
        get_published("hipt-256", folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    card = get_published("hipt-256", accept_licence=True, folder=tmp_path / "cache")
    assert licence_accepted(card)
    assert load_encoder("hipt-256").version == card.version
    assert list((tmp_path / "cache").iterdir()) == []
    # What is here is not downloaded again, and what was accepted is not asked for again.
    (served / "vit256.pth").unlink()
    assert get_published("hipt-256", folder=tmp_path / "cache") == card


def test_an_encoder_of_regions_comes_after_the_one_it_reads(tmp_path, served):
    with pytest.raises(ModelError, match="Get that first: napari-nucleiseg models get hipt-256"):
        get_published("hipt-4k", accept_licence=True, folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    patches = get_published("hipt-256", accept_licence=True, folder=tmp_path / "cache")
    told = []
    card = get_published(
        "hipt-4k", folder=tmp_path / "cache", accept_licence=True, progress=lambda *now: told.append(now)
    )
    assert card.features_of == patches.version
    assert read_card(own_encoders_folder() / "hipt-4k.safetensors") == card
    size = (served / "vit4k.pth").stat().st_size
    assert told[-1] == (size, size)


@pytest.mark.parametrize("change", ["size", "first", "last"])
def test_files_that_are_not_the_published_one_are_refused_and_not_kept(tmp_path, served, change, monkeypatch):
    source = published.PUBLISHED["hipt-256"].source
    other = {
        "size": replace(source, size_bytes=source.size_bytes + 1),
        "first": replace(source, begins="0" * 12),
        "last": replace(source, ends="xxxxx"),
    }[change]
    with pytest.raises(WeightsError, match="is not the published file: "):
        download(other, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_server_that_cannot_be_reached_is_said_with_another_way(tmp_path, served):
    (served / "vit256.pth").unlink()
    place = re.escape(str(tmp_path / "cache" / "vit256.pth"))
    with pytest.raises(WeightsError, match=f"the weights of HIPT cannot be downloaded from .* put them at {place}"):
        get_published("hipt-256", accept_licence=True, folder=tmp_path / "cache")
    assert not own_encoders_folder().exists()


def test_the_sources_are_those_of_the_authors():
    for name, file in (("hipt-256", "vit256_small_dino.pth"), ("hipt-4k", "vit4k_xs_dino.pth")):
        source = PUBLISHED[name].source
        assert source.url.endswith(f"/mahmoodlab/HIPT/master/HIPT_4K/Checkpoints/{file}")
        assert len(source.begins) >= 12
        assert len(source.ends) >= 4
    with pytest.raises(ModelError, match="nobody publishes an encoder called uni; there are hipt-256, hipt-4k"):
        get_published("uni", accept_licence=True)
