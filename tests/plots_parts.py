"""Plots without a window, and an engine that counts what it measures and can be held."""

import threading
from dataclasses import replace

import numpy as np

from dark_model import DarkEngine
from napari_nucleiseg.core.exchange.source import Column, rows_of
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.plot_acts import PlotActs
from napari_nucleiseg.viewer.plot_layers import PlotLayers
from napari_nucleiseg.viewer.plots import Plots
from napari_nucleiseg.viewer.plots_engine import PlotsEngine
from napari_nucleiseg.viewer.regions import Regions

ROLE = "nucleiseg_role"


class HeldPlots(PlotsEngine):
    """The real engine; notes what it was asked to measure, and waits after each block while a test holds it."""

    def __init__(self):
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure = None
        self.in_halves = False

    def measure(self, project, slide, region, cancelled):
        self.asked.append(region)
        if self.failure is not None:
            raise self.failure
        for block in super().measure(project, slide, region, cancelled):
            for part in halves(block) if self.in_halves else (block,):
                yield part
                assert self.gate.wait(60), "nobody opened the gate"
                if cancelled():
                    return


def halves(block):
    """The nuclei of a block in two parts, as if they lay in two blocks."""
    middle = len(block.table) // 2
    for done, rows in enumerate((slice(0, middle), slice(middle, None)), start=1):
        values = {name: column[rows] for name, column in block.values.items()}
        yield replace(block, table=rows_of(block.table, rows), values=values, done=done, total=2)


class WindowlessPlots:
    """Plots of a viewer without a window; a test takes their answers from `pump`."""

    def __init__(self, viewer, pump, folder):
        self.viewer, self.pump = viewer, pump
        self.controller = Controller(viewer, Session(), DarkEngine(folder), pump.jobs)
        self.controller.start()
        self.editing = self.controller.editing
        self.regions = Regions(self.editing, self.controller.display)
        self.engine = HeldPlots()
        self.plots = Plots(self.editing, self.controller.display, self.regions, self.engine)
        self.layers, self.acts = PlotLayers(self.plots), PlotActs(self.plots)
        self.wishes = self.plots.wishes
        self.said, self.progress = [], []
        self.plots.said.connect(lambda hint: self.said.append(hint.text))
        self.plots.long_work.changed.connect(self.progress.append)

    def settle(self):
        for _ in range(2):
            self.pump.run_for(0.02)
            self.pump.run_until(lambda: self.pump.calls.empty() and self.pump.jobs.is_settled(0.7), 60)

    def open(self, path):
        """Open a slide and see all of it."""
        self.controller.open_slides([str(path)])
        self.settle()
        self.viewer.reset_view()
        self.settle()

    def segment(self):
        self.controller.segment_view()
        self.settle()

    def show(self):
        self.plots.open()
        self.layers.open()
        self.settle()

    def see(self, region):
        """Have the camera show a region, level-0 pixels, as wide as it is."""
        layer = self.controller.display.shelf.now.layer
        camera = self.viewer.scene.camera
        scale = layer.scale[-1]
        camera.zoom = min(np.asarray(self.viewer.canvas.size) / (np.array([region.height, region.width]) * scale))
        camera.center = tuple(layer.data_to_world(region.centre))[-2:]
        self.settle()

    @property
    def project(self):
        return self.controller.display.shelf.now.project

    def shown(self):
        """Layers of ours, by what they show."""
        found = [layer for layer in self.viewer.layers if layer.metadata.get(ROLE) == "plots"]
        return {layer.name.split(" ", 1)[1]: layer for layer in found}

    def ringed(self):
        """Where the ring is; None if there is none."""
        rings = [layer for layer in self.viewer.layers if layer.metadata.get(ROLE) == "marker"]
        return rings[0].data[0] if rings else None

    def close(self):
        self.layers.close()
        self.plots.close()
        self.regions.close()
        self.controller.close()
        self.controller.join()


class PlacedPlots(HeldPlots):
    """An engine that also measures where a nucleus lies: what a plot of that shows is known beforehand."""

    def columns(self):
        return (
            *super().columns(),
            Column("x_px", "From the left, px", "Centroid."),
            Column("y_px", "From the top, px", "Centroid."),
        )

    def measure(self, project, slide, region, cancelled):
        for block in super().measure(project, slide, region, cancelled):
            y, x = block.table.centroids.astype(np.float32).T
            yield replace(block, values={**block.values, "x_px": x, "y_px": y})
