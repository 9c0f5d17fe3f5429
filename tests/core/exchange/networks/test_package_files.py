"""Files of a package are read one by one, none from outside of it; what is damaged or a trap is refused."""

import shutil
import stat
import zipfile

import pytest
import yaml

from foreign_package import foreign_zip
from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.exchange.networks import package as package_module
from napari_nucleiseg.core.exchange.networks.package import Package, must_be_inside


@pytest.fixture
def path(tmp_path):
    return foreign_zip(tmp_path / "discs.zip")


def added(path, entry, content=b"x"):
    """Put one more file into a zip."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, content)
    return path


def test_a_zip_a_folder_and_a_document_are_the_same_package(path, tmp_path):
    shutil.unpack_archive(path, tmp_path / "folder")
    for place in (path, tmp_path / "folder", tmp_path / "folder" / "rdf.yaml"):
        with Package(place) as package:
            assert package.document["name"] == "Dark Discs"
            assert package.source(package.document["weights"]["torchscript"])[:2] == b"PK"


@pytest.mark.parametrize(
    "name", ["../evil.npy", "/etc/passwd", "a/../../b", "..\\evil", "C:/evil", "C:evil", "", "a\0b", "."]
)
def test_a_name_that_leads_outside_is_refused(name, path):
    with pytest.raises(WeightsError, match="outside of itself"):
        must_be_inside(name, path)


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py"])
def test_a_zip_with_such_a_name_is_refused_as_a_whole(name, path):
    with pytest.raises(WeightsError, match="outside of itself"):
        Package(added(path, name))


def test_a_link_in_a_zip_is_refused(path):
    entry = zipfile.ZipInfo("link.npy")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(WeightsError, match="a link"):
        Package(added(path, entry, b"/etc/passwd"))


def test_a_link_out_of_a_folder_is_refused(path, tmp_path):
    folder = tmp_path / "folder"
    shutil.unpack_archive(path, folder)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "in.npy").unlink()
    (folder / "in.npy").symlink_to(tmp_path / "secret")
    with Package(folder) as package, pytest.raises(WeightsError, match="outside of itself"):
        package.read("in.npy")


def test_nothing_is_downloaded(path):
    with Package(path) as package, pytest.raises(WeightsError, match="nothing is downloaded here"):
        package.source({"source": "https://example.org/weights.pt"})


def test_a_file_that_was_changed_is_told_by_its_digest(path):
    with Package(path) as package, pytest.raises(WeightsError, match="another digest"):
        package.source({"source": "in.npy", "sha256": "0" * 64})


def test_a_file_that_is_missing_is_named(path):
    with Package(path) as package, pytest.raises(WeightsError, match=r"gone\.npy that it does not hold"):
        package.source("gone.npy")


def test_too_large_a_file_is_refused_whatever_the_zip_says_of_its_size(path):
    with Package(path) as package, pytest.raises(WeightsError, match="larger than"):
        package.read("out.npy", 100)


def test_too_many_files_are_refused(path, monkeypatch):
    monkeypatch.setattr(package_module, "_MOST_ENTRIES", 2)
    with pytest.raises(WeightsError, match="far more"):
        Package(path)


def test_a_cut_zip_is_said_to_be(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged or cut off"):
        Package(path)


def test_a_zip_with_a_broken_file_is_said_to_be(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("out.npy")
    at = entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2
    content[at] ^= 0xFF
    path.write_bytes(content)
    with Package(path) as package, pytest.raises(WeightsError, match=r"out\.npy .* is damaged"):
        package.read("out.npy")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "!!python/object/apply:os.system ['true']"])
def test_a_document_that_is_none_is_said_to_be(path, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", text)
    with pytest.raises(WeightsError, match=r"rdf\.yaml .* (is damaged|says nothing)"):
        Package(path)


def test_a_zip_without_a_document_is_no_package(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.pt", b"")
    with pytest.raises(WeightsError, match=r"no bioimage\.io model package"):
        Package(tmp_path / "a.zip")


def test_what_is_not_there_is_told_of(tmp_path):
    with pytest.raises(WeightsError, match="there is no model package"):
        Package(tmp_path / "gone.zip")


def test_a_source_that_names_no_file_is_told_of(path):
    with Package(path) as package, pytest.raises(WeightsError, match="does not name a file"):
        package.source({"sha256": "0"})


def test_the_document_is_read_as_plain_values(path):
    with Package(path) as package:
        assert package.document == yaml.safe_load(yaml.safe_dump(package.document))
