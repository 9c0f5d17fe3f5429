"""Corrects nuclei with a real mouse and real keys: a program of its own, so that it can be killed.

``python correcting_process.py SLIDE FOLDER N`` opens the slide, segments it, corrects N nuclei with each tool, leaves
``before.npy`` and ``after.npy`` in FOLDER, prints READY and waits to be killed. With ``--pictures DIR`` it leaves a
picture of the window in the middle of each tool's first gesture.
"""

import sys

import numpy as np
from mouse_parts import FolderEngine, asked, shown

from napari_nucleiseg.core.geometry import Region


def ellipse(centre, radius, n=16):
    turns = np.linspace(0, 2 * np.pi, n)
    return [(centre[0] + radius * np.cos(t), centre[1] + radius * np.sin(t)) for t in turns]


def brush(hand, point):
    hand.drag(point, (point[0] + 14, point[1] + 4), name="brush")


def erase(hand, point):
    hand.drag((point[0], point[1] - 12), (point[0], point[1] + 12), name="erase")


def outline(hand, point):
    hand.key("d")
    hand.drag(*ellipse(point, 11), name="outline")


def propose(hand, point):
    hand.key("d")
    hand.point_at(point)
    hand.run("click", 1)
    hand.settle(0.3)
    if hand.panel.controller.tools.is_proposing:
        hand.run("click", 4)
        hand.spin(0.1)
    hand.picture("propose")
    hand.key("Return")


def split(hand, point):
    hand.drag((point[0] - 16, point[1]), (point[0] + 16, point[1]), name="split")


def join(hand, point):
    hand.run("key", "k")
    hand.spin(0.1)
    split(hand, point)
    hand.run("key", "j")
    hand.spin(0.1)
    hand.drag((point[0], point[1] - 4), (point[0], point[1] + 4), name="join")


def clear(hand, point):
    hand.drag(*ellipse(point, 20), name="clear")


def under_cursor(key, name):
    def press(hand, _point):
        hand.picture(name)
        hand.key(key)

    return press


GESTURES = (
    ("z", under_cursor("y", "approve")),
    ("p", brush),
    ("e", erase),
    ("a", outline),
    ("c", propose),
    ("k", split),
    ("j", join),
    ("shift+d", clear),
    ("z", under_cursor("s", "smooth")),
    ("z", under_cursor("period", "grow")),
    ("z", under_cursor("comma", "shrink")),
    ("z", under_cursor("2", "classify")),
    ("z", under_cursor("d", "delete")),
)


def chosen(project, count):
    """Centroids of `count` nuclei of ordinary size that lie on themselves, spread over the slide."""
    table = project.nuclei_in(Region(0, 0, *project.shape).expand(-40))
    image = project.labels
    sizes = table.areas_um2 / (project.mpp_um.y * project.mpp_um.x)
    points = []
    for row in np.random.default_rng(0).permutation(len(table)):
        y, x = (int(value) for value in table.centroids[row])
        roomy = all((abs(y - other[0]) > 44 or abs(x - other[1]) > 44) for other in points)
        if roomy and 90 < sizes[row] < 3000 and image.read(Region(y, x, 1, 1))[0, 0] == table.ids[row]:
            points.append((y, x))
        if len(points) == count:
            return points
    raise AssertionError(f"only {len(points)} of {count} nuclei can be corrected on this slide")


def main():
    options = asked(__doc__).parse_args()
    hand = shown(options, FolderEngine(options.folder), (1400, 900))
    panel = hand.panel
    panel.controller.segment_slide()
    hand.settle(0.5)
    panel.session.editing = True
    hand.settle(0.5)
    project = hand.editing.project
    np.save(options.folder / "before.npy", np.asarray(project.labels.levels[0]))
    points = iter(chosen(project, options.steps * len(GESTURES)))
    for key, gesture in GESTURES:
        for _ in range(options.steps):
            point = next(points)
            hand.go(point)
            hand.point_at(point)
            hand.run("key", key)
            hand.spin(0.1)
            gesture(hand, point)
    np.save(options.folder / "after.npy", np.asarray(project.labels.levels[0]))
    sys.stdout.write(f"READY {len(project.editor.history(10_000))}\n")
    sys.stdout.flush()
    while True:
        hand.spin(1)


if __name__ == "__main__":
    main()
