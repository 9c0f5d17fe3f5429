"""Clusters what is in view with a real mouse and real keys, in a program of its own.

``python cluster_process.py SLIDE FOLDER STEPS`` opens the slide and the dock, clusters a rectangle and stops, clusters
the view, points at clusters, ticks them, makes nuclei of them, keeps the network and segments a neighbouring view with
it. It prints what happened as JSON. With ``--pictures DIR`` it leaves a picture of the window at each stage. The sample
is clustered by a network that takes no time, any other slide by the default one.
"""

import threading
import time
from pathlib import Path

import numpy as np
from mouse_parts import SMALL, FolderEngine, asked, look_closely, shown, tell
from qtpy.QtCore import QPoint

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.cluster_engine import ClusterEngine
from napari_nucleiseg.viewer.visible import visible_region

NAME = "Cluster the view"
QUICK = {"width": 8, "fit_side": 64}
SIDE_UM = 130


class PacedEngine(ClusterEngine):
    """Takes as long for a step as a person needs to see it, and waits while Stop is being pressed."""

    may_go = threading.Event()
    may_go.set()

    def fit(self, picture, config, enough):
        for step in super().fit(picture, config, enough):
            yield step
            time.sleep(0.3)
            self.may_go.wait(60)


def fit(hand, dock, button, *, until=None, name=""):
    """Press a button, watch the maps, and press Stop after so many steps; return the steps and the maps that differ."""
    clustering, steps, maps = dock.clustering, {}, set()

    def on_progress(progress):
        if progress.total:
            steps[progress.done] = progress.clusters

    clustering.progress_changed.connect(on_progress)
    hand.press_only(button)
    while clustering.is_running:
        hand.spin(0.02)
        layers = [layer for layer in hand.viewer.layers if layer.name.endswith("clusters")]
        maps |= {hash(np.asarray(layer.data).tobytes()) for layer in layers}
        if maps:
            hand.picture(f"cluster-{name}-step-{max(steps)}")
        if until is not None and steps and max(steps) >= until:
            PacedEngine.may_go.clear()
            hand.press_only(dock.stop_button)
            PacedEngine.may_go.set()
            until = None
    clustering.progress_changed.disconnect(on_progress)
    hand.settle(0.2)
    hand.picture(f"cluster-{name}")
    told = {"hint": dock.hint.text(), "rows": len(dock.list.items())}
    return {"steps": list(steps.items()), "maps": len(maps), **told}


def place_of(dock, row):
    return dock.list.visualItemRect(dock.list.topLevelItem(row))


def draw(hand, dock, box):
    """Be told that a rectangle is wanted, and draw it."""
    hand.press(dock.shape_button)
    told = dock.hint.text()
    hand.drag((box.y, box.x), (box.y1, box.x1))
    hand.settle(0.3)
    return told


def choose(hand, dock):
    """Point at the first and the last row, and tick and untick one; return what was ticked each time."""
    clustering = dock.clustering
    ticked = [sorted(clustering.chosen)]
    for row in (0, len(dock.list.items()) - 1):
        dock.list.scrollToItem(dock.list.topLevelItem(row))
        hand.point_to(dock.list.viewport(), place_of(dock, row).center())
        hand.picture(f"cluster-pointed-{row}")
    for _ in range(2):
        box = place_of(dock, len(dock.list.items()) - 1)
        hand.press(dock.list.viewport(), QPoint(box.left() + 10, box.center().y()))
        ticked.append(sorted(clustering.chosen))
    dock.list.scrollToTop()
    return ticked


def main():
    options = asked(__doc__).parse_args()
    hand = shown(options, FolderEngine(options.folder), *([] if options.pictures else [SMALL]))
    viewer, panel = hand.viewer, hand.panel
    opened = panel.controller.display.shelf.now
    hand.choose_action(panel.panel.correct.more_button, panel.panel.correct.cluster_action)
    dock = hand.dock(NAME)
    hand.settle(0.2)
    look_closely(viewer, opened, SIDE_UM)
    hand.settle(0.2)
    hand.picture("cluster-empty")
    if not Path(options.slide).exists():
        panel.docks.clustering.engine = PacedEngine()
        hand.press(dock.form.more_button)
        hand.picture("cluster-more")
        for name, value in QUICK.items():
            hand.type_into(dock.form.boxes[name], value)
        hand.press(dock.form.more_button)
        hand.type_into(dock.form.boxes["min_clusters"], 2)
    hand.type_into(dock.form.boxes["iterations"], options.steps)
    seen = visible_region(viewer, opened.layer).intersect(opened.slide.region)
    middle = seen.expand(-seen.height // 4)
    said = {"wants": draw(hand, dock, middle)}
    said["shape"] = fit(hand, dock, dock.shape_button, until=1, name="shape")
    viewer.layers.selection.active = opened.layer
    said["view"] = fit(hand, dock, dock.view_button, name="view")
    said["ticked"] = choose(hand, dock)
    hand.press(dock.nuclei_button)
    hand.settle(0.3)
    run = {"made": dock.hint.text(), "nuclei": len(opened.project.nuclei_in(opened.slide.region))}
    run["origins"] = sorted({name.partition("@")[0] for name in opened.project.nuclei_in(opened.slide.region).origins})
    run["counted"] = panel.panel.count.text()
    hand.picture("cluster-nuclei")
    said |= run
    hand.press(dock.model_button)
    hand.until(lambda: panel.session.model.endswith("-clusters"))
    hand.settle(0.3)
    said |= {"model": panel.session.model, "kept": dock.hint.text()}
    said["beside"] = segment_beside(hand, opened, seen)
    tell(hand, said)


def segment_beside(hand, opened, seen):
    """Move on by a view and segment it with what was kept; return how many nuclei are there, and whose they are."""
    side = Region(seen.y, min(seen.x1, opened.slide.region.x1 - seen.width // 2), seen.height, seen.width)
    hand.viewer.scene.camera.center = tuple(opened.layer.data_to_world(side.centre))[-2:]
    hand.settle(0.2)
    hand.press(hand.panel.panel.view_button)
    hand.settle(0.3)
    hand.picture("cluster-beside")
    nuclei = opened.project.nuclei_in(side.intersect(opened.slide.region))
    return {"nuclei": len(nuclei), "origins": sorted({name.partition("@")[0] for name in nuclei.origins})}


if __name__ == "__main__":
    main()
