import os

import pytest

from napari_nucleiseg.core.batch.unattended.manifest import Entry, read_entries, write_entries
from napari_nucleiseg.core.errors import DataError, PixelSizeError, SlideError


def test_rows_give_path_pixel_size_name_and_facts(write_slide, tmp_path):
    write_slide("a.svs"), write_slide("b.svs")
    (tmp_path / "m.csv").write_text("\ufeffPath, MPP ,name,Case\nslides/a.svs,,case 1,C-1\nslides/b.svs,0.25,,\n,,,\n")
    first, second = read_entries([str(tmp_path / "m.csv")])
    assert (first.stem, first.mpp_um, dict(first.facts)) == ("case 1", None, {"case": "C-1"})
    assert (second.stem, second.mpp_um, dict(second.facts)) == ("b", 0.25, {})
    assert first.path == str(tmp_path / "slides" / "a.svs")


@pytest.mark.parametrize(
    ("text", "name", "facts"),
    [
        ("path,,,mpp\na.svs,,,0.25\n", "a", {}),
        ("path, ,note,,mpp\na.svs,x,y,z,0.25\n", "a", {"note": "y"}),
        ("path,stain,stain,name,mpp\na.svs,HE,Ki67,case7,0.25\n", "case7", {"stain": "HE"}),
        ("path,note,Note ,name,mpp,case\na.svs,n1,n2,0017,0.25,31\n", "0017", {"note": "n1", "case": "31"}),
        ("path,mpp\na.svs,0.25,too,many\n", "a", {}),
        ("mpp,path,name,case\n0.25,a.svs\n", "a", {}),
    ],
)
def test_columns_keep_their_names_beside_columns_without_or_with_the_same_name(text, name, facts, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    (entry,) = read_entries([str(tmp_path / "m.csv")])
    assert (entry.path, entry.stem, entry.mpp_um) == (str(tmp_path / "a.svs"), name, 0.25)
    assert dict(entry.facts) == facts


def test_a_file_whose_name_is_no_utf_8_is_read_as_it_was_written(tmp_path):
    stem = os.fsdecode(b"caf\xe9")
    path = tmp_path / f"{stem}.svs"
    path.touch()
    entries = (Entry(str(path), stem, 0.25, {"case": "C-1"}), Entry(str(tmp_path / "b.svs"), "b"))
    write_entries(tmp_path / "m.csv", entries)
    assert read_entries([str(tmp_path / "m.csv")]) == entries
    path.unlink()
    with pytest.raises(DataError, match="save it as CSV in UTF-8"):
        read_entries([str(tmp_path / "m.csv")])


def test_tabs_folders_and_files_go_together_each_once(write_slide, tmp_path):
    path = write_slide("a.svs")
    (tmp_path / "m.tsv").write_text(f"path\tname\n{path}\ta\n")
    assert len(read_entries([str(path), str(tmp_path / "slides"), str(tmp_path / "m.tsv")])) == 1


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("slide\na.svs\n", DataError, "no column called path"),
        ("", DataError, "it has none"),
        ("path,mpp\na.svs,half\n", DataError, "line 2: half is no number"),
        ("path,mpp\na.svs,500\n", PixelSizeError, "cannot be right"),
        ("path,name\na.svs,../a\n", DataError, "leave out slashes"),
        ("path\n", DataError, "no slide is named"),
        ("path\nx/a.svs\ny/a.svs\n", SlideError, "another name"),
        ("path,mpp,MPP \na.svs,0.25,0.5\n", DataError, "2 columns called mpp; keep the one that counts, and remove"),
        ("path,path\na.svs,b.svs\n", DataError, "2 columns called path"),
        ("name,path,name,name\na,a.svs,b,c\n", DataError, "3 columns called name"),
        ("path,mpp\n\n,\nb.svs,0.5\na.svs,half\n", DataError, "line 5: half is no number"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_told(text, error, sentence, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(error, match=sentence):
        read_entries([str(tmp_path / "m.csv")])


def test_a_manifest_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_entries([str(tmp_path / "none.csv")])
