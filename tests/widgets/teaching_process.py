"""Teaches a model with a real mouse and real keys, in a program of its own.

``python teaching_process.py SLIDE FOLDER STEPS`` opens the slide, segments it, draws three regions, corrects nuclei in
two of them, says that the third is held out, clicks Teach, and goes back to the former model. It prints what happened
as JSON. With ``--pictures DIR`` it leaves a picture of the window at each stage.
"""

from dataclasses import replace

import numpy as np
from correcting_process import brush, outline
from mouse_parts import FolderEngine, asked, look_closely, shown, tell
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QComboBox

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.regions import read_regions
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.viewer.visible import visible_region
from napari_nucleiseg.widgets.region_list import DONE, FOR

GESTURES = {"brush": ("p", brush), "outline": ("a", outline)}
DONE_PX = QPoint(14, 14)


class QuickEngine(FolderEngine):
    """The engine with fewer steps; the certainty is a person's to lower."""

    def __init__(self, folder, steps, certainty):
        super().__init__(folder)
        self.config = FinetuneConfig(steps=steps, validate_every=max(1, steps // 4), threads=1, certainty=certainty)

    def finetune(self, model, lesson, *, device, trust, ignore_brown=False):
        config = replace(self.config, device=device, trust_labels=trust, ignore_brown=ignore_brown)
        return finetune(model, lesson, config, self.folder / "notes")


def draw_region(hand, regions, box):
    hand.press(regions.rectangle_button)
    hand.drag((box.y, box.x), (box.y1, box.x1))
    hand.settle(0.6)


def tick_done(hand, regions, row):
    table = regions.table
    hand.press(table.viewport(), table.visualItemRect(table.item(row, DONE)).topLeft() + DONE_PX)


def hold_out(hand, regions, row):
    choice = regions.table.cellWidget(row, FOR)
    assert isinstance(choice, QComboBox)
    hand.press(choice)
    hand.run("key", "Down")
    hand.run("key", "Return")
    hand.settle(0.4)


def boxes_on(viewer, opened):
    """Three places of the view, level-0 pixels."""
    seen = visible_region(viewer, opened.layer).intersect(opened.slide.region)
    side = int(min(seen.height * 0.42, seen.width * 0.28))
    top = seen.y + (seen.height - 2 * side) // 3
    left, gap = seen.x + seen.width // 20, (seen.width - 3 * side) // 4
    places = ((top, left), (top + side // 2, left + side + gap), (seen.y1 - side - gap, seen.x1 - side - gap))
    return [Region(y, x, side, side) for y, x in places]


def correct(hand, box, count):
    """Widen some nuclei with the brush, outline some new ones."""
    table = hand.editing.project.nuclei_in(box.expand(-30))
    places = table.centroids[np.random.default_rng(0).permutation(len(table))[:count]]
    for number, point in enumerate(places):
        key, gesture = list(GESTURES.values())[number % len(GESTURES)]
        hand.go(point)
        hand.point_at(point)
        hand.run("key", key)
        hand.spin(0.1)
        gesture(hand, point)


def main():
    arguments = asked(__doc__)
    arguments.add_argument("--certainty", type=float, default=FinetuneConfig().certainty)
    arguments.add_argument("--corrections", type=int, default=2)
    options = arguments.parse_args()
    hand = shown(options, QuickEngine(options.folder, options.steps, options.certainty))
    viewer, panel = hand.viewer, hand.panel
    opened = panel.controller.display.shelf.now
    look_closely(viewer, opened)
    panel.controller.segment_view()
    hand.settle(0.5)
    panel.session.editing = True
    hand.settle(0.5)
    hand.press(panel.panel.correct.regions_button)
    regions = hand.dock("Regions")
    look_closely(viewer, opened)
    hand.settle(0.5)
    boxes = boxes_on(viewer, opened)
    for box in boxes:
        draw_region(hand, regions, box)
    for box in boxes[:2]:
        correct(hand, box, options.corrections)
    for row in range(3):
        tick_done(hand, regions, row)
    hold_out(hand, regions, 2)
    look_closely(viewer, opened)
    hand.settle(0.5)
    hand.picture("teach-regions")
    kept = read_regions(hand.editing.project.ledger.reader)
    said = teach(hand, panel)
    said |= {"roles": [region.role for region in kept], "done": [region.done for region in kept]}
    tell(hand, said)


def teach(hand, panel):
    """Click Teach, wait, take what comes, go back; return what was seen."""
    teaching, steps = panel.controller.teaching, []
    teaching.stepped.connect(lambda step: steps.append((step.step, step.measured is not None)))
    hand.press(panel.panel.correct.teach_button)
    dock = hand.dock("Teach")
    hand.settle(1.0)
    hand.picture("teach-advice")
    said = {"advice": dock.advice.text(), "former": panel.session.model}
    hand.press_only(dock.teach_button)
    while teaching.is_running:
        hand.spin(0.05)
        if len(steps) > 2 * engine_steps(panel) // 3:
            hand.picture("teach-curve")
    hand.settle(1.0)
    hand.picture("teach-verdict")
    said |= {"steps": steps, "verdict": dock.verdict.text(), "adopted": teaching.last.outcome.adopted}
    if not said["adopted"]:
        hand.press(dock.take_button)
        hand.settle(1.0)
    said["taken"] = panel.session.model
    hand.press(dock.back_button)
    hand.settle(1.0)
    return said | {"back": panel.session.model}


def engine_steps(panel):
    return panel.controller._engine.config.steps


if __name__ == "__main__":
    main()
