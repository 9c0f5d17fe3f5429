"""A person trains a model without labels, stops, goes on, uses it, paints, and fits it: with a real mouse."""

import os

from mouse_parts import NEEDS_A_MOUSE, told_by

pytestmark = NEEDS_A_MOUSE

STEPS = int(os.environ.get("NUCLEISEG_UNLABELLED_STEPS", "4"))


def test_trained_without_labels_by_mouse(tmp_path):
    said = told_by("unlabelled_process.py", tmp_path, "UNLABELLED")
    assert len(said["offered"]) == 1
    # The first method is that by shape: two steps, and it is used.
    assert [step for step, _ in said["shapes"]] == [1, 2]
    assert "All 2 steps are done" in said["by shape"]
    assert said["unticked"] == "Tick at least one slide to learn from."
    # Stopped in the middle, it goes on from there, and shows a tile on both sides.
    last = said["first"][-1][0]
    assert STEPS // 2 <= last < STEPS
    assert [step for step, _ in said["first"] + said["second"]] == list(range(1, STEPS + 1))
    assert any(tile for _, tile in said["first"])
    assert any(tile for _, tile in said["second"])
    assert f"Stopped after {last:,} of {STEPS:,} steps" in said["stopped"]
    assert f"All {STEPS:,} steps are done" in said["trained"]
    # Used, it shows nuclei and attention, which can be painted on.
    assert said["nuclei"] > 0
    assert said["heatmap"]
    assert said["paints"]
    # Fitted to the view and the slide it is another model each time, and the paint is still there.
    assert len({said["model"], said["view"], said["level"]}) == 3
    assert "The model is adapted" in said["fitted"]
    assert "The model is adapted" in said["set"]
    assert said["kept"] == said["painted"] > 0
    assert said["attention"]
