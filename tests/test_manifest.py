"""The manifest: valid, all it names exists, nothing heavy is imported for it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from npe2 import PluginManifest

from napari_nucleiseg.core.slides.registry import FILENAME_PATTERNS
from napari_nucleiseg.state import DEVICES, Session

ROOT = Path(__file__).parents[1]
PATH = ROOT / "napari.yaml"
RAW = yaml.safe_load(PATH.read_text())
CONTRIBUTIONS = RAW["contributions"]


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(PATH)


def test_npe2_finds_it_valid():
    npe2 = Path(sys.executable).with_name("npe2")
    answer = subprocess.run([npe2, "validate", str(PATH)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "valid" in answer.stdout + answer.stderr


def test_the_installed_manifest_is_this_one():
    installed = PluginManifest.from_distribution("napari-nucleiseg")
    assert installed.contributions == PluginManifest.from_file(PATH).contributions, "re-install the package"


@pytest.mark.parametrize("command", CONTRIBUTIONS["commands"], ids=lambda command: command["id"])
def test_commands_exist_and_are_in_place(command):
    module, name = command["python_name"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_every_pattern_is_read():
    (reader,) = CONTRIBUTIONS["readers"]
    assert tuple(reader["filename_patterns"]) == FILENAME_PATTERNS
    assert reader["accepts_directories"]


def test_settings_agree_with_the_session(manifest):
    properties = CONTRIBUTIONS["configurations"]["segmentation"]["properties"]
    session = Session()
    assert properties["model"]["default"] == session.model
    assert properties["follow_limit"]["default"] == session.follow_limit
    assert tuple(properties["device"]["enum"]) == DEVICES
    assert CONTRIBUTIONS["configurations"]["results"]["properties"]["folder"]["default"] == session.results_folder


def test_menus_are_those_that_napari_offers(manifest):
    from napari._app_model.constants import MenuId

    offered = {str(menu) for menu in MenuId.contributables()}
    assert set(CONTRIBUTIONS["menus"]) <= offered


def test_looking_for_a_reader_imports_nothing_heavy(tmp_path):
    slide = tmp_path / "nothing.xyz"
    slide.write_bytes(b"no slide")
    code = (
        "import sys\n"
        "from napari_nucleiseg.viewer.reader import get_reader\n"
        f"assert get_reader({str(slide)!r}) is None\n"
        "print([name for name in ('torch', 'napari.layers', 'qtpy', 'skimage', 'dask') if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_what_napari_imports_first_brings_nothing_heavy_with_it():
    modules = sorted({one["python_name"].split(":")[0] for one in CONTRIBUTIONS["commands"]})
    heavy = {"torch", "scipy", "skimage", "zarr", "dask", "pandas", "pyarrow", "monai", "timm", "transformers"}
    code = (
        "import sys, importlib, numpy, napari._qt.qt_main_window\n"
        "before = set(sys.modules)\n"
        f"for module in {modules}:\n    importlib.import_module(module)\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = set(answer.stdout.split())
    assert "napari_nucleiseg" in new
    assert new & heavy == set()
