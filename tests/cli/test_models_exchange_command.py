"""``models export`` and ``models import`` from the shell: for other programs, and from them."""

import pytest
import tifffile

from dark_model import disc_centres, disc_picture
from foreign_package import foreign_zip, parts, written
from napari_nucleiseg.core.models.programs import TORCHSCRIPT, open_program
from napari_nucleiseg.core.models.weights import save_model
from small_models import small_model


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder with one small model."""
    folder = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(folder))
    (folder / "models").mkdir(parents=True)
    made = small_model()
    save_model(folder / "models" / "small-nuclei.safetensors", made.network, made.spec, made.card)
    return folder


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [("--as", "torchscript", "--out"), ("--out",), ()])
def test_export_by_the_format_or_the_files_name(shell, tmp_path, words):
    answer = shell("models", "export", "small-nuclei", *words, tmp_path / "a.pt", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["format"] == "torchscript"
    assert "it says the same as the model. It is under MIT." in answer.err
    open_program(TORCHSCRIPT, (tmp_path / "a.pt").read_bytes())


@pytest.mark.usefixtures("home")
def test_without_a_format_it_is_copied_as_ever(shell, tmp_path):
    assert shell("models", "export", "small-nuclei", "--out", tmp_path / "copy").status == 0
    assert (tmp_path / "copy.safetensors").is_file()
    assert shell("models", "export", "small-nuclei", "--as", "safetensors", "--out", tmp_path / "b").status == 0


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "keras", "--out", "a"), "choose from bioimageio, torchscript, onnx, safetensors"),
        ((), "write: napari-nucleiseg models export small-nuclei FILE"),
        (("a.pt", "--out", "b.pt"), "write: napari-nucleiseg models export small-nuclei FILE"),
    ],
)
def test_words_that_make_no_sense_are_answered(shell, words, said):
    answer = shell("models", "export", "small-nuclei", *words)
    assert (answer.status, said in answer.err) == (1, True)


def test_a_licence_must_be_accepted_before_an_export(shell, home, tmp_path):
    made = small_model(licence="CC-BY-NC-4.0", commercial_use=False)
    save_model(home / "models" / "small-nuclei.safetensors", made.network, made.spec, made.card)
    words = ("models", "export", "small-nuclei", "--out", tmp_path / "a.pt")
    answer = shell(*words)
    assert (answer.status, "not for commercial use" in answer.err) == (1, True)
    assert not (tmp_path / "a.pt").exists()
    assert shell(*words, "--accept-licence").status == 0


@pytest.mark.usefixtures("home")
def test_a_package_goes_out_and_comes_back(shell, tmp_path):
    package = tmp_path / "a.zip"
    assert (
        shell("models", "export", "small-nuclei", "--as", "bioimageio", "--out", package, "--author", "Ada").status == 0
    )
    answer = shell("models", "import", package)
    assert "small-nuclei was here already" in answer.err
    answer = shell("models", "import", package, "--name", "again", "--json")
    assert (answer.document["name"], answer.document["was_here"]) == ("again", False)
    assert "again" in shell("models").out


@pytest.mark.usefixtures("home")
def test_a_foreign_package_segments_a_picture(shell, tmp_path, png):
    answer = shell("models", "import", foreign_zip(tmp_path / "discs.zip"))
    assert answer.status == 0, answer.err
    assert "dark-discs is here. Nuclei are where maps:foreground says so, parted where maps:boundary is." in answer.err
    answer = shell(
        "segment", png, "--out", tmp_path / "out", "--model", "dark-discs", "--mpp", "0.5", "--device", "cpu"
    )
    assert answer.status == 0, answer.err
    labels = tifffile.imread(tmp_path / "out" / "a.tif")
    assert labels.shape == disc_picture((192, 256)).shape[:2]
    assert labels.max() == len(disc_centres(labels.shape))
    assert "imported" in shell("models", "tree").out
    shown = shell("models", "show", "dark-discs").out
    assert "Authors: Ada" in shown
    assert "size_bytes" not in shown


@pytest.mark.usefixtures("home")
def test_a_mapping_is_given_by_hand(shell, tmp_path):
    document, files = parts()
    document["outputs"][0]["axes"][1]["channel_names"] = ["a", "b"]
    package = written(tmp_path / "discs.zip", document, files)
    answer = shell("models", "import", package)
    assert (answer.status, "The options are --foreground CHANNEL" in answer.err) == (1, True)
    answer = shell("models", "import", package, "--foreground", "a", "--boundary", "b", "--mpp", "0.25", "--json")
    assert (answer.document["name"], answer.document["decoder"]) == ("dark-discs", "border")


@pytest.mark.usefixtures("home")
def test_import_asks_for_a_package(shell):
    assert "models import FILE.zip" in shell("models", "import").err
    assert "there is no model package gone.zip" in shell("models", "import", "gone.zip").err


@pytest.mark.usefixtures("home")
def test_a_licence_is_accepted_with_the_import(shell, tmp_path):
    document, files = parts()
    document["license"] = "CC-BY-NC-4.0"
    package = written(tmp_path / "discs.zip", document, files)
    assert "after: napari-nucleiseg models accept dark-discs" in shell("models", "import", package).err
    assert "yes, not commercially" in shell("models", "import", package, "--accept-licence").err
