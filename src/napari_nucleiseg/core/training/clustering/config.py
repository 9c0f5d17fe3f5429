"""Every parameter of a clustering, declared once; presets are the settings that were published."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.fields import ANY, load_fields, settings_problem

_RANGES = {
    "width": (2, 256),
    "blocks": (1, 8),
    "reach_px": (0.0, 32.0),
    "iterations": (1, 10_000),
    "least_iterations": (1, 10_000),
    "min_clusters": (2, 256),
    "least_share": (0.0, 0.5),
    "learning_rate": (1e-6, 10.0),
    "momentum": (0.0, 0.999),
    "pseudo_label_weight": ANY,
    "affine_weight": ANY,
    "spatial_weight": ANY,
    "boundary_weight": ANY,
    "boundary_beta": (2, 256),
    "fit_px": (64 * 64, 4096 * 4096),
    "seed": (0, 2**63 - 1),
}
_WORDS = {
    "offsets": ("predicted", "free"),
    "affine": ("learned", "rotation"),
    "spatial": ("responses", "soft", "published"),
}


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """One clustering of one picture; a loss with the weight 0 is switched off.

    The defaults are for nuclei and were chosen on pictures of two patients; `PRESETS` holds those that were published.

    Parameters
    ----------
    width : int
        Channels of the network, which is the number of clusters to begin with.
    blocks : int
        Attention blocks.
    offsets : str
        How the deformable convolution knows where to look. predicted: by a convolution, bounded, 0 at first.
        free: parameters of their own, U(0, 1), as in the published code; tied to one size of picture, so such a fit
        cannot be applied to other pictures.
    reach_px : float
        Largest predicted offset, model pixels.
    smooth_start : bool
        Whether the 3x3 kernels begin as means over their nine taps, for which edges are less. It did not help on whole
        pictures. Free offsets come with kernels of their own.
    iterations : int
        Steps of optimisation at most.
    least_iterations : int
        The fit does not stop before this step, however few clusters are left.
    min_clusters : int
        The fit stops when no more than this many clusters are left. The last state with at least this many is kept.
    least_share : float
        A cluster of a smaller part of the picture does not count.
    learning_rate, momentum : float
        Of stochastic gradient descent.
    pseudo_label_weight : float
        Weight of the cross-entropy with the network's own hard decision.
    affine_weight : float
        Weight of the agreement of the auxiliary branch with the hard decision under an affine transform.
    affine : str
        rotation: by 90 degrees, as published. learned: drawn anew at each step, never near the identity, with a
        correction that a small network learns.
    spatial_weight : float
        Weight of the spatial term, which wants neighbours to belong together.
    spatial : str
        responses: finite differences of the logits (Kim et al. 2020). soft: of the soft assignment. published: edges
        of a randomly coloured label image, which have no gradient and only change the printed total.
    boundary_weight : float
        Weight of the boundary refinement, which wants the soft assignment to survive being shrunk and enlarged.
    boundary_beta : int
        Factor of that shrinking; the larger, the coarser the detail that it removes.
    fit_px : int
        Largest area, in model pixels, that is fitted at once; each takes about 40 kB of memory. Of a larger region
        crops of this area together are fitted, and the whole is labelled with what they gave.
    seed : int
        Seeds weights, transforms, colours and crops.
    device : str
        auto, cpu, cuda or mps.
    """

    width: int = 64
    blocks: int = 2
    offsets: str = "predicted"
    reach_px: float = 8.0
    smooth_start: bool = False
    iterations: int = 50
    least_iterations: int = 5
    min_clusters: int = 7
    least_share: float = 0.001
    learning_rate: float = 0.1
    momentum: float = 0.9
    pseudo_label_weight: float = 3.5
    affine_weight: float = 0.5
    affine: str = "learned"
    spatial_weight: float = 4.0
    spatial: str = "responses"
    boundary_weight: float = 2.0
    boundary_beta: int = 16
    fit_px: int = 256 * 256
    seed: int = 0
    device: str = "auto"

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        problem = settings_problem(self, _RANGES)
        if problem:
            return problem
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                return f"{name} must be {' or '.join(known)}, not {getattr(self, name)}"
        if self.min_clusters > self.width:
            return f"min_clusters ({self.min_clusters}) cannot be more than the clusters to begin with ({self.width})"
        if not any((self.pseudo_label_weight, self.affine_weight, self.boundary_weight, self._soft_weight)):
            return "at least one loss that has a gradient needs a weight above 0"
        return None

    @property
    def _soft_weight(self) -> float:
        return 0.0 if self.spatial == "published" else self.spatial_weight


# The learning rate of the paper, and three clusters: for a lesion on skin.
_PAPER: dict[str, Any] = {"learning_rate": 0.36, "min_clusters": 3}
_PUBLISHED: dict[str, Any] = {
    **_PAPER,
    "offsets": "free",
    "affine": "rotation",
    "affine_weight": 0.2,
    "spatial": "published",
    "spatial_weight": 4.0,
    "boundary_weight": 0.0,
    "least_share": 0.0,
}
PRESETS = MappingProxyType(
    {
        "default": ClusterConfig(),
        "published": ClusterConfig(**_PUBLISHED),
        "repository-first": ClusterConfig(**{**_PUBLISHED, "pseudo_label_weight": 3.0, "learning_rate": 0.35}),
        "repository-last": ClusterConfig(**{**_PUBLISHED, "learning_rate": 0.2}),
        "boundary": ClusterConfig(**_PAPER, spatial_weight=0.0),
    }
)
"""For nuclei; the paper's; the first and last of its repository; learned transforms with the boundary refinement."""


def preset(name: str) -> ClusterConfig:
    """Return the settings called `name`.

    Raises
    ------
    DataError
        If there are none.
    """
    if name not in PRESETS:
        raise DataError(f"there are no settings called {name}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def load_cluster_config(path: str) -> ClusterConfig:
    """Read settings from a JSON file.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    return load_fields(ClusterConfig, path, "a clustering")
