"""A model of another program is in the window's list, is loaded there, and says that it cannot be taught."""

import pytest

from foreign_package import foreign_zip
from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.teaching.arrivals import import_model
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.viewer.engine import Engine


@pytest.fixture
def engine(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    import_model(foreign_zip(tmp_path / "discs.zip"))
    return Engine()


def test_it_is_listed_and_loaded_by_name(engine):
    assert "dark-discs" in [card.name for card in engine.models()]
    assert engine.load("dark-discs").spec.heads[0].name == "separated"
    (version,) = [one for one in engine.versions() if one.name == "dark-discs"]
    assert (version.kind, engine.preferred("dark-discs")) == ("imported", "dark-discs")


def test_teaching_it_is_refused_with_what_to_do(engine):
    model = engine.load("dark-discs")
    with pytest.raises(TeachingError, match="Choose another model, such as nuclei"):
        next(engine.finetune(model, Lesson(()), device="cpu", trust=False))
