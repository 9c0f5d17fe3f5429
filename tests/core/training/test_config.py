"""A configuration that makes no sense is refused before work starts, with a sentence that names the field."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig, config_as_json, load_config

CONFIGURATIONS = sorted(Path(__file__).parents[3].glob("benchmarks/training/nuclei*.json"))
DATA = DataSet("/data/mine", 0.25)
CONFIG = TrainConfig(train=(DATA,))


@pytest.fixture
def written(tmp_path):
    """Write a document and read it as a configuration."""

    def read(document):
        (tmp_path / "c.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return load_config(str(tmp_path / "c.json"))

    return read


def test_a_configuration_survives_its_file(written, tmp_path):
    config = replace(
        CONFIG,
        train=(replace(DATA, path=str(tmp_path / "a"), include=("p*", "q*"), share=2.0), DataSet("/b", None)),
        validate=(DATA,),
        params={"width": 8, "name": "x", "norm": True},
        augment=AugmentConfig(jpeg=0.0),
        unlabelled_exclude=("odd*",),
    )
    assert written(config_as_json(config)) == config


def test_a_file_may_name_any_field_and_no_other_is_needed(written):
    assert written({"steps": 7}) == TrainConfig(steps=7)
    assert written({"learning_rate": 1, "train": []}) == TrainConfig(learning_rate=1.0)


def test_paths_are_taken_from_the_folder_of_the_file(written, tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/somewhere")
    config = written(
        {
            "train": [{"path": "a", "mpp_um": 0.5}],
            "validate": [{"path": "$PLACE/b", "mpp_um": None}],
            "unlabelled": "c",
            "initial": "d/e.safetensors",
        }
    )
    assert (config.train[0].path, config.validate[0].path) == (str(tmp_path / "a"), "/somewhere/b")
    assert config.unlabelled == str(tmp_path / "c")
    assert config.initial == str(tmp_path / "d" / "e.safetensors")


def test_a_configuration_that_is_written_elsewhere_reads_the_same(written, tmp_path, monkeypatch):
    stood = tmp_path / "stood"
    stood.mkdir()
    monkeypatch.chdir(stood)
    data = DataSet("a", 0.5)
    relative = replace(CONFIG, train=(data,), validate=(replace(data, path="b"),), unlabelled="c", initial="d")
    read = written(config_as_json(relative))
    places = (read.train[0].path, read.validate[0].path, read.unlabelled, read.initial)
    assert places == tuple(str(stood / name) for name in "abcd")
    assert written(config_as_json(CONFIG)) == CONFIG


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("{", "cannot be read"),
        ([1], r'c.json does not describe a training run: it must be an object such as {"out": ...}, not \[1\]'),
        ("5", 'it must be an object such as {"out": ...}, not 5'),
        ({"stpes": 3}, "it has unknown fields: stpes; known are out, network, params"),
        ({"train": [{"mpp_um": 0.5}]}, r"train\[0\] lacks the field path; add it$"),
        ({"train": [{"path": "a"}]}, r"train\[0\] lacks the field mpp_um; add it, null where it is not known"),
        ({"validate": [{"path": "a", "mmp": 1}]}, r"validate\[0\] has unknown fields: mmp; known are path, mpp_um"),
        ({"train": {"path": "a"}}, r"train must be a list, not {'path': 'a'}"),
        ({"train": ["a"]}, r'train\[0\] must be an object such as {"path": ...}, not \'a\''),
        ({"train": [{"path": "a", "mpp_um": "half"}]}, r"train\[0\].mpp_um must be a number or null, not 'half'"),
        ({"train": [{"path": 5, "mpp_um": 1}]}, r"train\[0\].path must be text, not 5"),
        ({"train": [{"path": "a", "mpp_um": 1, "include": "p*"}]}, r"train\[0\].include must be a list, not 'p\*'"),
        ({"unlabelled_exclude": [3]}, r"unlabelled_exclude\[0\] must be text, not 3"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"learning_rate": True}, "learning_rate must be a number, not True"),
        ({"steps": 2.5}, "steps must be a whole number, not 2.5"),
        ({"resume": 1}, "resume must be true or false, not 1"),
        ({"unlabelled": None}, "unlabelled must be text, not None"),
        ({"losses": {"nuclei": "much"}}, "losses.nuclei must be a number, not 'much'"),
        ({"losses": ["nuclei"]}, r"losses must be an object of names and values, not \['nuclei'\]"),
        ({"params": {"width": []}}, r"params.width must be a number or text or true or false, not \[\]"),
        ({"augment": {"jpeg": None}}, "augment.jpeg must be a number, not None"),
        ({"augment": {"sepia": 1}}, "augment has unknown fields: sepia"),
        ({"train": [{"path": "$NO_SUCH_VARIABLE/a", "mpp_um": 0.5}]}, "set the environment variable in"),
    ],
)
def test_a_file_that_describes_no_run_is_refused(written, document, sentence):
    with pytest.raises(DataError, match=sentence):
        written(document)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"out": ""}, "name a folder for the weights"),
        ({"out": Path("x")}, "out must be text, not PosixPath|out must be text, not WindowsPath"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"train": ("a",)}, r"train\[0\] must be an object"),
        ({"learning_rate": -1e-3}, "learning_rate must be at least 0, not -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, not nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be at least 0, not inf"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"ema": 1.5}, "ema must be between 0 and 1, not 1.5"),
        ({"momentum": 2.0}, "momentum must be between 0 and 1, not 2"),
        ({"validate_every": 0}, "validate_every must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"threads": -2}, "threads must be at least 0"),
        ({"border_sigma_um": 0.0}, "border_sigma_um must be at least 0.01"),
        ({"augment": AugmentConfig(jpeg=2.0)}, "jpeg of the augmentation must be between 0 and 1, not 2"),
        ({"augment": AugmentConfig(scale=-1.0)}, "scale of the augmentation must be at least 0, not -1"),
        ({"train": (replace(DATA, share=0.0),)}, "needs a share above 0"),
        ({"train": (replace(DATA, share=-1.0),)}, "share of the data set mine must be at least 0, not -1"),
        ({"validate": (replace(DATA, nucleus_um=0.0),)}, "nucleus_um of the data set mine must be between 0.5 and 100"),
        ({"train": (replace(DATA, path=""),)}, "a data set needs the path of its folder"),
        ({"losses": {}}, "at least one loss needs a weight above 0"),
        ({"losses": {"nuclei": 0}}, "at least one loss needs a weight above 0"),
        ({"losses": {"nuclei": -1.0}}, "the weight of the loss nuclei must be at least 0, not -1"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, sentence):
    problem = replace(CONFIG, **changes).validation_error()
    assert problem is not None
    with pytest.raises(DataError, match=sentence):
        raise DataError(problem)


@pytest.mark.parametrize("mpp_um", [-3, 0, 0.0, 25.0, float("nan"), float("inf")])
def test_a_pixel_size_that_cannot_be_is_refused_and_not_taken_for_unknown(mpp_um):
    for key in ("train", "validate"):
        problem = replace(CONFIG, **{key: (replace(DATA, mpp_um=mpp_um),)}).validation_error()
        assert problem.startswith(f"{mpp_um} micrometres per pixel cannot be right for the data set mine")
        assert "0.25 for most 40x scans" in problem
        assert "none where it is not known" in problem


@pytest.mark.parametrize(
    "changes",
    [{}, {"learning_rate": 0.0}, {"learning_rate": 1}, {"warmup": 0}, {"train": (DATA, replace(DATA, share=0.0))}],
)
def test_the_limits_themselves_are_allowed(changes):
    assert replace(CONFIG, **changes).validation_error() is None


def test_configurations_of_the_shipped_models_make_sense(monkeypatch):
    monkeypatch.setenv("NUCLEISEG_DATA", "/data")
    assert len(CONFIGURATIONS) > 3
    assert [path.name for path in CONFIGURATIONS if load_config(str(path)).validation_error()] == []
