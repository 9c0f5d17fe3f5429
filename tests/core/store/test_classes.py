"""Classes of nuclei are changed as steps that can be undone, and no change loses one."""

import pytest
from fields import Grid, random_tiles

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.classes import NucleusClass, count_by_class, put_classes, read_classes
from napari_nucleiseg.core.store.schema import CLASSES


@pytest.fixture
def project(fresh_project):
    return fresh_project()


def put(project, *classes):
    return list(put_classes(project, classes))


def classes(project):
    return read_classes(project.ledger.reader)


def test_a_new_project_has_the_usual_classes(project):
    assert [(entry.number, entry.name, entry.colour) for entry in classes(project)] == list(CLASSES)


def test_classes_are_added_renamed_and_recoloured(project):
    before = classes(project)
    new = (NucleusClass(1, "Carcinoma", "#ff0000"), *before[1:], NucleusClass(7, " Mitosis ", "#00ffff"))
    assert len(put(project, *new)) == 2
    assert classes(project) == (*new[:-1], NucleusClass(7, "Mitosis", "#00ffff"))
    assert put(project, *classes(project)) == []
    for _ in range(2):
        project.editor.undo()
    assert classes(project) == before


def test_names_can_be_swapped(project):
    before = classes(project)
    one, two = before[0], before[1]
    put(project, NucleusClass(1, two.name, one.colour), NucleusClass(2, one.name, two.colour), *before[2:])
    assert [entry.name for entry in classes(project)][:2] == [two.name, one.name]
    assert len(classes(project)) == len(before)
    for _ in project.editor.jump(0):
        pass
    assert classes(project) == before


def test_nuclei_of_a_class_that_goes_have_none_then(project):
    for tile in random_tiles(1, Grid((600, 600), 200)):
        project.write_tile(tile, "m@1", "k")
    ids = project.nuclei_in(Region(0, 0, 600, 600)).ids[:4].tolist()
    project.editor.classify(ids, 3)
    assert count_by_class(project.ledger.reader) == {3: 4}
    put(project, *(entry for entry in classes(project) if entry.number != 3))
    assert count_by_class(project.ledger.reader) == {}
    assert 3 not in [entry.number for entry in classes(project)]
    assert [step.kind for step in project.editor.history()] == ["remove class", "classify"]
    project.editor.undo()
    assert count_by_class(project.ledger.reader) == {3: 4}
    assert 3 in [entry.number for entry in classes(project)]


@pytest.mark.parametrize(("name", "said"), [("", "has no name"), (" tumor", "Two classes are called tumor")])
def test_empty_and_equal_names_are_refused(project, name, said):
    before = classes(project)
    with pytest.raises(StoreError, match=said):
        put(project, *before, NucleusClass(7, name, "#000000"))
    assert classes(project) == before
