"""Slides without pixels, random nuclei on a grid of tiles, and what must come out, computed the slow way."""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import TileNuclei, global_ids


class NoPixels:
    """A level that has a size and nothing else."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, height, width):
        self.shape = (height, width, 3)

    def __getitem__(self, key):
        raise AssertionError("the store does not read the slide")

    __array__ = __getitem__


def blank_slide(height=600, width=600, *, mpp=0.25, fingerprint="f1", path="/slides/a.svs"):
    return Slide(path, (NoPixels(height, width),), (YX(1, 1),), YX(mpp, mpp), fingerprint=fingerprint)


def disc(y, x, radius, stretch=1.0):
    """Level-0 pixels ``(n, 2)`` of an ellipse."""
    reach = int(radius * 2) + 2
    yy, xx = np.mgrid[int(y) - reach : int(y) + reach + 1, int(x) - reach : int(x) + reach + 1]
    inside = ((yy - y) * stretch) ** 2 + ((xx - x) / stretch) ** 2 <= radius**2
    return np.stack([yy[inside], xx[inside]], axis=1)


def nuclei_of(tile_index, core, shapes, shape):
    """Make a `TileNuclei` of pixel lists; pixels of an earlier one are kept, what lies outside the slide is cut."""
    field = np.zeros(shape, np.int32)
    kept = []
    for pixels in shapes:
        inside = pixels[(pixels >= 0).all(1) & (pixels < shape).all(1)]
        free = inside[field[tuple(inside.T)] == 0]
        if len(free):
            kept.append(free)
            field[tuple(free.T)] = len(kept)
    if not kept:
        return TileNuclei(
            tile_index,
            core,
            Region(core.y, core.x, 1, 1),
            np.zeros((1, 1), np.int32),
            np.zeros((0, 2)),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.int64),
            np.zeros(0, np.float32),
        )
    boxes = np.array([(*pixels.min(0), *(pixels.max(0) + 1)) for pixels in kept], np.int64)
    box = Region.from_bounds(*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
    return TileNuclei(
        tile_index=tile_index,
        core=core,
        box=box,
        labels=field[box.slices],
        centroids=np.array([pixels.mean(0) for pixels in kept]),
        areas_um2=np.array([len(pixels) / 16 for pixels in kept], np.float32),
        boxes=boxes,
        scores=np.linspace(0.5, 1, len(kept), dtype=np.float32),
    )


@dataclass(frozen=True)
class Grid:
    """Square tiles over a slide."""

    shape: tuple[int, int]
    side: int

    @property
    def columns(self):
        return -(-self.shape[1] // self.side)

    def __len__(self):
        return -(-self.shape[0] // self.side) * self.columns

    def core(self, index):
        row, column = divmod(index, self.columns)
        return Region(row * self.side, column * self.side, self.side, self.side).intersect(Region(0, 0, *self.shape))


def random_tiles(seed, grid, n=120, jitter=2.0, largest=22):
    """Tiles that see the same nuclei a little differently, so that neighbours find some twice and overlap."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform((0, 0), grid.shape, (n, 2))
    corners = rng.integers(0, 4, (n // 3, 2)) * grid.side
    truth[: n // 3] = corners + rng.normal(0, 8, (n // 3, 2))
    radii = rng.uniform(3, largest, n)
    tiles = []
    for index in range(len(grid)):
        core = grid.core(index)
        shapes = []
        for (y, x), radius in zip(truth, radii, strict=True):
            seen = np.array([y, x]) + rng.normal(0, jitter, 2)
            if core.expand(3).contains_point(*seen) and rng.random() < 0.95:
                shapes.append(disc(*seen, radius * rng.uniform(0.85, 1.15), rng.uniform(0.8, 1.25)))
        rng.shuffle(shapes)
        tiles.append(nuclei_of(index, core, shapes, grid.shape))
    return tiles


def expected_image(tiles, shape):
    """The rule, spelt out: of two from different tiles with IoU > 0.5 the higher id goes; then the lowest id shows."""
    layers = {}
    for tile in tiles:
        for label, nucleus_id in enumerate(global_ids(tile.tile_index, len(tile)).tolist(), start=1):
            layer = np.zeros(shape, bool)
            layer[tile.box.slices] = tile.labels == label
            layers[nucleus_id] = np.flatnonzero(layer)
    gone = set()
    for low, high in combinations(sorted(layers), 2):
        if high >> 14 != low >> 14:
            if layers[low][-1] < layers[high][0] or layers[high][-1] < layers[low][0]:
                continue
            shared = len(np.intersect1d(layers[low], layers[high], assume_unique=True))
            if 2 * shared > len(layers[low]) + len(layers[high]) - shared:
                gone.add(high)
    image = np.zeros(shape, np.uint32)
    for nucleus_id in sorted(set(layers) - gone, reverse=True):
        image.ravel()[layers[nucleus_id]] = nucleus_id
    return image, gone


def whole(project):
    """Level 0 and the table of everything."""
    return np.asarray(project.labels.levels[0]), project.nuclei_in(Region(0, 0, *project.shape))


def assert_same_table(one, other):
    for name in ("ids", "centroids", "boxes", "areas_um2", "classes", "scores", "origins", "approved"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def assert_pyramid(project):
    """Every level is what the level below says."""
    from napari_nucleiseg.core.store.labels import halve

    levels = [np.asarray(level) for level in project.labels.levels]
    for below, above in pairwise(levels):
        np.testing.assert_array_equal(above, halve(below))
