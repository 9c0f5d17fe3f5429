# ruff: noqa: INP001, T201 - a script, no package; it says what it has made
"""Makes pictures of these pages anew, in a real window on the samples: all that need no more than the program.

``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/pictures.py [NAME ...]`` writes ``docs/images/NAME.png``; without
names all of `PICTURES`. Some others are made elsewhere: `demo` by ``python3 dev.py demo --screenshot``, `zoo` by
``benchmarks/zoo.py report --write``, `models-dock` and `find-the-like` by ``--pictures`` of
``benchmarks/models_window.py`` and ``like_window.py``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = Path(__file__).resolve().parent / "images"
# What is shown of a window of 1,500 px: the panel, and the slide beside it.
RIGHT_PX = 1040
# Places of the tissue picture, pixels (y, x): a nucleus that the model misses, and some that it finds.
MISSED, FOUND = (391.0, 228.0), (283.0, 300.0)
# Of the regions on it, pixels.
SIDE = 160


class Person:
    """Somebody with a mouse in front of a window; points are pixels ``(y, x)`` of the slide."""

    def __init__(self, window: Any) -> None:
        self.viewer, self.panel = window.viewer, window.panel
        self.session = self.panel.session
        self.canvas = self.viewer.window._qt_viewer.canvas.native  # noqa: SLF001 - napari has no other way

    def wait(self, seconds: float = 0.3) -> None:
        """Let the window work for a while, and until nothing is under way."""
        self.until(lambda: False, seconds)
        self.until(lambda: not (self.panel.controller.is_running or self.panel.controller.is_busy))

    def until(self, is_so: Callable[[], bool], seconds: float = 900.0) -> None:
        """Let the window work until something is so, at most for a while."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end and not is_so():
            QApplication.processEvents()
            time.sleep(0.01)

    def send(self, kind: str, point: Sequence[float], *, pressed: bool) -> None:
        """Tell the canvas what the mouse does at a point."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        camera, (height, width) = self.viewer.scene.camera, self.viewer.canvas.size
        layer = self.panel.controller.editing.opened.layer
        world = np.asarray(layer.data_to_world(point))[-2:] - np.asarray(camera.center[-2:])
        y, x = world * camera.zoom + (height / 2, width / 2)
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        event = QMouseEvent(
            getattr(QEvent.Type, kind),
            QPointF(x, y),
            self.canvas.mapToGlobal(QPointF(x, y)),
            none if kind == "MouseMove" else left,
            left if pressed else none,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)
        self.wait(0.03)

    def drag(self, *points: Sequence[float], let_go: bool) -> None:
        """Drag along points; the button stays down unless it is let go."""
        self.send("MouseMove", points[0], pressed=False)
        self.send("MouseButtonPress", points[0], pressed=True)
        for start, end in itertools.pairwise(points):
            for part in np.linspace(0, 1, 9)[1:]:
                self.send("MouseMove", np.add(start, part * np.subtract(end, start)), pressed=True)
        if let_go:
            self.send("MouseButtonRelease", points[-1], pressed=False)
        self.wait()

    def key(self, name: str, point: Sequence[float]) -> None:
        """Press a key with the mouse over a point."""
        from qtpy.QtTest import QTest

        self.send("MouseMove", point, pressed=False)
        QTest.keyClick(self.canvas, name)
        self.wait()


def ring(centre: Sequence[float], radius: float, until: float = 1.0) -> list[tuple[float, float]]:
    """Return points around a place, over a share of the way."""
    angles = np.linspace(0, 2 * np.pi * until, 24)
    return [(centre[0] + radius * np.sin(angle), centre[1] + radius * np.cos(angle)) for angle in angles]


def light(window: Any, *, zoomed_out: bool) -> None:
    """Show the synthetic slide in the light theme, near, or from far away when some of it is done."""
    window.viewer.theme = "light"
    window.viewer.open_sample("napari-nucleiseg", "synthetic")
    person = Person(window)
    person.wait(1.0)
    whole = window.viewer.scene.camera.zoom
    window.viewer.scene.camera.zoom = 4.0
    window.follow()
    person.wait(1.0)
    if zoomed_out:
        window.viewer.scene.camera.zoom = whole


def heatmap(window: Any) -> None:
    """Show what the model says of the tissue picture below the outlines."""
    person = segmented(window)
    window.viewer.scene.camera.zoom *= 2
    person.session.heatmap = "nuclei"
    person.wait(1.0)


def without_labels(window: Any) -> None:
    """Show the dock after a short run on the synthetic slide."""
    window.viewer.open_sample("napari-nucleiseg", "synthetic")
    person = Person(window)
    person.wait(1.0)
    window.viewer.scene.camera.zoom = 2.0
    docks = window.panel.docks
    docks.show_unlabelled()
    person.wait(1.0)
    docks.unlabelled.wishes.steps, docks.unlabelled.wishes.measure_every = 160, 20
    docks.unlabelled.train()
    person.until(lambda: not docks.unlabelled.is_running)


def annotated(window: Any) -> Person:
    """Show three regions of the tissue picture, whose nuclei were found without its brown and are approved."""
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.store.regions import AnnotatedRegion

    person = segmented(window)
    editing = window.panel.controller.editing
    window.panel.controller.session.editing = True
    person.wait(1.0)
    for y, x, role in ((50, 20, "teach"), (330, 60, "teach"), (330, 300, "hold out")):
        editing.approve(editing.project.nuclei_in(Region(y, x, SIDE, SIDE)).ids.tolist())
        person.wait()
        corners = tuple((float(a), float(b)) for a, b in ((y, x), (y, x + SIDE), (y + SIDE, x + SIDE), (y + SIDE, x)))
        window.panel.docks.regions.put(AnnotatedRegion(0, "", role, corners, complete=False, done=True))
        person.wait()
    window.panel.docks.show_regions()
    person.wait(1.0)
    window.viewer.reset_view()
    person.wait(1.0)
    return person


def lesson(window: Any, *, points: int = 0) -> Person:
    """Teach a model that sees the brown what was found without it, to the end or to some points of the curve."""
    person = annotated(window)
    docks, teaching = window.panel.docks, window.panel.controller.teaching
    person.session.editing = False
    person.session.ignore_brown = False
    person.wait(1.0)
    docks.show_teach()
    person.wait(1.0)
    teaching.teach()
    curve = docks.widget("Teach").curve
    if points:
        person.until(lambda: sum(len(run.scores) for run in curve.runs) >= points)
    else:
        person.until(lambda: not teaching.is_running)
        person.wait(2.0)
    return person


def versions(window: Any) -> None:
    """Compare the taught model with the former one."""
    from qtpy.QtCore import Qt

    person = lesson(window)
    window.panel.docks.show_versions()
    person.wait(1.0)
    listed = window.panel.docks.widget("Versions")
    (former,) = listed.tree.findItems("Nuclei in H&E", Qt.MatchFlag.MatchRecursive)
    listed.tree.setCurrentItem(former)
    listed.compare_button.click()
    person.wait(1.0)


def proposed(window: Any) -> None:
    """Ask where correcting helps most."""
    person = segmented(window)
    window.panel.docks.show_teach()
    person.wait(1.0)
    window.panel.docks.next_region.next()
    person.wait(1.0)


def heads(window: Any, *, ranked: bool) -> None:
    """Look at the tissue picture with every head, or rank them against its nuclei."""
    person = segmented(window)
    window.viewer.scene.camera.zoom *= 1.5
    docks = window.panel.docks
    docks.show_heads()
    person.wait(1.0)
    docks.heads.look()
    person.wait(1.0)
    if ranked:
        dock = docks.widget("Attention heads")
        dock.tabs.setCurrentWidget(dock.ranking)
        dock.ranking.rank_button.click()
        person.wait(1.0)


def plotted(window: Any) -> None:
    """Select large, dark nuclei of the synthetic slide with the lasso."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    window.viewer.open_sample("napari-nucleiseg", "synthetic")
    person = Person(window)
    person.wait(1.0)
    window.viewer.scene.camera.zoom = 0.9
    window.panel.controller.segment_view()
    person.wait(1.0)
    docks = window.panel.docks
    docks.show_plots()
    person.wait(1.0)
    docks.plots.wishes.plot, docks.plots.wishes.up = "scatter", "haematoxylin_mean"
    person.wait(1.0)
    canvas = docks.widget("Measurements").canvas
    across, up = canvas.pixels(np.array([52.0, 58.0, 80.0, 80.0, 66.0]), np.array([0.36, 0.42, 0.42, 0.33, 0.31]))
    corners = [QPoint(round(x), round(y)) for x, y in zip(across, up, strict=True)]
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(canvas, left, none, corners[0])
    for one, other in itertools.pairwise([*corners, corners[0]]):
        for part in np.linspace(0, 1, 6)[1:]:
            QTest.mouseMove(canvas, one + (other - one) * float(part))
            person.until(lambda: False, 0.03)
    QTest.mouseRelease(canvas, left, none, corners[0])
    person.wait(1.0)


def clustered(window: Any) -> None:
    """Cluster what is seen of the synthetic slide."""
    window.viewer.open_sample("napari-nucleiseg", "synthetic")
    person = Person(window)
    person.wait(1.0)
    window.viewer.scene.camera.zoom = 3.0
    docks = window.panel.docks
    docks.show_cluster()
    person.wait(1.0)
    docks.widget("Cluster the view").view_button.click()
    person.wait(1.0)
    person.until(lambda: not docks.clustering.is_running)
    person.wait(1.0)


def stack_of_nuclei(count: int = 90) -> tuple[Any, Any]:
    """Return a stack ``(z, y, x)`` uint8 of blurred ellipsoids with noise, and their labels int32."""
    from scipy import ndimage

    chance, shape = np.random.default_rng(3), (24, 160, 160)
    labels, grid = np.zeros(shape, np.int32), np.stack(np.indices(shape), -1)
    while labels.max() < count:
        middle, radii = chance.uniform(3, np.array(shape) - 3), chance.uniform((3, 6, 6), (4, 10, 10))
        body = (((grid - middle) / radii) ** 2).sum(-1) < 1
        if not ndimage.binary_dilation(body)[labels > 0].any():
            labels[body] = labels.max() + 1
    light = chance.uniform(90, 190, count + 1)[labels] * (labels > 0) + 18
    image = ndimage.gaussian_filter(light, (0.7, 1.2, 1.2)) + chance.normal(0, 7, shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def stack_taught(window: Any) -> None:
    """Learn a first model from planes that were drawn, in fewer steps than are the default, and find nuclei with it."""
    from dataclasses import replace

    from napari_nucleiseg.core.teaching.stacks.teach import LEARNING

    image, truth = stack_of_nuclei()
    window.viewer.add_image(image, name="cells", scale=(1.0, 0.5, 0.5), units="um", axis_labels=("z", "y", "x"))
    _holder, dock = window.viewer.window.add_plugin_dock_widget("napari-nucleiseg", "Nuclei in a stack", tabify=True)
    person = Person(window)
    person.wait(1.0)
    dock.stacks.engine.settings = replace(LEARNING, steps=240, crop_px=32, learning_rate=4e-3, ema=0.92)
    dock.teach.draw_button.click()
    person.wait()
    drawn, planes = window.viewer.layers["cells nuclei"], (4, 8, 12, 16, 20)
    for plane in planes:
        drawn.data[plane] = truth[plane]
        window.viewer.dims.set_point(0, float(plane))
        dock.teach.add_button.click()
        person.wait()
    window.viewer.dims.set_point(0, 12.0)
    window.viewer.reset_view()
    person.wait(1.0)
    dock.teach.teach_button.click()
    person.until(lambda: not dock.teaching.is_running)
    person.wait(2.0)


def segmented(window: Any) -> Person:
    """Open the tissue picture and find its nuclei."""
    window.viewer.open_sample("napari-nucleiseg", "tissue")
    person = Person(window)
    person.session.ignore_brown = True
    person.wait(1.0)
    window.panel.controller.segment_view()
    person.wait(1.0)
    return person


def correcting(window: Any, tool: str, act: Callable[[Person], None], place: Sequence[float] = FOUND) -> None:
    """Correct nuclei of the tissue picture with a tool."""
    person = segmented(window)
    layer = window.panel.controller.display.shelf.now.layer
    window.viewer.scene.camera.center = tuple(layer.data_to_world(place))[-2:]
    window.viewer.scene.camera.zoom *= 3
    person.session.editing = True
    person.wait(1.0)
    person.session.tool = tool
    act(person)


def around(person: Person, place: Sequence[float], most_px: float = 30.0) -> list[tuple[float, float]]:
    """Return centroids of the nuclei around a place, the largest first."""
    from napari_nucleiseg.core.geometry import Region

    project = person.panel.controller.editing.project
    table = project.nuclei_in(Region(0, 0, *project.shape))
    near = np.abs(table.centroids - place).max(1) < most_px
    order = np.argsort(-table.areas_um2[near], kind="stable")
    return [(float(y), float(x)) for y, x in table.centroids[near][order]]


def propose(person: Person) -> None:
    """Delete a nucleus, and have one proposed there."""
    place = around(person, FOUND)[0]
    person.key("D", place)
    person.drag(place, let_go=True)


def split(person: Person) -> None:
    """Begin to cut a nucleus."""
    y, x = around(person, FOUND)[0]
    person.drag((y - 12, x - 2), (y, x), (y + 12, x + 2), let_go=False)


def classify(person: Person) -> None:
    """Give the nuclei around the middle a class, two of them another one."""
    for number, place in enumerate(around(person, FOUND)):
        person.key("1" if number in {1, 4} else "3", place)


OF_GREYS = ("without-labels",)
PICTURES: dict[str, Callable[[Any], None]] = {
    "light": partial(light, zoomed_out=False),
    "zoomed-out-light": partial(light, zoomed_out=True),
    "heatmap": heatmap,
    "without-labels": without_labels,
    "teach-regions": annotated,
    "teach-curve": partial(lesson, points=3),
    "teach-verdict": lesson,
    "teach-versions": versions,
    "teach-propose": proposed,
    "heads-dock": partial(heads, ranked=False),
    "heads-ranking": partial(heads, ranked=True),
    "plots": plotted,
    "cluster": clustered,
    "stack-teach": stack_taught,
    "correct-outline": partial(
        correcting, tool="add", place=MISSED, act=lambda person: person.drag(*ring(MISSED, 4), let_go=False)
    ),
    "correct-propose": partial(correcting, tool="propose", act=propose),
    "correct-split": partial(correcting, tool="split", act=split),
    "correct-clear": partial(
        correcting, tool="lasso", act=lambda person: person.drag(*ring(FOUND, 26, 0.9), let_go=False)
    ),
    "correct-classify": partial(correcting, tool="pick", act=classify),
}


def main() -> None:
    """Make the pictures that are named, each in a window of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--out", type=Path, default=IMAGES)
    wanted = parser.parse_args()
    os.environ["NAPARI_CONFIG"] = ""  # no settings of the user; must be so before napari is imported
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted.names or PICTURES:
            # Nor results or models of the user's, or of the picture before.
            os.environ["XDG_CACHE_HOME"] = os.environ["XDG_DATA_HOME"] = f"{folder}/{name}"
            make(name, wanted.out)


def make(name: str, out: Path) -> None:
    """Make one picture."""
    from PIL import Image

    from napari_nucleiseg.cli.window import open_window

    window = open_window()
    PICTURES[name](window)
    Person(window).until(lambda: False, 1.5)
    picture = window.viewer.window.screenshot(flash=False, canvas_only=False)[..., :3]
    if name.startswith("correct-"):
        picture = picture[:, -RIGHT_PX:]
    # In 255 colours it takes a third of the room; one way keeps thin lines, the other greys.
    method = Image.Quantize.MEDIANCUT if name in OF_GREYS else Image.Quantize.MAXCOVERAGE
    Image.fromarray(picture).quantize(255, method, dither=Image.Dither.NONE).save(out / f"{name}.png", optimize=True)
    print(f"{name}.png")
    teaching = window.panel.controller.teaching
    teaching.cancel()  # a window that still teaches asks before it closes
    Person(window).until(lambda: not teaching.is_running)
    window.viewer.close()


if __name__ == "__main__":
    main()
