"""Heads and nuclei without a window: ranked, measured, coloured, visited one after the other, and seeds."""

import numpy as np
import pytest

from heads_parts import HEIGHT, WIDTH
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.state import BOTH, LAST_LAYER, PATCHES, REGION_LEVEL
from napari_nucleiseg.viewer.heads_nuclei import LOOK_FIRST, NO_PROJECT

DISCS = (HEIGHT // 32) * (WIDTH // 32)


@pytest.fixture
def nuclei(seen):
    """What was looked at has nuclei."""
    seen.controller.segment_view()
    seen.settle()
    found = seen.controller.display.shelf.now.project.nuclei_in(Region(0, 0, HEIGHT, WIDTH))
    assert len(found) == DISCS
    return found


@pytest.fixture
def half(seen, nuclei):
    """The same with nuclei in the right half only: where they are everywhere, there is nothing to tell them from."""
    seen.controller.session.editing = True
    seen.settle()
    seen.controller.editing.delete(nuclei.ids[nuclei.centroids[:, 1] < WIDTH / 2].tolist())
    seen.settle()


def named(seen, part):
    return [layer for layer in seen.viewer.layers if part in layer.name]


def ring(seen):
    (layer,) = [layer for layer in seen.viewer.layers if layer.metadata.get("nucleiseg_role") == "marker"]
    return layer.data[0]


def test_what_is_missing_is_a_sentence(ready):
    ours = ready.parts.nuclei
    for act in (ours.rank, ours.measure, ours.seed, lambda: ours.go(most=True)):
        act()
        assert ready.said[-1] == LOOK_FIRST
    ready.look()
    for act in (ours.rank, ours.measure, lambda: ours.go(most=False), lambda: ours.colour(on=True)):
        act()
        assert ready.said[-1] == NO_PROJECT
    ours.colour(on=False)


def test_a_project_without_nuclei_here_is_a_sentence(seen, nuclei):
    editing = seen.controller.editing
    seen.controller.session.editing = True
    seen.settle()
    editing.delete(nuclei.ids.tolist())
    seen.settle()
    seen.parts.nuclei.rank()
    seen.settle()
    assert "There are no nuclei here" in seen.said[-1]
    assert seen.parts.nuclei.scores == ()


def test_all_heads_are_ranked_and_a_row_shows_its_head(seen, nuclei):
    ranked = []
    seen.parts.nuclei.ranked.connect(ranked.append)
    seen.parts.nuclei.rank()
    seen.settle()
    (scores,) = ranked
    assert {(score.layer, score.head) for score in scores} == {(layer, head) for layer in (0, 1) for head in range(3)}
    aurocs = [score.auroc for score in scores]
    assert aurocs == sorted(aurocs, reverse=True)
    best = scores[0]
    assert seen.said[-1].startswith(f"Head {best.head + 1} of layer {best.layer + 1} tells nuclei from the rest best")
    for score in scores:
        seen.parts.nuclei.show(score)
        assert seen.wishes.head == str(score.head)
        assert seen.wishes.layer == (LAST_LAYER if score.layer == 1 else 0)
    seen.settle()
    assert len(seen.layers()) == 1


def test_heads_of_the_region_are_ranked_by_where_nuclei_are_dense(seen, half):
    seen.wishes.region_encoder = "tiny-region"
    seen.settle()
    seen.wishes.level = REGION_LEVEL
    seen.settle()
    seen.parts.nuclei.rank()
    seen.settle()
    assert "where nuclei are densest" in seen.said[-1]
    scores = seen.parts.nuclei.scores
    assert len(scores) == 4
    # Whatever is shown meanwhile, a row shows its head.
    seen.wishes.level = PATCHES
    seen.parts.nuclei.show(scores[0])
    assert (seen.wishes.level, seen.wishes.region_head) == (REGION_LEVEL, str(scores[0].head))
    seen.wishes.level = BOTH
    seen.parts.nuclei.show(scores[1])
    assert (seen.wishes.level, seen.wishes.region_head) == (BOTH, str(scores[1].head))


def test_nuclei_are_visited_by_their_attention(seen, nuclei):
    ours = seen.parts.nuclei
    # The first click already goes there.
    ours.go(most=True)
    seen.settle()
    order = ours.measured.ids[np.argsort(-ours.measured.means, kind="stable")]
    places = dict(zip(nuclei.ids.tolist(), nuclei.centroids, strict=True))
    np.testing.assert_allclose(ring(seen), places[order[0]], atol=1.5)
    np.testing.assert_allclose(
        np.array(seen.viewer.scene.camera.center[-2:]) / 0.5, places[order[0]], atol=2,
    )  # fmt: skip
    assert f"Nucleus {order[0]}: number 1 of {DISCS} from the most attended" in seen.said[-1]
    for number, most in ((1, True), (-1, False), (-2, False), (2, True)):
        ours.go(most=most)
        seen.settle()
        np.testing.assert_allclose(ring(seen), places[order[number]], atol=1.5)
    # Another head has another order, from its beginning.
    seen.wishes.head = "1"
    seen.settle()
    again = ours.measured.ids[np.argsort(-ours.measured.means, kind="stable")]
    assert again.tolist() != order.tolist()
    ours.go(most=True)
    seen.settle()
    np.testing.assert_allclose(ring(seen), places[again[0]], atol=1.5)


def test_coloured_nuclei_follow_the_map_until_they_are_switched_off(seen, nuclei):
    ours = seen.parts.nuclei
    ours.colour(on=True)
    seen.settle()
    (layer,) = named(seen, "nuclei by attention")
    values = np.array(layer.data)
    inside = tuple(nuclei.centroids.round().astype(int).T)
    step = HEIGHT / values.shape[0]
    shown = values[(inside[0] / step).astype(int), (inside[1] / step).astype(int)]
    np.testing.assert_allclose(shown, ours.measured.percentiles[np.searchsorted(ours.measured.ids, nuclei.ids)])
    assert np.isnan(values).mean() > 0.5
    assert seen.viewer.layers.index(layer) > seen.viewer.layers.index(seen.layers()[0])
    seen.wishes.head = "1"
    seen.settle()
    (layer,) = named(seen, "nuclei by attention")
    assert not np.array_equal(np.nan_to_num(layer.data), np.nan_to_num(values))
    ours.colour(on=False)
    assert not named(seen, "nuclei by attention")


def test_seeds_lie_where_the_map_is_highest(seen):
    seen.parts.nuclei.seed()
    seen.settle()
    (layer,) = named(seen, "seeds")
    points = np.array(layer.data)
    assert len(points) > 3
    assert f"{len(points):,} seeds" in seen.said[-1]
    shown = seen.heads.shown
    values = shown.values.ravel()[shown.grid.tokens_at(points[:, 0] + 0.5, points[:, 1] + 0.5)]
    assert values.min() >= np.nanpercentile(shown.values, 75)
    slide = seen.controller.display.shelf.now.layer
    np.testing.assert_allclose(layer.data_to_world(points[0]), slide.data_to_world(points[0]))
    layer.data = points[1:]
    assert len(seen.parts.nuclei.seeds) == len(points) - 1
    seen.parts.nuclei.seed()
    seen.settle()
    assert len(named(seen, "seeds")) == 1
    seen.viewer.layers.remove(named(seen, "seeds")[0])
    assert len(seen.parts.nuclei.seeds) == 0


def test_all_of_it_goes_with_the_slide(seen, nuclei):
    ours = seen.parts.nuclei
    ours.rank()
    seen.settle()
    ours.colour(on=True)
    ours.seed()
    seen.settle()
    ours.go(most=True)
    seen.settle()
    ours.rank()
    ours.measure()
    seen.viewer.layers.remove(seen.controller.display.shelf.now.layer)
    seen.settle()
    assert len(seen.viewer.layers) == 0
    assert (ours.scores, ours.measured) == ((), None)


def test_closed_in_the_middle_nothing_is_left(seen, nuclei):
    ours = seen.parts.nuclei
    ours.colour(on=True)
    seen.settle()
    ours.seed()
    ours.rank()
    ours.go(most=True)
    seen.parts.close()
    seen.settle()
    assert not named(seen, "attention")
    assert not named(seen, "seeds")
    assert not named(seen, "nucleus by attention")
