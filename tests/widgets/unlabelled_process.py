"""Trains without labels with a real mouse and real keys, in a program of its own.

``python unlabelled_process.py SLIDE FOLDER STEPS`` opens the slide and the dock, learns by shape and uses it, then
attention: ticks slides, starts, stops, goes on, uses what came of it, paints attention, and fits it to the view and its
level to the slide. It prints what happened as JSON. With ``--pictures DIR`` it leaves a picture of the window at each
stage, with ``--model FILE`` it begins from that model of attention. The sample is learned from by a network that takes
no time, any other slide by the real one.
"""

import shutil
import time
from pathlib import Path

from mouse_parts import SMALL, FolderEngine, asked, look_closely, shown, tell
from qtpy.QtCore import QPoint

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.weights import read_card
from napari_nucleiseg.core.store.attention import read_attention
from napari_nucleiseg.state import ATTENTION
from unlabelled_parts import TinyEngine

NAME = "Train without labels"
SIDE_UM = 220


class PacedEngine(TinyEngine):
    """Takes as long for a step as a person needs to press Stop."""

    def pretrain(self, config, slides, files, **more):
        enough = more.pop("enough")

        def paced():
            time.sleep(0.3)
            return enough()

        return super().pretrain(config, slides, files, enough=paced, **more)


def tick(hand, dock, place):
    choice = dock.slides.list
    box = choice.visualItemRect(choice.item(place))
    hand.press(choice.viewport(), QPoint(box.left() + 10, box.center().y()))


def learn(hand, dock, until=None):
    """Press Start, and Stop as soon as so many steps are done; return the steps that were seen, and if with a tile."""
    work, steps = dock.unlabelled, []

    def on_step(seen):
        steps.append((seen.step, seen.attention is not None))

    work.stepped.connect(on_step)
    hand.press_only(dock.start_button)
    while work.is_running:
        hand.spin(0.02)
        for step in [step for step, has_tile in steps if has_tile][-1:]:
            hand.picture(f"unlabelled-{step}")
        if until is not None and steps and steps[-1][0] >= until:
            hand.picture("unlabelled-running")
            hand.press_only(dock.stop_button)
            until = None
    work.stepped.disconnect(on_step)
    hand.settle(0.2)
    return steps


def by_shape(hand, dock):
    """Learn what has the shape of a nucleus, as the dock offers it, and take it in hand."""
    hand.type_into(dock.steps, 2)
    said = {"shapes": learn(hand, dock), "by shape": dock.told.text()}
    hand.picture("unlabelled-by-shape")
    hand.press(dock.use_button)
    hand.until(lambda: hand.panel.session.model == "by-shape")
    hand.settle(0.3)
    return said


def train(hand, dock, steps):
    """Untick, be told, tick, learn, stop, go on; return what was seen."""
    hand.picture("unlabelled-empty")
    tick(hand, dock, 0)
    hand.press(dock.start_button)
    said = {"unticked": dock.told.text()}
    tick(hand, dock, 0)
    hand.press(dock.more_button)
    settings = dock._settings
    hand.spin(0.2)
    hand.type_into(settings.controls["measure_every"], max(1, steps // 4))
    hand.type_into(settings.controls["fit_steps"], max(1, steps // 4))
    if hand.pictures:
        settings.grab().save(str(hand.pictures / "unlabelled-more.png"))
    settings.close()
    hand.spin(0.3)
    hand.type_into(dock.steps, steps)
    said["first"] = learn(hand, dock, until=max(1, steps // 2))
    said["stopped"] = dock.told.text()
    hand.picture("unlabelled-stopped")
    said["second"] = learn(hand, dock)
    said["trained"] = dock.told.text()
    hand.picture("unlabelled-trained")
    return said


def use(hand, dock, name):
    """Take it in hand and see where it looks."""
    session = hand.panel.session
    former = session.model
    hand.press(dock.use_button)
    hand.until(lambda: session.model != former)
    hand.settle(0.3)
    if session.heatmap != ATTENTION:
        hand.choose(hand.panel.panel.heatmap, "Attention")
    hand.picture(f"unlabelled-{name}")
    return session.model


def paint(hand):
    """Paint a stroke where it should look; return how many pixels of paint are kept."""
    bar = hand.panel.panel.attention
    hand.press(bar.toggle)
    hand.settle(0.2)
    project = hand.editing.project
    y, x = hand.editing.opened.slide.content.centre
    hand.drag((y, x - 20), (y, x + 20))
    hand.settle(0.3)
    hand.picture("unlabelled-paint")
    painted = read_attention(project, Region(0, 0, *project.shape))
    hand.press(bar.toggle)
    hand.settle(0.3)
    return int((painted > 0).sum())


def fit(hand, dock, button, name):
    """Press one of the buttons that adapt the model, and use what comes of it."""
    hand.press_only(button)
    hand.spin(0.3)
    while dock.unlabelled.is_running:
        hand.spin(0.02)
    hand.settle(0.2)
    told = dock.told.text()
    hand.picture(f"unlabelled-{name}-told")
    return told, use(hand, dock, name)


def main():
    arguments = asked(__doc__)
    arguments.add_argument("--model", type=Path)
    options = arguments.parse_args()
    if options.model:
        kept = options.folder / "data" / "napari-nucleiseg" / "models"
        kept.mkdir(parents=True)
        shutil.copy(options.model, kept / f"{read_card(options.model).name}.safetensors")
    engine = FolderEngine(options.folder)
    hand = shown(options, engine, *([] if options.pictures else [SMALL]))
    panel = hand.panel
    if not Path(options.slide).exists():
        panel.docks.unlabelled.engine = PacedEngine(engine)
    opened = panel.controller.display.shelf.now
    hand.choose_action(panel.panel.correct.more_button, panel.panel.correct.unlabelled_action)
    dock = hand.dock(NAME)
    hand.settle(0.2)
    look_closely(hand.viewer, opened, SIDE_UM)
    hand.settle(0.2)
    if options.model:
        hand.choose(dock.start, dock.start.itemText(1))
    said = {"offered": [dock.slides.list.item(place).text() for place in range(dock.slides.list.count())]}
    if not options.model:
        said |= by_shape(hand, dock)
        hand.choose(dock.network, "Attention, fast")
    said |= train(hand, dock, options.steps)
    said["model"] = use(hand, dock, "used")
    said["nuclei"] = len(opened.project.nuclei_in(opened.slide.region))
    said["heatmap"] = opened.heatmap in hand.viewer.layers and bool(opened.heatmap.visible)
    said["paints"] = panel.panel.attention.isVisible()
    said["painted"] = paint(hand)
    said["fitted"], said["view"] = fit(hand, dock, dock.fit_view_button, "view")
    said["set"], said["level"] = fit(hand, dock, dock.level_button, "level")
    said["kept"] = int((read_attention(opened.project, Region(0, 0, *opened.project.shape)) > 0).sum())
    said["attention"] = panel.session.heatmap == ATTENTION
    tell(hand, said)


if __name__ == "__main__":
    main()
