"""Fit once, apply everywhere: a clustering and the clusters that are nuclei become a model like any other."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, encode_model
from napari_nucleiseg.core.training.clustering.config import ClusterConfig
from napari_nucleiseg.core.training.clustering.fit import Clustering

OWN = "LicenseRef-own-picture"


def fitted_model(
    result: Clustering, chosen: Collection[int], name: str, *, title: str = "", picture: str = "", licence: str = ""
) -> LoadedModel:
    """Return a model that says of any picture which pixels belong to the chosen clusters.

    Parameters
    ----------
    result : Clustering
        What `cluster` yielded last.
    chosen : collection of int
        Clusters that are nuclei, at least one.
    name : str
        How users call it.
    title : str
        One line for people; default says what it was fitted to.
    picture : str
        What it was fitted to, for the card.
    licence : str
        SPDX expression of that picture. Default: the user's own, free for their use.

    Raises
    ------
    ModelError
        If no or an unknown cluster is chosen, or the offsets belong to the one picture.
    """
    if result.network.is_free:
        raise ModelError(
            "free offsets belong to the pixels of the picture they were fitted to, so these weights cannot be applied "
            "to others; fit with predicted offsets"
        )
    if not chosen:
        raise ModelError("choose at least one cluster that shows nuclei")
    network = copy.deepcopy(result.network).eval()
    network.choose(tuple(chosen))
    config = result.config
    spec = fitted_spec(config)
    card = ModelCard(
        name=name,
        network=spec.name,
        params=dict(spec.params),
        title=title or f"Clusters fitted to {picture or 'a picture'}",
        decoder=spec.decoder,
        licence=licence or OWN,
        commercial_use="-NC" not in licence,
        training_data=(f"{picture} ({licence or OWN}), without labels",) if picture else (),
        notes=f"clusters {', '.join(map(str, sorted(chosen)))} of step {result.iteration}; {config}",
    )
    # The hash of the weights is the name of their version, which results are kept under.
    _, card = encode_model(network, spec, card, half=False)
    return LoadedModel(spec, card, network)


def fitted_spec(config: ClusterConfig) -> ModelSpec:
    """Return the spec of a network that was fitted with `config`."""
    spec = network_spec("s3net")
    params = {"width": config.width, "blocks": config.blocks, "reach_px": config.reach_px}
    return replace(spec, params=params)
