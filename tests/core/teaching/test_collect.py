"""A project gives what people vouch for, at the model's pixel size, and nothing that is held out."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region
from napari_nucleiseg.core.teaching.collect import LOOSE, lesson_of

SPEC = network_spec("nuclei")  # 0.5 um/px, the slide has 0.25


def put(project, y0, x0, y1, x1, role="teach", **more):
    vertices = ((y0, x0), (y0, x1), (y1, x1), (y1, x0))
    put_region(project, AnnotatedRegion(0, "", role, tuple((float(y), float(x)) for y, x in vertices), **more))


def collected(slide_and_project):
    slide, project = slide_and_project
    return lesson_of(project, slide, SPEC)


def ids_in(project, region):
    return project.nuclei_in(region).ids.tolist()


def test_a_whole_region_with_its_surroundings(slide_and_project):
    _, project = slide_and_project
    put(project, 100, 100, 300, 260, done=True)
    (one,) = collected(slide_and_project).examples
    assert (one.slide, one.fingerprint, one.region, one.number, one.role) == ("a.svs", "f1", "Region 1", 1, "teach")
    assert one.mpp_um == 0.5
    # 32 model pixels of context on each side.
    assert one.box == Region.from_bounds(36, 36, 364, 324)
    assert one.image.shape == (164, 144, 3)
    inside = np.zeros(one.labels.shape, bool)
    inside[32:132, 32:112] = True
    assert (one.labels[inside] >= 0).all()
    # Nuclei that reach beyond the region are whole, all else outside is unknown.
    assert set(np.unique(one.labels[~inside])) <= {-1, *np.unique(one.labels[inside]).tolist()}
    truth = project.labels.read(one.box)[1::2, 1::2]
    for nucleus in one.ids:
        (owner,) = np.unique(truth[one.labels == nucleus])
        np.testing.assert_array_equal(one.labels == nucleus, truth == owner)
    np.testing.assert_array_equal(np.unique(truth[inside & (truth > 0)]).size, one.ids.size)
    # The picture is the slide's own, at the model's pixel size.
    dark = one.image[..., 0] < 150
    assert (dark == (truth > 0)).mean() > 0.98


def test_a_region_drawn_around_pixels_is_exactly_these(slide_and_project):
    slide, project = slide_and_project
    # A pixel's centre is a whole number, its edges lie half a pixel before and behind.
    put(project, 99.5, 99.5, 299.5, 259.5, done=True)
    (one,) = lesson_of(project, slide, replace(SPEC, mpp_um=0.25)).examples
    y, x = 100 - one.box.y, 100 - one.box.x
    inside = np.zeros(one.labels.shape, bool)
    inside[y : y + 200, x : x + 160] = True
    assert (one.labels[inside] >= 0).all()
    assert not (one.labels[~inside] == 0).any()


def test_a_region_nobody_worked_in_is_left_out_and_named(slide_and_project):
    put(slide_and_project[1], 100, 100, 300, 260)
    lesson = collected(slide_and_project)
    assert lesson.examples == ()
    assert "Region 1 is left out" in lesson.left_out[0]


def test_a_correction_inside_makes_it_count(slide_and_project):
    _, project = slide_and_project
    put(project, 100, 100, 300, 260)
    project.editor.delete(ids_in(project, Region.from_bounds(150, 150, 200, 200))[:1])
    assert len(collected(slide_and_project).examples) == 1


def test_a_correction_beside_a_region_that_is_no_box_does_not_make_it_count(slide_and_project):
    _, project = slide_and_project
    corners = ((100.0, 100.0), (100.0, 400.0), (400.0, 100.0))
    put_region(project, AnnotatedRegion(0, "", "teach", corners))
    (beside, *_) = ids_in(project, Region.from_bounds(320, 320, 390, 390))
    project.editor.review([beside], approved=True)
    lesson = collected(slide_and_project)
    assert {one.region for one in lesson.examples} == {LOOSE}
    assert "Region 1 is left out" in lesson.left_out[0]
    (inside, *_) = ids_in(project, Region.from_bounds(120, 120, 190, 190))
    project.editor.review([inside], approved=True)
    assert {one.region for one in collected(slide_and_project).examples} == {LOOSE, "Region 1"}


def test_of_a_partly_corrected_region_only_what_was_approved_counts(slide_and_project):
    _, project = slide_and_project
    put(project, 100, 100, 300, 300, complete=False, done=True)
    everything = ids_in(project, Region.from_bounds(120, 120, 280, 280))
    project.editor.review(everything[:2], approved=True)
    (one,) = collected(slide_and_project).examples
    assert len(one.ids) == 2
    # A rim of background of a micrometre around the two, and no more.
    rim = (one.labels == 0).sum()
    assert 0 < rim < 2 * 2 * np.pi * 8 * 3


def test_rejected_nuclei_are_known_to_be_none(slide_and_project):
    _, project = slide_and_project
    put(project, 100, 100, 300, 300, complete=False, done=True)
    (gone,) = ids_in(project, Region.from_bounds(150, 150, 200, 200))[:1]
    was = project.labels.read(Region(0, 0, 512, 512)) == gone
    project.editor.delete([gone])
    (one,) = collected(slide_and_project).examples
    assert one.ids.size == 0
    there = was[one.box.slices][1::2, 1::2]
    assert (one.labels[there] == 0).mean() > 0.8
    assert (one.labels[~there] == 0).sum() < 40


def test_approved_nuclei_outside_of_regions_count(slide_and_project):
    _, project = slide_and_project
    project.editor.review(ids_in(project, Region.from_bounds(20, 20, 200, 200)), approved=True)
    lesson = collected(slide_and_project)
    assert {one.region for one in lesson.examples} == {LOOSE}
    assert sum(len(one.ids) for one in lesson.examples) == len(ids_in(project, Region.from_bounds(20, 20, 200, 200)))
    assert not any((one.labels == 0).all() for one in lesson.examples)


def test_what_is_held_out_is_never_learnt_from(slide_and_project):
    slide, project = slide_and_project
    put(project, 60, 60, 300, 300, done=True)
    put(project, 200, 200, 400, 400, "hold out", done=True)
    project.editor.review(ids_in(project, Region.from_bounds(220, 220, 380, 380)), approved=True)
    lesson = lesson_of(project, slide, SPEC)
    held = Region.from_bounds(200, 200, 400, 400)
    for one in lesson.examples:
        if one.role == "teach":
            part = held.intersect(one.box)
            rows, columns = (slice((a - b) // 2, (c - b) // 2) for a, b, c in zip(
                (part.y, part.x), (one.box.y, one.box.x), (part.y1, part.x1), strict=True))  # fmt: skip
            known = one.labels[rows, columns]
            # Nothing but nuclei that lie mostly outside and reach into it.
            assert (known == 0).sum() == 0
            for nucleus in np.unique(known[known > 0]):
                assert (known == nucleus).sum() <= (one.labels == nucleus).sum() / 2 + 1
    assert [one.role for one in lesson.examples] == ["teach", "hold out"]


@pytest.mark.parametrize(("share", "is_learnt"), [(0.3, False), (0.8, True)])
def test_a_nucleus_on_the_edge_of_what_is_held_out_is_learnt_if_it_lies_mostly_outside(
    slide_and_project, share, is_learnt
):
    _, project = slide_and_project
    table = project.nuclei_in(Region.from_bounds(150, 150, 350, 350))
    _, x0, _, x1 = table.boxes[0].tolist()
    edge = round(x0 + share * (x1 - x0))
    put(project, 60, 60, 450, edge, done=True)
    put(project, 60, edge, 450, 450, "hold out", done=True)
    (taught,) = [one for one in collected(slide_and_project).examples if one.role == "teach"]
    there = (project.labels.read(taught.box) == table.ids[0])[1::2, 1::2]
    assert there.any()
    assert (taught.labels[there] > 0).all() == is_learnt
    assert (taught.labels[there] >= 0).any() == is_learnt


def test_tissue_elsewhere_is_without_labels_and_outside_of_regions(slide_and_project):
    slide, project = slide_and_project
    put(project, 10, 10, 60, 60, done=True)
    lesson = lesson_of(project, slide, SPEC)
    for one in lesson.elsewhere:
        assert not one.known.any()
        assert one.image.shape[:2] == one.labels.shape


def test_a_very_large_region_is_read_in_pieces(slide_and_project, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.teaching.collect.WINDOW_PX", 64)
    put(slide_and_project[1], 0, 0, 512, 512, done=True)
    lesson = collected(slide_and_project)
    assert len(lesson.examples) == 16
    assert len({one.key for one in lesson.examples}) == 1
    # Together they vouch for the slide once; nuclei on a seam belong to both sides.
    known = sum((one.labels >= 0).sum() for one in lesson.examples)
    assert 256 * 256 <= known < 1.2 * 256 * 256


@pytest.mark.parametrize("most", [3])
def test_no_more_pieces_are_read_than_needed(slide_and_project, monkeypatch, most):
    monkeypatch.setattr("napari_nucleiseg.core.teaching.collect.WINDOW_PX", 64)
    monkeypatch.setattr("napari_nucleiseg.core.teaching.collect.MOST_WINDOWS", most)
    put(slide_and_project[1], 0, 0, 512, 512, done=True)
    assert len(collected(slide_and_project).examples) == most
