"""How the window moves while a model is taught, how soon the first step is done, and how soon Stop stops.

Run ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/teaching_window.py [--pans 40]``.
As `responsiveness.py`: the gaps of a 10 ms timer during scripted pans, over tissue that has its nuclei, with the Teach
dock open; first while nothing runs, then while the model learns from two regions there.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()  # nor are the user's models


from alias_slide import write_alias_slide
from in_window import FolderEngine, shown
from measuring import compiled, record, table, verdict
from napari_nucleiseg.core.store.regions import AnnotatedRegion
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune
from responsiveness import STALL_MS, pan, row, spin, until_idle

SIDE = 20_000
FIRST_GOAL_S = 2.0
# Level-0 pixels; the slide has 0.5 um/px.
BOXES = (((1000, 700), "teach"), ((1000, 1000), "teach"), ((1000, 1300), "hold out"))
WIDTH = 220


class EndlessEngine(FolderEngine):
    """The engine whose fine-tune goes on until it is stopped."""

    def finetune(self, model, lesson, *, device, trust, ignore_brown=False):
        self.import_training()
        config = FinetuneConfig(
            steps=100_000, patience=100_000, device=device, trust_labels=trust, ignore_brown=ignore_brown
        )
        return finetune(model, lesson, config)


def ready_to_teach(viewer, panel, path):
    """Open the slide, segment a part of it, say what three regions there are for, and open the dock."""
    viewer.open(path, plugin="napari-nucleiseg")
    spin(1)
    viewer.scene.camera.zoom = 2.0
    viewer.scene.camera.center = (580, 480)
    spin(0.5)
    panel.controller.segment_view()
    until_idle(panel)
    panel.session.editing = True
    while panel.controller.editing.project is None:
        spin(0.05)
    for (y, x), role in BOXES:
        corners = ((y, x), (y, x + WIDTH), (y + WIDTH, x + WIDTH), (y + WIDTH, x))
        panel.docks.regions.put(
            AnnotatedRegion(0, "", role, tuple((float(a), float(b)) for a, b in corners), done=True)
        )
        until_idle(panel)
    while len(panel.docks.regions.regions) < len(BOXES):
        spin(0.05)
    panel.docks.show_teach()
    dock, end = panel.docks.widget("Teach"), time.perf_counter() + 60
    while not dock.teach_button.isEnabled():
        spin(0.5)
        panel.controller.teaching.advise()
        if time.perf_counter() > end:
            raise SystemExit(f"it cannot be taught here: {dock.advice.text()}")
    return dock


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pans", type=int, default=40)
    options = parser.parse_args()
    compiled()
    folder = Path(tempfile.mkdtemp())
    path = folder / "slide.svs"
    write_alias_slide(path, SIDE)
    viewer, panel = shown(EndlessEngine(folder))
    dock = ready_to_teach(viewer, panel, path)
    pan(viewer, (500, 300), 4)
    before = pan(viewer, (500, 300), options.pans)
    steps = []
    panel.controller.teaching.stepped.connect(lambda step: steps.append((time.perf_counter(), step.step)))
    began = time.perf_counter()
    dock.teach_button.click()
    while not any(step for _, step in steps) and time.perf_counter() - began < 120:
        spin(0.01)
    first = next(when for when, step in steps if step) - began
    during = pan(viewer, (500, 300), options.pans)
    taught = steps[-1][1]
    began = time.perf_counter()
    panel.controller.teaching.cancel()
    while panel.controller.is_busy:
        spin(0.005)
    stopped = time.perf_counter() - began
    each = (steps[-1][0] - steps[1][0]) / max(steps[-1][1] - 1, 1)
    print(
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {taught} steps of {each:.2f} s meanwhile\n"
    )
    rows = [row("nothing running", before), row("while a model is taught", during)]
    table(("gaps of a 10 ms timer, ms", "p50", "p90", "p99", "max", "CPU of one turn, max", "ticks"), rows)
    verdict(
        "longest stall beyond redrawing, ms", during[0].max() - before[0].max(), STALL_MS, form="{:.0f}", goal="G10"
    )
    verdict("longest turn beyond redrawing, CPU ms", during[1].max() - before[1].max(), STALL_MS, form="{:.0f}")
    verdict("first step after the click, s", first, FIRST_GOAL_S, goal="G10")
    verdict("until Stop has stopped, steps", stopped / each, 1.0)
    viewer.close()
    panel.controller.join()


if __name__ == "__main__":
    record(main)
