"""Regions of slides as grids of features of their patches, made once and kept beside the run."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.patches import choose_places, fine_enough, places_of, steps_of
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.scales.samples import ScaleSource

logger = logging.getLogger(__name__)
Grid = NDArray[np.float32]
LEAST_CELLS = 2
FOLDER = "regions"


class GridSamples:
    """Grids of features whose crops teach an encoder of regions.

    Parameters
    ----------
    grids : sequence of ndarray of float32, each (rows, columns, features)
        Of regions.
    config : DinoConfig
        How crops are cut.
    """

    def __init__(self, grids: Sequence[Grid], config: DinoConfig) -> None:
        self.grids, self.config = grids, config

    def __len__(self) -> int:
        """Return how many regions there are."""
        return len(self.grids)

    def crops(self, rng: np.random.Generator) -> tuple[list[Grid], list[Grid]]:
        """Return global and local crops ``(rows, columns, features)`` of a region that `rng` chooses."""
        grid, config = self.grids[int(rng.integers(len(self.grids)))], self.config
        large = [self._crop(grid, config.global_cells, rng) for _ in range(config.global_crops)]
        return large, [self._crop(grid, config.local_cells, rng) for _ in range(config.local_crops)]

    def _crop(self, grid: Grid, cells: int, rng: np.random.Generator) -> Grid:
        share = cells / self.config.region_cells
        rows, columns = (max(1, round(side * share)) for side in grid.shape[:2])
        y, x = (int(rng.integers(side - size + 1)) for side, size in zip(grid.shape, (rows, columns), strict=False))
        crop = grid[y : y + rows, x : x + columns]
        if rng.random() < self.config.flip:
            crop = crop[:, ::-1]
        if self.config.turns:
            crop = np.rot90(crop, int(rng.integers(4)))
        return np.ascontiguousarray(crop)


class GridReader:
    """Makes grids of features of regions, or reads those that were made before.

    Parameters
    ----------
    config : DinoConfig
        The run; features are kept in ``<out>/regions``.
    encoder : LoadedEncoder
        Of patches.
    device : str
        Where it runs.
    processes : Processes
        Each makes its share of the regions.
    """

    def __init__(self, config: DinoConfig, encoder: LoadedEncoder, device: str, processes: Processes) -> None:
        self.config, self.encoder, self.processes = config, encoder, processes
        self.forward = EncoderForward(encoder, device)
        self.folder = Path(config.out) / FOLDER

    def read(self, sources: Sequence[ScaleSource], count: int, stream: int = 0) -> list[Grid]:
        """Return grids ``(rows, columns, features)`` of regions with tissue; slides count by how much they have.

        Parameters
        ----------
        sources : sequence of ScaleSource
            Open slides.
        count : int
            Most regions; fewer where slides have less room.
        stream : int
            Another number gives other regions under the same seed.

        Raises
        ------
        DataError
            If no slide has room for one.
        """
        spec, config = self.encoder.spec, self.config
        sources = fine_enough(sources, spec.mpp_um)
        cells = [self._cells(source) for source in sources]
        if max(cells) < LEAST_CELLS:
            needed = LEAST_CELLS * spec.input_px
            raise DataError(
                f"no slide is large enough for a region of {LEAST_CELLS} by {LEAST_CELLS} patches: {needed} pixels of "
                f"{spec.mpp_um:g} µm are needed each way. Choose larger slides or regions."
            )
        wide = [(source, n) for source, n in zip(sources, cells, strict=True) if n >= LEAST_CELLS]
        sides = [n * spec.input_px for _, n in wide]
        places = places_of([source for source, _ in wide], spec.mpp_um, sides, config.tissue)
        chosen = choose_places(places, count, np.random.default_rng((config.seed, stream, 2)))
        sized = {id(source): n for source, n in wide}
        regions = [(places[which].source, y, x, sized[id(places[which].source)]) for which, y, x in chosen]
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, region in enumerate(regions):
            if number % self.processes.count == self.processes.rank:
                self._made(*region)
                logger.info("features of region %d of %d", number + 1, len(regions))
        self.processes.wait()
        return [self._made(*region) for region in regions]

    def _cells(self, source: ScaleSource) -> int:
        """Return the rows and columns of patches that a region of a slide may have."""
        boxes = [region.intersect(source.slide.content) for region in source.regions or (source.slide.content,)]
        side = max(min(box.height, box.width) for box in boxes)
        patch = max(steps_of(source.slide, self.encoder.spec.mpp_um)) * self.encoder.spec.input_px
        return min(self.config.region_cells, int(side / patch + 1e-6))

    def _made(self, source: ScaleSource, y: int, x: int, cells: int) -> Grid:
        spec = self.encoder.spec
        key = f"{self.encoder.version} {spec.mpp_um} {source.slide.fingerprint} {y} {x} {cells}"
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"
        shape = (cells, cells, spec.embed)
        try:
            grid: Grid = np.load(path, allow_pickle=False)
            if grid.shape == shape:
                return grid
        except (OSError, ValueError, EOFError):
            pass  # not made yet, or damaged
        steps, side = steps_of(source.slide, spec.mpp_um), spec.input_px
        grid = np.empty(shape, np.float32)
        for row in range(cells):
            strip = source.slide.read_box(y + row * side * steps[0], x, *steps, (side, cells * side))
            grid[row] = self.forward.features(strip.reshape(side, cells, side, 3).swapaxes(0, 1))
        content = io.BytesIO()
        np.save(content, grid)
        write_over(path, content.getvalue())
        return grid
