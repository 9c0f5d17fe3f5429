"""What heads look at, without a window: looked at once, then one layer that is switched, pinned, asked and dropped."""

import json

import numpy as np
import pytest
import tifffile

from dark_model import disc_picture
from heads_parts import (
    ALL,
    BOUND,
    COLUMNS,
    MPP_UM,
    PATCH_PX,
    ROWS,
    SIDE,
    TOKEN_PX,
    write_discs,
    write_encoder,
    write_encoders,
)
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.weights import remember_acceptance
from napari_nucleiseg.state import BOTH, LAST_LAYER, PATCHES, REGION_LEVEL
from napari_nucleiseg.viewer.heads import IS_CUT, NO_ENCODERS, NO_SLIDE, NOT_FLAT
from napari_nucleiseg.viewer.heads_pointing import ASK, BESIDE
from napari_nucleiseg.viewer.messages import LicenceQuestion, PixelSizeQuestion


def image(seen):
    (layer,) = seen.layers()
    return np.array(layer.data)


# ---------------------------------------------------------------------- nothing to look at


def test_what_is_missing_is_a_sentence(bare, tmp_path):
    bare.look()
    assert bare.said[-1] == NO_SLIDE
    bare.open(write_discs(tmp_path / "discs.tif"))
    bare.look()
    assert bare.said[-1] == NO_ENCODERS
    write_encoders()
    bare.heads.encoders.list()
    bare.settle()
    bare.viewer.dims.ndisplay = 3
    bare.look()
    assert bare.said[-1] == NOT_FLAT
    bare.viewer.dims.ndisplay = 2
    bare.viewer.scene.camera.center = (0, 5000, 5000)
    bare.look()
    assert "out of sight" in bare.said[-1]
    assert not bare.layers()


def test_a_pixel_size_is_asked_for_and_then_it_is_looked_at(ready, tmp_path):
    opened = ready.open(write_discs(tmp_path / "plain.tif", mpp_um=None))
    ready.look()
    (question,) = ready.questions
    assert isinstance(question, PixelSizeQuestion)
    assert not ready.layers()
    ready.controller.set_pixel_size(YX(0.5, 0.5))
    ready.settle()
    (layer,) = ready.layers()
    assert layer.units == opened.layer.units
    assert not any(ready.said[-1:])


def test_a_licence_is_asked_for_and_then_it_is_looked_at(ready):
    write_encoder("bound", seed=3, **BOUND)
    ready.heads.encoders.list("bound")
    ready.settle()
    assert ready.wishes.encoder == "bound"
    ready.look()
    (question,) = ready.questions
    assert isinstance(question, LicenceQuestion)
    assert question.card.name == "bound"
    assert not ready.layers()
    remember_acceptance(question.card)
    ready.controller._resume()
    ready.settle()
    assert len(ready.layers()) == 1


def test_ours_are_chosen_before_those_with_bounds(bare):
    write_encoder("a-bound", **BOUND)
    write_encoder("free", seed=1)
    bare.heads.encoders.list()
    bare.settle()
    assert bare.wishes.encoder == "free"


# ---------------------------------------------------------------------- looking


def test_the_map_lies_on_the_slide_and_a_second_look_computes_nothing(seen, computed):
    (layer,) = seen.layers()
    slide = seen.controller.display.shelf.now.layer
    assert layer.data.shape == (ROWS * SIDE, COLUMNS * SIDE)
    np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), slide.data_to_world((-0.5, -0.5)))
    assert layer.scale[-1] == 16 * slide.scale[-1]
    assert seen.viewer.layers.index(layer) == seen.viewer.layers.index(slide) + 1
    before = image(seen)
    assert len(np.unique(before)) > 8
    seen.look()
    assert sum(computed) == ALL
    # Even when nothing is in memory any more.
    seen.heads.drop()
    seen.engine._known.clear()
    seen.look()
    assert sum(computed) == ALL
    np.testing.assert_array_equal(image(seen), before)


def test_a_part_that_is_seen_is_looked_at_and_the_camera_is_followed(ready, computed):
    camera = ready.viewer.scene.camera
    camera.zoom = 20.0
    camera.center = (0, 32 * 0.5, 32 * 0.5)
    ready.look()
    first = sum(computed)
    assert 0 < first < ALL
    ready.wishes.follow = True
    camera.center = (0, 200 * 0.5, 260 * 0.5)
    ready.settle()
    assert first < sum(computed) < ALL
    assert ready.heads.looks.looking.plans[0].region.contains_point(200, 260)
    ready.heads.stop()
    assert not ready.wishes.follow
    camera.center = (0, 32 * 0.5, 32 * 0.5)
    ready.settle()
    assert ready.heads.looks.looking.plans[0].region.contains_point(200, 260)


def test_it_is_stopped_between_batches_and_goes_on_from_there(ready, computed):
    ready.engine.gate.clear()
    ready.heads.look()
    ready.pump.run_until(lambda: ready.engine.steps)
    assert ready.heads.is_running
    ready.heads.stop()
    assert not ready.heads.is_running
    ready.engine.gate.set()
    ready.settle()
    assert sum(computed) < ALL
    ready.look()
    assert ready.heads.looks.is_whole


def test_what_is_larger_than_one_piece_is_cut_and_told(ready, monkeypatch):
    monkeypatch.setattr(
        "napari_nucleiseg.core.attention.patches.plan_patches", lambda *what: plan_patches(*what, most=2)
    )
    ready.look()
    assert IS_CUT in ready.said
    assert image(ready).shape == (2 * SIDE, 2 * SIDE)


def test_what_is_shown_does_not_change_under_the_hands_of_who_draws_it(ready):
    """Each step is of its own: the next batch must not grow what is being drawn."""
    ready.engine.gate.clear()
    ready.heads.look()
    ready.pump.run_until(lambda: ready.heads.looks is not None)
    first = ready.heads.looks
    count = len(first.looks[0].patches)
    ready.engine.gate.set()
    ready.settle()
    assert len(first.looks[0].patches) == count < ALL == len(ready.heads.looks.looks[0].patches)


def test_another_wish_while_it_is_looked_at_is_looked_at_next(ready):
    ready.engine.gate.clear()
    ready.heads.look()
    ready.pump.run_until(lambda: ready.heads.looks is not None)
    ready.wishes.encoder = "wide"
    ready.engine.gate.set()
    ready.settle()
    assert ready.heads.looks.looking.encoder.card.name == "wide"


# ---------------------------------------------------------------------- switching


def test_every_wish_changes_the_one_layer(seen, computed):
    (layer,) = seen.layers()
    former = image(seen)
    for name, value in (
        ("head", "1"), ("layer", 0), ("head", "mean"), ("head", "max"), ("head", "rollout"), ("values", "raw"),
        ("values", "share"),
    ):  # fmt: skip
        setattr(seen.wishes, name, value)
        seen.settle()
        assert seen.layers() == [layer], name
        assert not np.array_equal(image(seen), former), name
        former = image(seen)
    assert layer.contrast_limits[1] < 1
    assert layer.name.endswith("rollout, layer 1")
    seen.wishes.opacity = 0.25
    seen.wishes.colours = "viridis"
    assert layer.opacity == 0.25
    assert layer.colormap.name == "viridis"
    assert seen.layers() == [layer]
    assert sum(computed) == ALL


def test_glass_is_left_out_where_only_tissue_is_wanted(ready, tmp_path, computed):
    picture = disc_picture((256, 320))
    picture[:, 192:] = 245
    path = tmp_path / "half.tif"
    tifffile.imwrite(path, picture, photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    ready.open(path)
    ready.look()
    known = ~np.isnan(image(ready))
    assert known[:, :10].all()
    assert not known[:, 16:].any()
    ready.wishes.layer = 0
    ready.wishes.tissue_only = False
    ready.settle()
    assert not np.isnan(image(ready)).any()
    assert ready.wishes.layer == 0  # another encoder has other layers, glass has not
    assert sum(computed) == ALL


def test_averaged_grids_give_a_finer_map(seen, computed):
    seen.wishes.averaged = 2
    seen.settle()
    assert sum(computed) == 2 * ALL
    assert len(seen.layers()) == 1
    assert image(seen).shape[0] >= ROWS * SIDE
    seen.wishes.averaged = 1
    seen.settle()
    assert image(seen).shape == (ROWS * SIDE, COLUMNS * SIDE)
    assert sum(computed) == 2 * ALL


def test_another_encoder_has_other_heads_and_layers(seen):
    seen.wishes.head, seen.wishes.layer = "2", 1
    seen.wishes.encoder = "wide"
    seen.settle()
    assert (seen.wishes.head, seen.wishes.layer) == ("0", LAST_LAYER)
    assert seen.heads.looks.looking.encoder.card.name == "wide"
    assert len(seen.layers()) == 1
    assert not any("no head" in text for text in seen.said)


def test_a_region_is_composed_if_its_encoder_reads_these_features(seen, computed):
    galleries = []
    seen.heads.gallery_made.connect(galleries.append)
    assert seen.heads.encoders.regions() == ("tiny-region",)
    seen.wishes.region_encoder = "tiny-region"
    seen.settle()
    assert sum(computed) == ALL  # the patches were known
    patches = image(seen)
    seen.wishes.level = REGION_LEVEL
    seen.settle()
    assert image(seen).shape == (ROWS, COLUMNS)
    assert list(galleries[-1]) == ["0", "1", "mean", "max", "rollout"]
    seen.wishes.level = BOTH
    seen.settle()
    assert list(galleries[-1]) == [f"{head},{other}" for other in range(2) for head in range(3)]
    seen.heads.pick("2,1")
    seen.settle()
    assert (seen.wishes.head, seen.wishes.region_head) == ("2", "1")
    both = image(seen)
    assert both.shape == patches.shape
    seen.wishes.weight = 0.0
    seen.settle()
    assert not np.array_equal(image(seen), both)
    # An encoder whose features it does not read takes it away.
    seen.wishes.encoder = "wide"
    seen.settle()
    assert (seen.wishes.region_encoder, seen.wishes.level) == ("", PATCHES)
    assert seen.heads.encoders.regions() == ()
    assert len(seen.layers()) == 1


# ---------------------------------------------------------------------- pins and tokens


def test_pinned_maps_stay_and_go(seen):
    changes = []
    seen.heads.pins_changed.connect(lambda: changes.append(len(seen.heads.pins)))
    seen.heads.pin()
    first = np.array(seen.heads.pins[0].layer.data)
    seen.wishes.head = "1"
    seen.settle()
    seen.heads.pin()
    assert changes == [1, 2]
    assert [pin.title for pin in seen.heads.pins] == ["head 1", "head 2"]
    assert not any(pin.layer.visible for pin in seen.heads.pins)
    np.testing.assert_array_equal(seen.heads.pins[0].layer.data, first)
    assert not np.array_equal(seen.heads.pins[1].layer.data, first)
    gone = seen.heads.pins[0]
    seen.heads.unpin(gone)
    assert gone.layer not in seen.viewer.layers
    # One that the user takes out of the list of layers is let go as well.
    seen.viewer.layers.remove(seen.heads.pins[0].layer)
    assert seen.heads.pins == []
    assert changes == [1, 2, 1, 0]


def test_a_map_that_the_user_removed_comes_back_with_the_next_one(seen):
    seen.viewer.layers.remove(seen.layers()[0])
    seen.wishes.head = "1"
    seen.settle()
    (layer,) = seen.layers()
    assert layer.visible
    layer.visible = False
    seen.wishes.encoder = "wide"
    seen.settle()
    assert not seen.layers()[0].visible


def test_a_token_is_asked_and_the_class_token_comes_back(seen):
    before = image(seen)
    pointing = seen.parts.pointing
    seen.wishes.asking = True
    assert seen.said[-1] == ASK
    pointing.ask(100.0, 200.0)
    seen.settle()
    (layer,) = seen.layers()
    assert layer.name.endswith("token: head 1")
    assert layer.data.shape == (SIDE, SIDE)
    slide = seen.controller.display.shelf.now.layer
    np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), slide.data_to_world((64 - 0.5, 192 - 0.5)))
    ring = next(layer for layer in seen.viewer.layers if layer.metadata.get("nucleiseg_role") == "marker")
    np.testing.assert_allclose(ring.data, [[104 - 0.5, 200 - 0.5]])
    other = image(seen)
    seen.wishes.head = "1"  # of the same token
    seen.settle()
    assert not np.array_equal(image(seen), other)
    assert image(seen).shape == (SIDE, SIDE)
    seen.wishes.head = "0"
    pointing.ask(-50.0, 10.0)
    seen.settle()
    np.testing.assert_array_equal(image(seen), before)
    pointing.ask(100.0, 200.0)
    seen.settle()
    seen.wishes.asking = False
    seen.settle()
    np.testing.assert_array_equal(image(seen), before)
    assert not [layer for layer in seen.viewer.layers if layer.metadata.get("nucleiseg_role") == "marker"]
    seen.heads.drop()
    pointing.ask(100.0, 200.0)
    assert seen.said[-1] == BESIDE


def test_a_patch_of_the_region_is_asked(seen):
    seen.wishes.region_encoder = "tiny-region"
    seen.settle()
    seen.wishes.level = REGION_LEVEL
    seen.settle()
    before = image(seen)
    seen.parts.pointing.ask(100.0, 200.0)
    seen.settle()
    assert image(seen).shape == before.shape
    assert not np.array_equal(image(seen), before)
    assert seen.layers()[0].name.endswith("token: region mean")


def test_a_token_of_what_is_gone_is_not_shown(seen):
    seen.parts.pointing.ask(100.0, 200.0)
    seen.heads.drop()
    seen.settle()
    assert not seen.layers()
    seen.look()
    assert seen.layers()[0].name.endswith("discs head 1")


# ---------------------------------------------------------------------- what happens elsewhere


def test_another_slide_in_hand_takes_all_of_it_away(seen, tmp_path):
    seen.heads.pin()
    seen.open(write_discs(tmp_path / "other.tif", shape=(128, 192)))
    assert seen.heads.looks is None
    assert not seen.layers()
    assert not seen.heads.pins
    seen.look()
    assert image(seen).shape == (2 * SIDE, 3 * SIDE)


def test_maps_of_a_slide_that_is_gone_do_not_come_late(seen):
    galleries = []
    seen.heads.gallery_made.connect(galleries.append)
    seen.heads.make_gallery()
    seen.viewer.layers.remove(seen.controller.display.shelf.now.layer)
    seen.settle()
    assert galleries == []
    assert not seen.layers()
    assert len(seen.viewer.layers) == 0


def test_the_slide_removed_while_it_is_looked_at_leaves_nothing(ready):
    ready.engine.gate.clear()
    ready.heads.look()
    ready.pump.run_until(ready.layers)
    progress = []
    ready.heads.progress_changed.connect(progress.append)
    ready.viewer.layers.remove(ready.controller.display.shelf.now.layer)
    ready.engine.gate.set()
    ready.settle()
    assert len(ready.viewer.layers) == 0
    assert not ready.heads.is_running
    assert progress[-1] is None
    assert ready.heads.looks is None


def test_closed_while_it_is_looked_at_it_leaves_nothing(ready):
    ready.engine.gate.clear()
    ready.heads.look()
    ready.pump.run_until(ready.layers)
    ready.parts.close()
    ready.engine.gate.set()
    ready.settle()
    assert not ready.layers()
    assert not [call for call in ready.viewer.mouse_drag_callbacks if call == ready.parts.pointing._on_pressed]
    assert not ready.viewer.mouse_move_callbacks


# ---------------------------------------------------------------------- whole slides


def write_attention(path, slide="discs.tif", **more):
    boxes = [[y, x, y + 64, x + 64] for y in (0, 64) for x in (0, 64)]
    told = {
        "slide": slide, "aggregator": "mil@1", "prediction": "tumour", "scores": {"tumour": 0.75, "none": 0.25},
        "boxes": boxes, "attention": [0.1, 0.2, 0.3, 0.4],
    }  # fmt: skip
    path.write_text(json.dumps(told | more))
    return str(path)


def test_where_a_model_of_slides_looked_lies_over_the_slide(ready, tmp_path):
    slide = ready.parts.slide
    slide.show(write_attention(tmp_path / "a.attention.json"))
    ready.settle()
    (layer,) = ready.layers()
    world = ready.controller.display.shelf.now.layer.data_to_world
    at = [layer.get_value(world(place), world=True) for place in ((10, 10), (10, 100), (100, 10), (100, 100))]
    assert at == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert "mil@1 says “tumour” (tumour 0.75, none 0.25)" in ready.said[-1]
    assert "4 parts" in ready.said[-1]
    slide.show(write_attention(tmp_path / "b.attention.json", prediction="", scores={}))
    ready.settle()
    assert len(ready.layers()) == 1
    ready.viewer.layers.remove(ready.controller.display.shelf.now.layer)
    ready.settle()
    assert len(ready.viewer.layers) == 0


def test_files_that_say_something_else_are_refused(ready, tmp_path):
    slide = ready.parts.slide
    for path, sentence in (
        (write_attention(tmp_path / "a.json", slide="other.svs"), "of other.svs, not of discs.tif"),
        (str(tmp_path / "none.json"), "cannot be read"),
        (write_attention(tmp_path / "c.json", boxes=[[0, 0, 9, 9]]), "does not say where"),
    ):
        slide.show(path)
        ready.settle()
        assert sentence in ready.said[-1]
        assert not ready.layers()
    ready.viewer.layers.clear()
    ready.settle()
    slide.show(write_attention(tmp_path / "a.json"))
    assert ready.said[-1] == NO_SLIDE


def test_the_ring_is_where_the_gallery_is_pointed_at(seen):
    seen.parts.pointing.point(0.5, 0.25)
    ring = next(layer for layer in seen.viewer.layers if layer.metadata.get("nucleiseg_role") == "marker")
    np.testing.assert_allclose(ring.data, [[128 + 8 - 0.5, 80 + 8 - 0.5]])
    assert Region(0, 0, 256, 320).contains_point(*ring.data[0])


def test_grids_of_a_region_move_by_parts_of_a_patch(ready):
    ready.wishes.region_encoder = "tiny-region"
    ready.settle()
    ready.wishes.averaged = 2
    ready.look()
    assert [plan.shift_px for plan in ready.heads.looks.looking.plans] == [0, TOKEN_PX // 2]
    ready.wishes.level = REGION_LEVEL
    ready.settle()
    assert [plan.shift_px for plan in ready.heads.looks.looking.plans] == [0, PATCH_PX // 2]
    assert ready.heads.shown.values.shape == (2 * ROWS, 2 * COLUMNS)


def test_a_slide_that_has_to_be_enlarged_is_told(ready, tmp_path):
    ready.open(write_discs(tmp_path / "coarse.tif", mpp_um=2 * MPP_UM))
    ready.look()
    assert any("2.0 times larger" in sentence for sentence in ready.said)
