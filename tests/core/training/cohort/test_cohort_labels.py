"""Labels from a CSV, joined with features: what is read, and a sentence for all that is wrong."""

from dataclasses import replace

import pytest

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.cohort.bags import ENDING, find_bags, read_bag, write_bag
from napari_nucleiseg.core.training.cohort.labels import load_cohort, read_labels
from planted_cohort import write_slide


@pytest.fixture
def features(tmp_path):
    for name in ("a", "b", "c"):
        write_slide(tmp_path, name)
    return find_bags([tmp_path])


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_classes_go_by_name_with_or_without_ending(features, csv):
    labels = csv("Slide, Label ,patient,age\na,yes,p1,3\nb.svs,no,p1,4\nc,yes,,5\n")
    cohort = load_cohort(features, labels, "classes")
    assert [(case.slide, case.label, case.patient) for case in cohort.cases] == [
        ("a", "yes", "p1"),
        ("b.svs", "no", "p1"),
        ("c", "yes", "c"),
    ]
    assert cohort.classes == ("no", "yes")
    assert cohort.paths == features
    assert cohort.notes == ()


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_spreadsheets_of_all_countries_are_read(features, csv, delimiter, encoding):
    text = "slide,time,event\na,12.5,1\nb,3,0\nc,7,TRUE\n".replace(",", delimiter)
    cohort = load_cohort(features, csv(text, encoding), "survival")
    assert [(case.time, case.event) for case in cohort.cases] == [(12.5, True), (3.0, False), (7.0, True)]


def test_numbers_are_classes_in_their_order(features, csv):
    assert load_cohort(features, csv("slide,label\na,10\nb,2\nc,10"), "classes").classes == ("2", "10")


def test_only_some_classes_may_be_wanted(features, csv):
    labels = csv("slide,label\na,x\nb,y\nc,z\n")
    cohort = load_cohort(features, labels, "classes", ("x", "z"))
    assert cohort.classes == ("x", "z")
    assert cohort.notes == ("Slides with features but without a label are left out (1): b.svs.",)


@pytest.mark.parametrize("wanted", [("q",), ("x", "q")])
def test_a_class_that_no_slide_has_is_told_with_those_that_there_are(features, csv, wanted):
    with pytest.raises(DataError, match="has no slide of the class q; choose from x, y"):
        load_cohort(features, csv("slide,label\na,y\nb,x\nc,y\n"), "classes", wanted)


def test_unknown_and_missing_slides_are_told_and_left_out(features, csv):
    cohort = load_cohort(features, csv("slide,label\na,x\nb,y\nc,\nd,x\n"), "classes")
    assert [case.slide for case in cohort.cases] == ["a", "b"]
    unknown, missing = cohort.notes
    assert unknown.startswith("Labelled slides without features are left out (1): d.")
    assert missing == "Slides with features but without a label are left out (1): c.svs."


def write_of(folder, name, **changes):
    """Write features under a name that is not that of the slide's file."""
    path = write_slide(folder, name)
    bag = read_bag(path)
    write_bag(path, replace(bag, card=replace(bag.card, **changes)))


def test_slides_of_one_file_name_go_by_the_names_of_their_features(tmp_path, csv):
    for name in ("A-001", "B-001"):
        write_of(tmp_path, name, slide="001.svs", fingerprint=name)
    write_slide(tmp_path, "c")
    features = find_bags([tmp_path])
    cohort = load_cohort(features, csv("slide,label\nA-001,x\nB-001,y\nc.svs,x"), "classes")
    assert [case.label for case in cohort.cases] == ["x", "y", "x"]
    assert cohort.paths == features
    said = r"has 001\.svs, but 2 slides .* are called so; write the names .* instead \(A-001, B-001\)"
    with pytest.raises(DataError, match=said):
        load_cohort(features, csv("slide,label\n001.svs,x\nc,y"), "classes")
    # Nobody is asked about slides that are not wanted.
    text = "slide,label\n001.svs,z\nA-001,x\nc,y"
    assert [case.slide for case in load_cohort(features, csv(text), "classes", ("x", "y")).cases] == ["A-001", "c"]


def test_a_name_of_features_that_is_another_slides_file_too_is_told(tmp_path, csv):
    for name in ("001", "hospB-001"):
        write_of(tmp_path, name, slide="001", fingerprint=name)
    with pytest.raises(DataError, match=rf"rename 001{ENDING} and write .* \(001, hospB-001\)"):
        load_cohort(find_bags([tmp_path]), csv("slide,label\n001,x\nhospB-001,y"), "classes")


def test_copies_of_one_slides_features_do_for_each_other(tmp_path, csv):
    for name in ("old", "17-0032"):
        write_of(tmp_path, name, slide="old.tif", fingerprint="f")
    write_slide(tmp_path, "c")
    cohort = load_cohort(find_bags([tmp_path]), csv("slide,label\nold.tif,x\nc,y"), "classes")
    assert [case.slide for case in cohort.cases] == ["c", "old.tif"]


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        ("classes", "", "has no column slide"),
        ("classes", "slide,time\na,1", "has no column label; the task classes needs the columns slide, label"),
        ("survival", "slide,time\na,1", "has no column event"),
        ("classes", "slide,label\n", "labels no slide"),
        ("classes", "slide,label\na,x\nb,y\na,x", "has a more than once"),
        ("classes", "slide,label\na,x\na.svs,y", "labels a.svs twice, by two names"),
        ("classes", "slide,label\na,x\nb,x", "all 2 slides are of the class x"),
        ("classes", "slide,label\ne,x\nf,y", "labels none of the slides that have features: it has e, f"),
        ("survival", "slide,time,event\na,1,1\nb,soon,0", "line 3 of .*: the time of b is soon"),
        ("survival", "slide,time,event\na,-1,1", "the time of a is -1; it must be a number of at least 0"),
        ("survival", "slide,time,event\na,nan,1", "the time of a is nan"),
        ("survival", "slide,time,event\na,,1", "the time of a is empty"),
        ("survival", "slide,time,event\na,1,maybe", "the event of a is maybe; it must be 1"),
        ("survival", "slide,time,event\na,1,0\nb,2,0", "none of the 2 slides has an event"),
    ],
)
def test_what_is_wrong_is_told(features, csv, task, text, said):
    with pytest.raises(DataError, match=said):
        load_cohort(features, csv(text), task)


def test_what_is_no_text_is_told(tmp_path):
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("l.csv", "none.csv"):
        with pytest.raises(DataError, match="cannot be read as a CSV"):
            read_labels(tmp_path / name, "classes")


def test_features_of_different_encoders_do_not_go_together(tmp_path, csv):
    write_slide(tmp_path, "a")
    write_slide(tmp_path, "b", encoders=("other@1",))
    with pytest.raises(DataError, match=r"of a.svs are of patches@\w+ and regions@\w+, those of b.svs of other@1"):
        load_cohort(find_bags([tmp_path]), csv("slide,label\na,x\nb,y"), "classes")


def test_files_that_are_no_features_are_told(tmp_path, features):
    (tmp_path / "more").mkdir()
    again = write_slide(tmp_path / "more", "a")
    with pytest.raises(DataError, match="two files of features for a"):
        find_bags([tmp_path, again])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files of features"):
        find_bags([tmp_path / "empty"])
    broken = tmp_path / f"d{ENDING}"
    broken.write_bytes(features[0].read_bytes()[:50])
    labels = tmp_path / "l.csv"
    labels.write_text("slide,label\na,x\nb,y")
    with pytest.raises(DataError, match="is no readable file of features"):
        load_cohort(find_bags([tmp_path]), labels, "classes")
    with pytest.raises(DataError, match="there is no file of features"):
        load_cohort([tmp_path / f"e{ENDING}"], labels, "classes")


def test_features_of_other_widths_are_refused_by_their_files(features, csv, tmp_path):
    path = tmp_path / f"b{ENDING}"
    bag = read_bag(path)
    write_bag(path, replace(bag, features=bag.features[:, :-1]))
    with pytest.raises(DataError, match=rf"a{ENDING} has 12 features a place, .*b{ENDING} has 11"):
        load_cohort(features, csv("slide,label\na,x\nb,y\n"), "classes")
    assert len(load_cohort(features, csv("slide,label\na,x\nc,y\n"), "classes").cases) == 2
