"""Looks at heads with a real mouse and real keys, in a program of its own.

``python heads_process.py SLIDE FOLDER STEPS`` opens the slide and the dock, looks at the view, points at both sides,
picks heads and pairs, pins, asks a token, ranks heads against nuclei, visits nuclei, paints and teaches. It prints
what happened as JSON. With ``--pictures DIR`` it leaves a picture of the window at each stage, with ``--model FILE``
it looks with that encoder of patches, else with one of random weights.
"""

import shutil
from pathlib import Path

import numpy as np
from mouse_parts import FolderEngine, asked, look_closely, shown, tell

from heads_parts import write_encoder
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import own_encoders_folder
from napari_nucleiseg.core.models.weights import read_card
from napari_nucleiseg.core.store.attention import read_attention

NAME = "Attention heads"
SIDE_UM = 280
PATCH = {"embed": 48, "depth": 2, "heads": 4}
REGION = {"features": 48, "embed": 24, "depth": 2, "heads": 2}


def layer_of(hand):
    """The map that is shown."""
    (found,) = [
        layer
        for layer in hand.viewer.layers
        if layer.metadata.get("nucleiseg_role") == "attention heads" and "(pinned)" not in layer.name
    ]
    return found


def tab(hand, dock, place):
    hand.press(dock.tabs.tabBar(), dock.tabs.tabBar().tabRect(place).center())


def prepare(options):
    """Have encoders among the user's own; return the name of the one to look with."""
    if options.model:
        own_encoders_folder().mkdir(parents=True)
        name = read_card(options.model).name
        shutil.copy(options.model, own_encoders_folder() / f"{name}.safetensors")
        return name
    write_encoder("tiny", params=PATCH)
    write_encoder("tiny-region", "hipt-4k", REGION, seed=2)
    return "tiny"


def look(hand, dock, name):
    """Choose, look, point on both sides, pick a head."""
    hand.choose(dock.encoder, name)
    if dock.region_encoder.count() > 1:
        hand.choose(dock.region_encoder, dock.region_encoder.itemText(1))
    hand.press_only(dock.look_button)
    hand.until(lambda: bool(dock.heads.looks and dock.heads.looks.is_whole), 300)
    hand.settle(0.5)
    plan = dock.heads.looks.looking.plans[0]
    said = {"patches": plan.rows * plan.columns, "gallery": list(dock.gallery.names), "layer": layer_of(hand).name}
    hand.picture("heads-looked")
    centre = plan.region.intersect(dock.heads.opened.slide.region).centre
    hand.point_at(centre)
    hand.point_at(np.add(centre, 3))
    hand.spin(0.2)
    said["cross"] = dock.gallery._cross is not None
    hand.picture("heads-crosses")
    hand.point_to(dock.gallery, dock.gallery.frames()["1"].center())
    said["ring"] = any(layer.metadata.get("nucleiseg_role") == "marker" for layer in hand.viewer.layers)
    hand.picture("heads-ring")
    hand.press(dock.gallery, dock.gallery.frames()["1"].center())
    said["picked"] = [dock.head.currentText(), layer_of(hand).name]
    return said


def compose(hand, dock):
    """Both levels, a pair, and a pin."""
    hand.choose(dock.level, "Both")
    hand.settle(0.3)
    pair = dock.gallery.names[-1]
    hand.press(dock.gallery, dock.gallery.frames()[pair].center())
    said = {"pair": [pair, f"{dock.heads.wishes.head},{dock.heads.wishes.region_head}"]}
    hand.picture("heads-both")
    hand.press(dock.pin_button)
    tab(hand, dock, 1)
    hand.press(dock.pinned, dock.pinned.frames()["0"].center())
    said["pinned"] = [dock.tabs.tabText(1), bool(dock.heads.pins[0].layer.visible)]
    hand.picture("heads-pinned")
    hand.press(dock.unpin_button)
    hand.choose(dock.level, "Patches")
    tab(hand, dock, 0)
    return said


def ask(hand, dock):
    """Ask a token by a click, and end with Escape."""
    hand.press(dock.ask_button)
    whole = layer_of(hand).data.shape
    hand.point_at(dock.heads.opened.slide.content.centre)
    hand.run("click", 1)
    hand.settle(0.5)
    said = {"asked": [list(whole), list(layer_of(hand).data.shape), layer_of(hand).name]}
    hand.picture("heads-token")
    hand.key("Escape")
    said["escaped"] = [dock.ask_button.isChecked(), list(layer_of(hand).data.shape)]
    return said


def rank(hand, dock):
    """Segment, rank, show a row, colour, visit, seed."""
    tab(hand, dock, 2)
    hand.press(dock.ranking.rank_button)
    said = {"unranked": dock.hint.text()}
    hand.press_only(hand.panel.panel.view_button)
    hand.settle(1.0)
    hand.press(dock.ranking.rank_button)
    hand.settle(0.3)
    table = dock.ranking.table
    said["ranked"], said["rows"] = dock.hint.text(), table.rowCount()
    hand.press(table.viewport(), table.visualItemRect(table.item(0, 1)).center())
    said["row"] = [table.item(0, 1).text(), layer_of(hand).name]
    hand.picture("heads-ranked")
    hand.press(dock.ranking.colour_button)
    hand.settle(0.5)
    said["coloured"] = any("nuclei by attention" in layer.name for layer in hand.viewer.layers)
    hand.picture("heads-coloured")
    hand.press(dock.ranking.most_button)
    hand.settle(0.5)
    said["most"] = dock.hint.text()
    hand.picture("heads-most")
    hand.press(dock.ranking.colour_button)
    hand.press(dock.ranking.seed_button)
    said["seeds"] = dock.hint.text()
    hand.picture("heads-seeds")
    return said


def teach(hand, dock, steps):
    """Paint strokes where the head should look, and teach it."""
    tab(hand, dock, 3)
    hand.press(dock.teaching.teach_button)
    hand.settle(0.5)
    said = {"unpainted": dock.hint.text()}
    hand.press(dock.teaching.paint_button)
    hand.settle(0.3)
    opened = dock.heads.opened
    y, x = hand.viewer.scene.camera.center[-2:] / np.array(opened.layer.scale[-2:])
    for place in range(steps):
        hand.drag((y + 15 * place, x - 20), (y + 15 * place, x + 20))
    hand.settle(0.3)
    hand.picture("heads-painted")
    said["painted"] = int((read_attention(opened.project, Region(0, 0, *opened.project.shape)) > 0).sum())
    hand.press(dock.teaching.paint_button)
    hand.press_only(dock.teaching.teach_button)
    hand.until(lambda: not hand.panel.docks.head_parts.teaching.is_running, 600)
    hand.settle(0.3)
    said["taught"] = [dock.hint.text(), dock.teaching.text.text()]
    hand.picture("heads-taught")
    return said


def main():
    arguments = asked(__doc__)
    arguments.add_argument("--model", type=Path)
    options = arguments.parse_args()
    name = prepare(options)
    hand = shown(options, FolderEngine(options.folder))
    opened = hand.panel.controller.display.shelf.now
    hand.press(hand.panel.panel.heads_button)
    dock = hand.dock(NAME)
    hand.settle(0.3)
    look_closely(hand.viewer, opened, SIDE_UM)
    hand.settle(0.2)
    hand.picture("heads-empty")
    said = look(hand, dock, name)
    if dock.region_encoder.count() > 1:
        said |= compose(hand, dock)
    said |= ask(hand, dock)
    said |= rank(hand, dock)
    said |= teach(hand, dock, options.steps)
    tell(hand, said)


if __name__ == "__main__":
    main()
