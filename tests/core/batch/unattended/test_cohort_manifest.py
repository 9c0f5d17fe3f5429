import pytest

from napari_nucleiseg.core.batch.unattended.manifest import read_entries
from napari_nucleiseg.core.errors import DataError, PixelSizeError, SlideError


def test_rows_give_path_pixel_size_name_and_facts(write_slide, tmp_path):
    write_slide("a.svs"), write_slide("b.svs")
    (tmp_path / "m.csv").write_text("\ufeffPath, MPP ,name,Case\nslides/a.svs,,case 1,C-1\nslides/b.svs,0.25,,\n,,,\n")
    first, second = read_entries([str(tmp_path / "m.csv")])
    assert (first.stem, first.mpp_um, dict(first.facts)) == ("case 1", None, {"case": "C-1"})
    assert (second.stem, second.mpp_um, dict(second.facts)) == ("b", 0.25, {})
    assert first.path == str(tmp_path / "slides" / "a.svs")


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
    ],
)
def test_a_manifest_that_cannot_be_understood_is_told(text, error, sentence, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(error, match=sentence):
        read_entries([str(tmp_path / "m.csv")])


def test_a_manifest_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_entries([str(tmp_path / "none.csv")])
