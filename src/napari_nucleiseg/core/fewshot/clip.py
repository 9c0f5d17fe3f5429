"""CLIP (Radford et al., ICML 2021): pictures and sentences as vectors of one space, by transformers' CLIPModel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import DataError, LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.fewshot.clip_files import BEGINS, ENDS, UNKNOWN, ClipFiles, read_clip_files
from napari_nucleiseg.core.models.download import sha256_of
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.licences import allows_commercial_use
from napari_nucleiseg.core.models.weights import ModelCard, fit_tensors, load_tensors, must_be_accepted
from napari_nucleiseg.core.models.zoo.contract import as_module, library

NETWORK = "CLIPModel"
# Cosines are multiplied by no more than this, as in training.
MOST_SCALE = 100.0
_WHOSE = "scoring by text"
# Files of older versions hold the numbers of places, which are no weights.
_NO_WEIGHT = ".embeddings.position_ids"
_TOWERS = ("text_model.", "vision_model.")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedClip:
    """A CLIP with weights, on the CPU, in eval mode, float32.

    Parameters
    ----------
    card : ModelCard
        Name, licence and version of the weights.
    network : nn.Module
        transformers' ``CLIPModel``.
    tokens : callable
        From sentences to ``input_ids`` and ``attention_mask``, both ``(sentences, tokens)``.
    input_px : int
        Side of the pictures it looks at.
    longest : int
        Most tokens of a sentence, both ends included.
    mean, std : tuple of float
        Of RGB in 0..1.
    """

    card: ModelCard
    network: nn.Module
    tokens: Callable[..., Mapping[str, Any]]
    input_px: int
    longest: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before the softmax."""
        learned: Any = self.network.logit_scale
        return min(float(learned.detach().exp()), MOST_SCALE)


def load_clip(path: str | Path, *, accept_licence: bool = False) -> LoadedClip:
    """Load a CLIP from a folder or file of the user's.

    Parameters
    ----------
    path : path-like
        See `read_clip_files`.
    accept_licence : bool
        Accept a licence that is restrictive or not stated, for this call.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, a pickle, or its tensors do not fit exactly.
    LicenceNotAcceptedError
        If its licence is restrictive or not stated, and was not accepted.
    MissingDependencyError
        If transformers is not installed.
    """
    files = read_clip_files(path)
    _must_be_free(files, accept_licence=accept_licence)
    network = _network(files)
    tensors = {key: value for key, value in load_tensors(files.weights).items() if not key.endswith(_NO_WEIGHT)}
    if not all(any(key.startswith(tower) for key in tensors) for tower in _TOWERS):
        raise WeightsError(
            f"{files.weights} holds no CLIP in transformers' layout: no tensors called {_TOWERS[0]}... and "
            f"{_TOWERS[1]}... Files of open_clip and of OpenAI's own program are laid out otherwise; take those of "
            "transformers."
        )
    fit_tensors(network, tensors, path=files.weights, network_name=NETWORK)
    card = _card(files, sha256_of(files.weights))
    sizes: Any = network.config
    return LoadedClip(
        card=card,
        network=network.eval(),
        tokens=_tokenizer(files, int(sizes.text_config.vocab_size)),
        input_px=int(sizes.vision_config.image_size),
        longest=int(sizes.text_config.max_position_embeddings),
        mean=files.mean,
        std=files.std,
    )


class ClipReader:
    """Runs a CLIP on one device; numpy goes in and comes out.

    Parameters
    ----------
    clip : LoadedClip
        Left where it is; another device gets a copy.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.

    Raises
    ------
    ModelError
        If there is no such device.
    """

    def __init__(self, clip: LoadedClip, device: str = "auto") -> None:
        self.clip, self.device = clip, choose_device(device)
        network = clip.network if self.device.type == "cpu" else copy.deepcopy(clip.network).to(self.device)
        self._network: Any = network
        self._mean, self._std = (torch.tensor(values, device=self.device) * 255 for values in (clip.mean, clip.std))

    @torch.inference_mode()
    def texts(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of sentences.

        Parameters
        ----------
        sentences : sequence of str
            At least one.

        Returns
        -------
        ndarray of float32, shape (sentences, channels)
            Of length 1.

        Raises
        ------
        DataError
            If a sentence has more tokens than the network takes.
        """
        tokens = self.clip.tokens(list(sentences), padding=True)
        for sentence, marks in zip(sentences, tokens["attention_mask"], strict=True):
            if sum(marks) > self.clip.longest:
                raise DataError(
                    f"the prompt {sentence!r} is too long: {sum(marks)} tokens, and {self.clip.longest} are the most; "
                    "say it in fewer words"
                )
        ids, marks = (torch.tensor(tokens[key], device=self.device) for key in ("input_ids", "attention_mask"))
        pooled = self._network.text_model(input_ids=ids, attention_mask=marks).pooler_output
        return _unit(self._network.text_projection(pooled))

    @torch.inference_mode()
    def pictures(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of pictures.

        Parameters
        ----------
        pictures : ndarray of uint8, shape (n, input_px, input_px, 3)
            RGB.

        Returns
        -------
        ndarray of float32, shape (n, channels)
            Of length 1.

        Raises
        ------
        ModelError
            If they do not fit into the memory together.
        """
        values = torch.from_numpy(pictures).to(self.device).float()
        values = ((values - self._mean) / self._std).permute(0, 3, 1, 2)
        try:
            pooled = self._network.vision_model(pixel_values=values).pooler_output
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{len(pictures)} crops at once do not fit into the memory of {self.device}; take a smaller batch"
            ) from error
        return _unit(self._network.visual_projection(pooled))


def _unit(vectors: Tensor) -> NDArray[np.float32]:
    return np.asarray(F.normalize(vectors.float(), dim=-1).cpu().numpy(), np.float32)


def _network(files: ClipFiles) -> nn.Module:
    """Build transformers' network of the stated sizes, with any weights."""
    modeling = library("transformers.models.clip.modeling_clip", "transformers", whose=_WHOSE)
    configuration = library("transformers.models.clip.configuration_clip", "transformers", whose=_WHOSE)
    refusal = library("huggingface_hub.errors", "transformers", whose=_WHOSE).StrictDataclassError
    try:
        config = configuration.CLIPConfig(
            text_config={**files.text, "projection_dim": files.projection},
            vision_config={**files.vision, "projection_dim": files.projection},
            projection_dim=files.projection,
        )
        return as_module(modeling.CLIPModel(config))
    except (refusal, TypeError, ValueError, KeyError, ArithmeticError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"no CLIP can have the sizes that {files.weights.parent / 'config.json'} states: {said}"
        ) from error


def _tokenizer(files: ClipFiles, known: int) -> Callable[..., Mapping[str, Any]]:
    """Return transformers' tokenizer for a network that knows so many tokens."""
    if max(files.vocabulary.values()) >= known:
        raise WeightsError(
            f"the vocabulary in {files.weights.parent} has {len(files.vocabulary):,} tokens, and the weights know "
            f"{known:,}; get both from the same place."
        )
    module = library("transformers.models.clip.tokenization_clip", "transformers", whose=_WHOSE)
    made: Callable[..., Mapping[str, Any]] = module.CLIPTokenizer(
        vocab=dict(files.vocabulary), merges=list(files.merges), bos_token=BEGINS, eos_token=ENDS
    )
    return made


def _card(files: ClipFiles, digest: str) -> ModelCard:
    folder = files.weights.resolve().parent.name
    return ModelCard(
        name=folder or files.weights.stem,
        network=NETWORK,
        title="CLIP of pictures and sentences",
        licence=files.licence,
        commercial_use=allows_commercial_use(files.licence),
        sha256=digest,
    )


def _must_be_free(files: ClipFiles, *, accept_licence: bool) -> None:
    if files.licence == UNKNOWN and not accept_licence:
        raise LicenceNotAcceptedError(
            f"no file in {files.weights.parent} states the licence of these weights. Read it where they are from, then "
            "accept it (--accept-licence, or accept_licence=True), or put the README.md from there beside them."
        )
    must_be_accepted(_card(files, ""), accept_licence=accept_licence)
