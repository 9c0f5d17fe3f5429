"""Which part of the slide the maps of each tile cover."""

from __future__ import annotations

from dataclasses import dataclass

from napari_nucleiseg.core.geometry import Region


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Where the maps of each tile lie, in model pixels; as the engine's grid has it.

    Parameters
    ----------
    height, width : int
        The slide in model pixels.
    tile_px, halo_px, size_multiple : int
        See `ModelSpec`.
    grid_key : str
        Name of the grid; maps kept under another one are dropped.
    """

    height: int
    width: int
    tile_px: int
    halo_px: int
    size_multiple: int
    grid_key: str

    @property
    def columns(self) -> int:
        """Number of columns of tiles."""
        return -(-self.width // self.tile_px)

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.height // self.tile_px)

    @property
    def side_px(self) -> int:
        """Side of a full tile with its halo."""
        return self.tile_px + 2 * self.halo_px

    @property
    def overview_step(self) -> int:
        """Model pixels per pixel of the overview; divides the tile."""
        return next(step for step in (8, 4, 2, 1) if self.tile_px % step == 0)

    def core(self, tile: int) -> Region:
        """Return what a tile owns."""
        row, column = divmod(tile, self.columns)
        square = Region(row * self.tile_px, column * self.tile_px, self.tile_px, self.tile_px)
        return square.intersect(Region(0, 0, self.height, self.width))

    def inside(self, tile: int) -> Region:
        """Return what the maps of a tile cover: core and halo, clipped to the slide."""
        core = self.core(tile)
        box = Region(core.y - self.halo_px, core.x - self.halo_px, self._side(core.height), self._side(core.width))
        return box.intersect(Region(0, 0, self.height, self.width))

    def _side(self, core_side: int) -> int:
        return self.side_px - (self.tile_px - core_side) // self.size_multiple * self.size_multiple
