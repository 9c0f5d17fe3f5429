"""A view is looked at once: what is known is not computed again, whatever the order, the batch or the disk does."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from broken_levels import broken_above
from napari_nucleiseg.core.attention import forward as forward_module
from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.look import fits, look, must_fit, token_store
from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.errors import ModelError, SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError
from napari_nucleiseg.core.store import files
from napari_nucleiseg.core.store import tokens as tokens_module
from tiny_encoders import SIDE, noise, patch_encoder, region_encoder, slide_of

SLIDE = slide_of(noise(150, 200))
VIEW = Region(0, 0, 96, 160)


@pytest.fixture(scope="module")
def encoder():
    return patch_encoder()


@pytest.fixture(scope="module")
def reader():
    return region_encoder()


@pytest.fixture(scope="module")
def plan(encoder):
    return plan_patches(SLIDE, encoder.spec, VIEW)


def steps_of(plan, encoder, *others, slide=SLIDE, **options):
    return list(look(slide, plan, encoder, *others, device="cpu", exact=True, **options))


def assert_same(one, other):
    assert one.patches.keys() == other.patches.keys()
    for tile, tokens in one.patches.items():
        for name in ("features", "attention", "rollout"):
            # Sums of other batches differ in their last bits.
            np.testing.assert_allclose(getattr(tokens, name), getattr(other.patches[tile], name), rtol=2e-3, atol=2e-4)


@pytest.fixture(scope="module")
def known(plan, encoder):
    return steps_of(plan, encoder)[-1].looked


def test_each_patch_is_looked_at_in_its_place(plan, encoder, known):
    bare = EncoderForward(encoder, "cpu", exact=True)
    for row in range(3):
        for column in range(5):
            tokens = bare.patches(SLIDE.levels[0][row * SIDE :, column * SIDE :][:SIDE, :SIDE][None])[0]
            np.testing.assert_allclose(known.attention()[:, row, column], tokens.attention[-1], rtol=2e-3, atol=2e-4)
            np.testing.assert_allclose(known.features()[row, column], tokens.features, rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(known.rollout()[row, column], tokens.rollout, rtol=2e-3, atol=2e-4)
            y, x = slice(row * 4, row * 4 + 4), slice(column * 4, column * 4 + 4)
            np.testing.assert_array_equal(known.all_attention()[0, 2, y, x], known.attention(0, 2)[row, column])


def test_the_first_patch_comes_alone_from_the_middle_and_progress_counts(plan, encoder):
    steps = [(step.done, step.total, step.forwarded) for step in look(SLIDE, plan, encoder, device="cpu")]
    assert steps == [(0, 15, 0), (1, 15, 1), (5, 15, 5), (9, 15, 9), (13, 15, 13), (15, 15, 15)]
    first = next(step for step in look(SLIDE, plan, encoder, device="cpu") if step.done)
    assert list(first.looked.patches) == [plan.centre_first[0]]
    assert plan.place_of(plan.centre_first[0]) == (1, 2)


def test_what_is_kept_is_not_computed_again(plan, encoder, tmp_path, monkeypatch):
    first = steps_of(plan, encoder, store=token_store(tmp_path, plan, encoder.version))[-1]
    assert first.forwarded == 15

    def never(*_args, **_options):
        raise AssertionError("the encoder is not needed")

    monkeypatch.setattr("napari_nucleiseg.core.attention.look.EncoderForward", never)
    steps = steps_of(plan, encoder, store=token_store(tmp_path, plan, encoder.version))
    assert [(step.done, step.forwarded) for step in steps] == [(15, 0)]
    for tile, tokens in first.looked.patches.items():
        np.testing.assert_array_equal(steps[0].looked.patches[tile].attention, tokens.attention)
        np.testing.assert_array_equal(steps[0].looked.patches[tile].rollout, tokens.rollout)
    assert [step.done for step in steps_of(plan, encoder, known=first.looked.patches)] == [15]


def test_a_neighbouring_view_computes_what_is_new_only(plan, encoder, tmp_path):
    steps_of(plan, encoder, store=token_store(tmp_path, plan, encoder.version))
    beside = plan_patches(SLIDE, encoder.spec, VIEW.translate(SIDE, 0))
    last = steps_of(beside, encoder, store=token_store(tmp_path, beside, encoder.version))[-1]
    assert last.forwarded == 5
    assert_same(last.looked, steps_of(beside, encoder)[-1].looked)


def test_another_encoder_or_a_shifted_grid_is_kept_apart(plan, encoder, tmp_path):
    steps_of(plan, encoder, store=token_store(tmp_path, plan, encoder.version))
    other = patch_encoder(seed=5)
    assert other.version != encoder.version
    assert steps_of(plan, other, store=token_store(tmp_path, plan, other.version))[-1].forwarded == 15
    moved = list(plan.shifts(4, 2))[1]
    assert steps_of(moved, encoder, store=token_store(tmp_path, moved, encoder.version))[-1].forwarded == 15


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_batches_do_not_change_what_is_seen(plan, encoder, known, monkeypatch, size):
    monkeypatch.setitem(forward_module.BATCHES, "cpu", size)
    assert_same(steps_of(plan, encoder)[-1].looked, known)


def test_the_order_does_not_change_what_is_seen(plan, encoder, known):
    found = {}
    for column in reversed(range(5)):
        part = plan_patches(SLIDE, encoder.spec, Region(0, column * SIDE, 96, SIDE))
        found |= steps_of(part, encoder)[-1].looked.patches
    assert_same(steps_of(plan, encoder, known=found)[0].looked, known)


def test_cancelled_it_stops_with_what_is_known_and_goes_on_from_there(plan, encoder, reader, known, tmp_path):
    store = token_store(tmp_path, plan, encoder.version)
    stop = []
    steps = []
    for step in look(SLIDE, plan, encoder, reader, store=store, device="cpu", exact=True, cancelled=lambda: bool(stop)):
        steps.append(step.done)
        if step.done:
            stop.append(True)
    assert steps == [0, 1]
    last = steps_of(plan, encoder, reader, store=store)[-1]
    assert last.forwarded == 14
    assert_same(last.looked, known)


def test_what_is_not_known_yet_is_nan(plan, encoder):
    part = next(step for step in look(SLIDE, plan, encoder, device="cpu") if step.done == 1).looked
    # A step that was waited for is the last one that was asked for.
    assert not part.is_whole
    assert np.isnan(part.attention()).mean() == pytest.approx(14 / 15)
    assert np.isnan(part.rollout()).mean() == pytest.approx(14 / 15)
    assert np.isnan(part.all_attention()).mean() == pytest.approx(14 / 15)
    assert not np.isnan(part.attention(head=1)[1, 2]).any()
    assert part.region is None


# ---------------------------------------------------------------------- regions


def test_the_region_is_looked_at_once_all_patches_are(plan, encoder, reader):
    steps = steps_of(plan, encoder, reader)
    said = steps[-1].looked.region
    assert steps[-1].done == steps[-2].done == 15
    assert said.attention.shape == (2, 2, 3, 5)
    wanted = EncoderForward(reader, "cpu", exact=True).region(steps[-1].looked.features())
    np.testing.assert_array_equal(said.attention, wanted.attention)


def test_encoders_that_do_not_belong_together_are_refused(plan, encoder):
    with pytest.raises(ModelError, match="was trained on the features of other@1, not on those of tiny@"):
        steps_of(plan, encoder, region_encoder(features_of="other@1"))
    with pytest.raises(ModelError, match="tiny looks at pixels; choose an encoder of regions"):
        must_fit(encoder, patch_encoder())
    must_fit(encoder, region_encoder(features_of=encoder.version))
    must_fit(encoder, None)


def test_an_encoder_of_regions_reads_as_many_features_as_there_are(encoder, reader):
    wide = patch_encoder()
    wide.spec = type(wide.spec)(**{**{name: getattr(wide.spec, name) for name in wide.spec.__slots__}, "embed": 24})
    assert fits(encoder.card, encoder.spec, reader.card, reader.spec)
    assert not fits(wide.card, wide.spec, reader.card, reader.spec)
    with pytest.raises(ModelError, match="was trained on the features of 12 numbers a patch"):
        must_fit(wide, reader)


# ---------------------------------------------------------------------- what goes wrong


class Gone(np.ndarray):
    """A picture whose drive is gone."""

    def __getitem__(self, key):
        raise OSError(errno.EIO, "Input/output error")


def test_a_slide_that_cannot_be_read_any_more_is_told(plan, encoder):
    slide = slide_of(noise(150, 200).view(Gone))
    with pytest.raises(SlideError, match=r"Input/output error.*Check that the drive is connected, and look again"):
        steps_of(plan, encoder, slide=slide)


def damaged_slide(broken):
    """Tiles of 40 px, of which those in `broken` cannot be decoded."""
    picture, damage = noise(150, 200), []

    def tile(row, column):
        if (row, column) in broken:
            raise UnreadableTileError("not a JPEG")
        return picture[row * 40 : (row + 1) * 40, column * 40 : (column + 1) * 40]

    level = TiledLevel((150, 200), (40, 40), tile, damage=damage)
    return Slide("/slides/a.svs", (level,), (YX(1, 1),), YX(0.5, 0.5), fingerprint="f1", damage=damage)


def test_damaged_parts_are_said_once_and_not_kept(plan, encoder, tmp_path):
    said = []
    store = token_store(tmp_path, plan, encoder.version)
    slide = damaged_slide({(0, 0), (2, 3)})
    assert steps_of(plan, encoder, slide=slide, store=store, on_message=said.append)[-1].looked.is_whole
    assert len(said) == 1
    assert "looked at as glass" in said[0]
    assert said[0].endswith("not a JPEG")
    hurt = {tile for tile in plan.tiles if any(each.region.overlaps(plan.box_of(tile)) for each in slide.damage)}
    assert {tile for tile in plan.tiles if store.get(tile) is None} == hurt
    assert 0 < len(hurt) < 15
    mended = steps_of(plan, encoder, slide=damaged_slide(set()), store=store)[-1]
    assert mended.forwarded == len(hurt)
    assert_same(mended.looked, steps_of(plan, encoder)[-1].looked)


def test_damage_of_a_level_that_is_not_read_is_neither_said_nor_costs_an_answer(plan, encoder, known, tmp_path):
    said = []
    store = token_store(tmp_path, plan, encoder.version)
    last = steps_of(plan, encoder, slide=broken_above(SLIDE), store=store, on_message=said.append)[-1]
    assert_same(last.looked, known)
    assert said == []
    assert all(store.get(tile) is not None for tile in plan.tiles)


@pytest.mark.parametrize(
    ("number", "sentence"), [(errno.ENOSPC, "is full"), (errno.EROFS, "cannot be written"), (errno.EIO, "drive")]
)
def test_where_nothing_can_be_kept_it_is_said_once_and_work_goes_on(
    plan, encoder, known, tmp_path, monkeypatch, number, sentence
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tokens_module, "write_file", refuse)
    said = []
    store = token_store(tmp_path, plan, encoder.version)
    last = steps_of(plan, encoder, store=store, on_message=said.append)[-1]
    assert_same(last.looked, known)
    assert len(said) == 1
    assert re.search(sentence, said[0])
    assert said[0].startswith("What the heads attend to is not kept")


def test_chunks_that_are_damaged_are_computed_again(plan, encoder, known, tmp_path):
    store = token_store(tmp_path, plan, encoder.version)
    steps_of(plan, encoder, store=store)
    chunks = sorted(store.folder.glob("c.*"))
    chunks[0].write_bytes(chunks[0].read_bytes()[:-20])
    chunks[5].write_bytes(b"")
    last = steps_of(plan, encoder, store=token_store(tmp_path, plan, encoder.version))[-1]
    assert last.forwarded == 2
    assert_same(last.looked, known)


def test_names_of_files_in_the_making_tell_processes_apart(tmp_path, monkeypatch):
    seen = []
    replace = files.os.replace
    monkeypatch.setattr(files.os, "replace", lambda source, target: (seen.append(source), replace(source, target)))
    files.write_file(str(tmp_path / "a"), b"1", str(tmp_path))
    assert str(os.getpid()) in Path(seen[0]).name
