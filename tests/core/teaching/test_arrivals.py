"""Imported models are kept beside the user's own: by name, never over another, told from those that can be taught."""

import pytest

from foreign_package import foreign_zip, parts, written
from napari_nucleiseg.core.errors import ModelError, TeachingError, WeightsError
from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.weights import available_models, load_model, remember_acceptance, user_folder
from napari_nucleiseg.core.teaching import versions
from napari_nucleiseg.core.teaching.arrivals import import_model
from napari_nucleiseg.core.teaching.classroom import prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from small_models import small_model


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))


@pytest.fixture
def path(tmp_path):
    return foreign_zip(tmp_path / "discs.zip")


def test_it_is_among_the_models_and_their_versions(path):
    found = import_model(path)
    assert (found.card.name, found.was_here) == ("dark-discs", False)
    assert "dark-discs" in [card.name for card in available_models()]
    version = versions.find_version("dark-discs")
    assert (version.kind, version.title) == (versions.IMPORTED, "Dark Discs")
    assert load_model("dark-discs").version == found.card.version


def test_the_same_is_not_kept_twice(path):
    first = import_model(path)
    again = import_model(path)
    assert (again.was_here, again.card) == (True, first.card)
    assert import_model(path, name="discs-2").was_here is False


def test_another_of_that_name_is_refused(path, tmp_path):
    first = import_model(path)
    document, files = parts()
    document["outputs"][0]["axes"][1]["channel_names"] = ["nuclei", "rest"]
    with pytest.raises(ModelError, match="Take another name"):
        import_model(written(tmp_path / "other.zip", document, files))
    assert load_model("dark-discs").version == first.card.version


def test_a_name_of_a_shipped_model_is_never_taken(path):
    with pytest.raises(ModelError, match="there is a model called nuclei already"):
        import_model(path, name="nuclei")


def test_it_tells_how_far_it_is_and_keeps_nothing_if_it_is_stopped(path):
    told = []

    def stop_before_keeping(*stage):
        told.append(stage)
        if stage[0] == "keeping":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_model(path, on_progress=stop_before_keeping)
    assert told == [("reading", 0, 1), ("keeping", 1, 1)]
    assert "dark-discs" not in [card.name for card in available_models()]


def test_nothing_is_left_of_a_package_that_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError):
        import_model(path)
    assert not list(user_folder().rglob("*.safetensors"))


def test_one_of_ours_comes_back_with_its_name_and_can_be_renamed_and_deleted(tmp_path):
    made = small_model()
    found = import_model(export_model(made, tmp_path, "bioimageio"))
    assert found.card.name == "small-nuclei"
    assert versions.find_version("small-nuclei").kind == versions.OWN
    versions.rename(versions.find_version("small-nuclei"), "Monday")
    versions.delete(versions.find_version("small-nuclei"))
    assert "small-nuclei" not in [card.name for card in available_models()]


def test_the_shipped_model_is_here_already(tmp_path):
    shipped = load_model("nuclei")
    found = import_model(export_model(shipped, tmp_path, "bioimageio"))
    assert (found.was_here, found.card.version) == (True, shipped.version)


def test_a_licence_is_asked_for_where_it_is_used(tmp_path):
    document, files = parts()
    document["license"] = "CC-BY-NC-4.0"
    card = import_model(written(tmp_path / "a.zip", document, files)).card
    with pytest.raises(Exception, match="not for commercial use"):
        load_model("dark-discs")
    remember_acceptance(card)
    assert load_model("dark-discs").card.licence == "CC-BY-NC-4.0"


def test_it_says_that_it_cannot_be_taught(path):
    import_model(path)
    with pytest.raises(TeachingError, match="imported from another program and cannot be taught"):
        prepare(load_model("dark-discs"), Lesson(()), FinetuneConfig())
