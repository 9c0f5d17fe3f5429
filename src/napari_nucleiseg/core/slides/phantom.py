"""The tissue of the synthetic slide as pure functions of position in micrometres: compartments and nuclei."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.noise import Double, Float, Positions, chances, smooth_noise, smoothstep

EPITHELIUM, STROMA, LYMPHOCYTE = 0, 1, 2

# Per kind: long radius (um: mean, spread), aspect (least, spread), chance that a cell of the lattice is taken, stain.
_RADIUS = np.array([4.9, 5.4, 3.2])
_SPREAD = np.array([0.7, 0.8, 0.3])
_ASPECT = np.array([1.08, 2.0, 1.0])
_ASPECT_SPREAD = np.array([0.4, 1.5, 0.18])
_TAKEN = np.array([0.9, 0.5, 1.0])
_STAIN = np.array([0.72, 0.90, 1.10])
_SMALLEST_UM = 1.7
_LARGEST_UM = 7.0
# Clear distance between the circles around two nuclei: more than two pixels at 20x, so labels never touch.
_GAP_UM = 1.1
# Farther apart than this two nuclei do not feel each other.
_FAR_UM = 2 * _LARGEST_UM + _GAP_UM
_WOBBLE = 0.05
_JITTER = 0.66
# Radius of the circle around a pair of twins, and distance of a twin from the middle, in long radii of a twin.
_PAIR = 1.75
_PAIR_OFFSET = 0.75
_PAIR_ASPECT = 0.92
_DRAWS = 10


class Compartments(NamedTuple):
    """What the tissue is, each float32 in 0..1 and of one shape; the three kinds sum to 1."""

    cover: Float
    epithelium: Float
    stroma: Float
    lymphoid: Float
    lumen: Float


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Columns of the nuclei, in ascending order of their ids.

    With ``(u, v)`` the coordinates along the axes, divided by the two radii, a nucleus is the set
    ``|(u, v)| < 1 + wobble * cos(3 t + phase)``; a twin is also cut at ``normal . (p - centre) = reach``.
    """

    ids: NDArray[np.int32]
    y_um: Double
    x_um: Double
    major_um: Double
    minor_um: Double
    angle: Double
    phase: Double
    wobble: Double
    kind: NDArray[np.int64]
    stain: Double
    normal_y: Double
    normal_x: Double
    reach_um: Double

    def __len__(self) -> int:
        return int(self.ids.size)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Nuclei:
        """Return the rows that `which` selects."""
        return Nuclei(**{column.name: getattr(self, column.name)[which] for column in fields(self)})

    @property
    def radius_um(self) -> Double:
        """Radius of the circle around each nucleus, micrometres."""
        return self.major_um * (1 + self.wobble)

    @property
    def area_um2(self) -> Double:
        """Exact areas, square micrometres."""
        kept, _, _, _ = self._cut()
        return self.major_um * self.minor_um * (1 + self.wobble**2 / 2) * kept

    @property
    def centroids_um(self) -> Double:
        """Exact centroids ``(n, 2)``, ``(y, x)`` in micrometres; a threefold wobble does not move them."""
        kept, cut, along, across = self._cut()
        shift = -(2 / 3) * (1 - cut**2) ** 1.5 / kept
        u, v = shift * along * self.major_um, shift * across * self.minor_um
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        return np.stack([self.y_um + u * sin + v * cos, self.x_um + u * cos - v * sin], axis=1)

    def _cut(self) -> tuple[Double, Double, Double, Double]:
        """Where the nucleus is a unit circle: area kept, distance of the cut (1 is uncut) and its normal ``(u, v)``."""
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        along = self.major_um * (self.normal_x * cos + self.normal_y * sin)
        across = self.minor_um * (self.normal_y * cos - self.normal_x * sin)
        length = np.hypot(along, across)
        cut = np.minimum(self.reach_um / length, 1.0)
        kept = math.pi - np.arccos(cut) + cut * np.sqrt(1 - cut**2)
        return kept, cut, along / length, across / length


@dataclass(frozen=True)
class Phantom:
    """A piece of tissue on glass, wholly determined by its parameters.

    Parameters
    ----------
    height_um, width_um : float
        Extent of the slide.
    pitch_um : float
        Edge of a lattice cell; a cell holds at most one nucleus, or two that touch.
    seed : int
        Any integer; another seed is another tissue.
    touching : float
        Part of the lattice cells, 0..1, that hold two nuclei pressed together.
    glass : bool
        Whether the tissue has an outline with glass around it, and lumina.
    """

    height_um: float
    width_um: float
    pitch_um: float
    seed: int = 0
    touching: float = 0.0
    glass: bool = True

    @property
    def lattice(self) -> tuple[int, int]:
        """Rows and columns of lattice cells."""
        return math.ceil(self.height_um / self.pitch_um), math.ceil(self.width_um / self.pitch_um)

    def compartments(
        self, ys_um: Positions, xs_um: Positions, pixel_um: float = 0.0, margin_um: float = 0.0
    ) -> Compartments:
        """Evaluate the compartments.

        Parameters
        ----------
        ys_um, xs_um : ndarray of float64
            A grid, ``(n, 1)`` and ``(1, m)``.
        pixel_um : float
            Borders are at least this soft, so that a coarse picture does not alias.
        margin_um : float
            Draw glass and lumina larger by about this much.
        """
        cover = self._cover(ys_um, xs_um, pixel_um, margin_um)
        if not cover.any():
            return Compartments(cover, cover, cover, cover, cover)
        soft = np.float32(0.007 * pixel_um)
        gland = self.noise(0, ys_um, xs_um, 420.0) + np.float32(0.3) * self.noise(1, ys_um, xs_um, 110.0)
        lymphoid = smoothstep(self.noise(2, ys_um, xs_um, 600.0), 1.25, 1.6)
        district = np.float32(0.35) * self.noise(6, ys_um, xs_um, 3000.0)
        epithelium = smoothstep(gland + district, 0.05 - soft, 0.25 + soft) * (1 - lymphoid)
        lumen = np.zeros_like(gland)
        if self.glass:
            lumen = smoothstep(gland + np.float32(0.007 * margin_um), 1.47 - soft, 1.53 + soft) * (1 - lymphoid)
        return Compartments(cover, epithelium, 1 - epithelium - lymphoid, lymphoid, lumen)

    def _cover(self, ys_um: Positions, xs_um: Positions, pixel_um: float, margin_um: float) -> Float:
        """Return 1 inside the tissue's outline and 0 on glass, with a soft edge; only drawn where it is near."""
        shape = (ys_um.size, xs_um.size)
        if not self.glass:
            return np.ones(shape, np.float32)
        soft = 4 + pixel_um
        # Between points of a coarse grid the outline cannot come nearer than its steepest slope allows.
        few = (
            np.unique(np.linspace(0, shape[0] - 1, 17).astype(int)),
            np.unique(np.linspace(0, shape[1] - 1, 17).astype(int)),
        )
        apart = max(np.diff(at[few[k]], prepend=at[0]).max(initial=0) for k, at in enumerate((ys_um[:, 0], xs_um[0])))
        coarse = self.inside_um(ys_um[few[0]], xs_um[:, few[1]]) - np.float32(margin_um)
        if (coarse > soft + 3 * apart).all():
            return np.ones(shape, np.float32)
        if (coarse < -soft - 3 * apart).all():
            return np.zeros(shape, np.float32)
        return smoothstep(self.inside_um(ys_um, xs_um) - np.float32(margin_um), -soft, soft)

    def inside_um(self, ys_um: Positions, xs_um: Positions) -> Float:
        """Return about how far inside the tissue's outline each point of a grid lies, in micrometres; < 0 on glass."""
        half = min(self.height_um, self.width_um) / 2
        down = np.abs(2 * ys_um / self.height_um - 1) ** 2.6
        across = np.abs(2 * xs_um / self.width_um - 1) ** 2.6
        radius = np.power((down + across).astype(np.float32), np.float32(1 / 2.6))
        outline = 0.84 - radius + 0.07 * self.noise(4, ys_um, xs_um, 0.45 * half)
        ragged = np.float32(min(25.0, 0.04 * half)) * self.noise(5, ys_um, xs_um, 140.0)
        return np.asarray(outline * np.float32(half) + ragged, dtype=np.float32)

    def noise(self, channel: int, ys_um: Positions, xs_um: Positions, wavelength_um: float) -> Float:
        """Evaluate one of the phantom's smooth random fields (unit variance) on a grid."""
        return smooth_noise(self.seed, channel, ys_um / wavelength_um, xs_um / wavelength_um)

    def fibres(self, ys_um: Positions, xs_um: Positions) -> Float:
        """Evaluate the field whose contour lines the fibres and the spindle nuclei of the stroma follow."""
        return self.noise(3, ys_um, xs_um, 130.0)

    def nuclei(self, y0_um: float, x0_um: float, y1_um: float, x1_um: float) -> Nuclei:
        """Return all nuclei whose surrounding circle meets a box (micrometres), whatever was asked before."""
        pitch = self.pitch_um
        reach = math.ceil(_FAR_UM / pitch + _JITTER + 0.5)
        margin = reach + math.ceil(_LARGEST_UM / pitch + 1)
        rows, columns = self.lattice
        top, left = math.floor(y0_um / pitch) - margin, math.floor(x0_um / pitch) - margin
        bottom, right = math.ceil(y1_um / pitch) + margin, math.ceil(x1_um / pitch) + margin
        at_rows = np.arange(max(0, top), max(0, top, min(rows, bottom)))
        at_columns = np.arange(max(0, left), max(0, left, min(columns, right)))
        nuclei = _Cells.draw(self, at_rows, at_columns).fit().nuclei()
        radius = nuclei.radius_um
        return nuclei.take(
            (nuclei.y_um + radius > y0_um)
            & (nuclei.y_um - radius < y1_um)
            & (nuclei.x_um + radius > x0_um)
            & (nuclei.x_um - radius < x1_um)
        )


@dataclass(frozen=True)
class _Cells:
    """A block of lattice cells with one candidate each; arrays are ``(rows, columns)``."""

    phantom: Phantom
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    y_um: Double
    x_um: Double
    kind: NDArray[np.int64]
    radius_um: Double
    twin: NDArray[np.bool_]
    chance: Double

    @classmethod
    def draw(cls, phantom: Phantom, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> _Cells:
        """Draw the candidates; each is a pure function of the seed and of its cell."""
        pitch = phantom.pitch_um
        chance = chances(phantom.seed, rows, columns, _DRAWS)
        shifted = 0.25 + 0.5 * (rows % 2)[:, None]
        y = (rows[:, None] + 0.5 + _JITTER * (chance[0] - 0.5)) * pitch
        x = (columns[None, :] + shifted + _JITTER * (chance[1] - 0.5)) * pitch
        # The tissue is looked up at the middle of the cell: a grid is far cheaper than scattered points.
        middle = (rows[:, None] + 0.5) * pitch, (columns[None, :] + 0.5) * pitch
        here = phantom.compartments(*middle, margin_um=0.5 * pitch)
        stroma = here.epithelium + here.stroma
        kind = np.where(chance[2] < here.epithelium, EPITHELIUM, np.where(chance[2] < stroma, STROMA, LYMPHOCYTE))
        twin = chance[4] < phantom.touching
        # A triangular bell of unit half-width from one draw.
        bell = np.sign(chance[3] - 0.5) * (1 - np.sqrt(1 - np.abs(2 * chance[3] - 1)))
        wanted = _RADIUS[kind] + 2 * _SPREAD[kind] * bell
        wanted = np.where(twin, _PAIR * np.minimum(wanted, _LARGEST_UM / _PAIR), wanted)
        solid = here.cover * (1 - here.lumen) > 0.98
        edge = np.minimum(np.minimum(y, phantom.height_um - y), np.minimum(x, phantom.width_um - x))
        radius = np.where(solid & (chance[5] < _TAKEN[kind]), np.minimum(wanted, edge - 0.5), 0.0)
        return cls(phantom, rows, columns, y, x, kind, np.clip(radius, 0.0, _LARGEST_UM), twin, chance)

    def fit(self) -> _Cells:
        """Shrink each candidate to its fair share of the distance to every neighbour: circles then stay apart."""
        y, x = self.y_um.astype(np.float32), self.x_um.astype(np.float32)
        wanted = self.radius_um.astype(np.float32)
        fitted = wanted.copy()
        height, width = wanted.shape
        for dy, dx in _neighbours(self.phantom.pitch_um):
            if dy >= height or abs(dx) >= width:
                continue
            a = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
            b = (slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
            space = np.sqrt((y[a] - y[b]) ** 2 + (x[a] - x[b]) ** 2) - np.float32(_GAP_UM)
            share = np.clip(space / np.maximum(wanted[a] + wanted[b], np.float32(1e-6)), 0, 1)
            share[(wanted[a] == 0) | (wanted[b] == 0)] = 1
            np.minimum(fitted[a], wanted[a] * share, out=fitted[a])
            np.minimum(fitted[b], wanted[b] * share, out=fitted[b])
        return replace(self, radius_um=fitted.astype(np.float64))

    def along_fibres(self) -> Double:
        """Direction of the contour lines of the fibre field in every cell, radians from the x axis towards y."""
        y, x = (self.rows[:, None] + 0.5) * self.phantom.pitch_um, (self.columns[None, :] + 0.5) * self.phantom.pitch_um
        step = 2.0
        down = np.subtract(self.phantom.fibres(y + step, x), self.phantom.fibres(y - step, x))
        across = np.subtract(self.phantom.fibres(y, x + step), self.phantom.fibres(y, x - step))
        return np.asarray(np.arctan2(-across, down), dtype=np.float64)

    def nuclei(self) -> Nuclei:
        """Turn the fitted circles into nuclei; candidates squeezed too small are left out."""
        smallest = np.where(self.twin, _PAIR * 1.2 * _SMALLEST_UM, _SMALLEST_UM)
        row, column = np.nonzero(self.radius_um >= smallest)
        chance = self.chance[:, row, column]
        kind, twin = self.kind[row, column], self.twin[row, column]
        y, x, radius = self.y_um[row, column], self.x_um[row, column], self.radius_um[row, column]
        wobble = np.where(twin, 0.0, _WOBBLE)
        turn = 2 * math.pi * chance[7]
        angle = np.where(twin, turn + math.pi / 2, turn)
        spindle = (kind == STROMA) & ~twin
        angle[spindle] = (self.along_fibres()[row, column] + 0.5 * (chance[7] - 0.5))[spindle]
        major = np.where(twin, radius / _PAIR, radius / (1 + wobble))
        aspect = np.where(twin, 1 / _PAIR_ASPECT, _ASPECT[kind] + _ASPECT_SPREAD[kind] * chance[6])
        # Twins lie on both sides of the middle along `turn`, flattened where their outlines would overlap.
        offset = np.where(twin, _PAIR_OFFSET * major, 0.0)
        normal_y, normal_x = np.sin(turn), np.cos(turn)
        first = Nuclei(
            ids=(2 * (self.rows[row] * self.phantom.lattice[1] + self.columns[column]) + 1).astype(np.int32),
            y_um=y - offset * normal_y,
            x_um=x - offset * normal_x,
            major_um=major,
            minor_um=np.maximum(major / aspect, np.minimum(major, 1.2)),
            angle=angle,
            phase=2 * math.pi * chance[9],
            wobble=wobble,
            kind=kind,
            stain=_STAIN[kind] * (0.8 + 0.4 * chance[8]),
            normal_y=normal_y,
            normal_x=normal_x,
            reach_um=np.where(twin, offset, 1e6),
        )
        return _with_twins(first, offset) if twin.any() else first


@lru_cache(maxsize=32)
def _neighbours(pitch_um: float) -> tuple[tuple[int, int], ...]:
    """Half of the lattice offsets ``(rows, columns)`` at which two candidates may come near enough to matter."""
    reach = math.ceil(_FAR_UM / pitch_um + _JITTER + 0.5)
    pairs = [(dy, dx) for dy in range(reach + 1) for dx in range(-reach if dy else 1, reach + 1)]
    # Rows are shifted against each other by half a cell, and every candidate by its jitter.
    nearest = [math.hypot(max(0.0, dy - _JITTER), max(0.0, abs(dx) - _JITTER - 0.5)) for dy, dx in pairs]
    return tuple(pair for pair, least in zip(pairs, nearest, strict=True) if least * pitch_um < _FAR_UM)


def _with_twins(first: Nuclei, offset: Double) -> Nuclei:
    """Add the second nucleus of every pair, mirrored at the middle of its cell."""
    pair = np.flatnonzero(offset > 0)
    half = first.take(pair)
    second = replace(
        half,
        ids=half.ids + np.int32(1),
        y_um=half.y_um + 2 * offset[pair] * half.normal_y,
        x_um=half.x_um + 2 * offset[pair] * half.normal_x,
        normal_y=-half.normal_y,
        normal_x=-half.normal_x,
    )
    joined = {f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(Nuclei)}
    return Nuclei(**joined).take(np.argsort(joined["ids"], kind="stable"))


@lru_cache(maxsize=32)
def pitch_for_density(density_per_mm2: float, touching: float = 0.0) -> float:
    """Return the lattice pitch (um) that gives `density_per_mm2` nuclei on average over solid tissue.

    Found by counting on ten fixed samples, so it depends on nothing else.

    Raises
    ------
    ValueError
        If the density is outside 50 to 8,000 per mm2 or does not fit, or `touching` is outside 0 to 1.
    """
    if not 50 <= density_per_mm2 <= 8_000:
        raise ValueError(f"nuclei per mm2 must lie between 50 and 8,000, not {density_per_mm2:g}")
    if not 0 <= touching <= 1:
        raise ValueError(f"the part of touching nuclei must lie between 0 and 1, not {touching:g}")
    edge_um, samples = 1200.0, 10
    pitch, found = 1000 / math.sqrt(density_per_mm2 * 1.3), 0.0
    for _ in range(3):
        counts = (
            len(Phantom(edge_um, edge_um, pitch, seed, touching, glass=False).nuclei(0, 0, edge_um, edge_um))
            for seed in range(100, 100 + samples)
        )
        found = sum(counts) / samples / (edge_um / 1000) ** 2
        pitch *= math.sqrt(found / density_per_mm2)
    if abs(found / density_per_mm2 - 1) > 0.05:
        raise ValueError(f"{density_per_mm2:g} nuclei per mm2 do not fit with {touching:.0%} touching; ask for fewer")
    return pitch
