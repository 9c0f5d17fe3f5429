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

from napari_nucleiseg.core.errors import DataError, ModelError, WeightsError
from napari_nucleiseg.core.fewshot.clip_files import BEGINS, ENDS, ClipFiles, read_clip_files
from napari_nucleiseg.core.fewshot.clip_source import (
    NETWORK,
    check_unchanged,
    checked_digest,
    clip_card,
    licence_must_be_accepted,
)
from napari_nucleiseg.core.models.checkpoints import read_checkpoint
from napari_nucleiseg.core.models.download import sha256_of
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import ModelCard, fit_tensors, load_tensors
from napari_nucleiseg.core.models.zoo.contract import as_module, library

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


def load_clip(path: str | Path, *, accept_licence: bool = False, sha256: str = "") -> LoadedClip:
    """Load a CLIP from a folder or file of this machine; `clip_download.get_clip` gets one from elsewhere.

    Parameters
    ----------
    path : path-like
        See `read_clip_files`.
    accept_licence : bool
        Accept a licence that is restrictive or not stated, for this call.
    sha256 : str
        Checksum that the weights must have; empty where none is known.

    Raises
    ------
    WeightsError
        If a file is missing, damaged, changed since it was downloaded, holds more than tensors and plain values, or
        its tensors do not fit exactly.
    LicenceNotAcceptedError
        If its licence is restrictive or not stated, and was not accepted.
    MissingDependencyError
        If transformers is not installed.
    """
    wanted = checked_digest(sha256)
    files = read_clip_files(path)
    folder = files.weights.resolve().parent
    licence_must_be_accepted(clip_card(folder, files.licence), accept_licence=accept_licence)
    card = clip_card(folder, files.licence, _digest(files, wanted))
    network = _network(files)
    fit_tensors(network, _tensors(files), path=files.weights, network_name=NETWORK)
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


def _tensors(files: ClipFiles) -> Mapping[str, Tensor]:
    """Return the tensors of a file of weights as float32 (integers stay), without those that are no weights."""
    path = files.weights
    if path.suffix == ".safetensors":
        tensors = load_tensors(path)
    else:
        found = read_checkpoint(path)
        if not isinstance(found, Mapping):
            raise WeightsError(f"{path} holds no named tensors; take the file of weights of transformers.")
        named = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in named.items()}
    if not all(any(key.startswith(tower) for key in tensors) for tower in _TOWERS):
        raise WeightsError(
            f"{path} holds no CLIP in transformers' layout: no tensors called {_TOWERS[0]}... and {_TOWERS[1]}... "
            "Files of open_clip and of OpenAI's own program are laid out otherwise; take those of transformers."
        )
    return {key: value for key, value in tensors.items() if not key.endswith(_NO_WEIGHT)}


def _digest(files: ClipFiles, wanted: str) -> str:
    """Return the checksum of the weights; refuse those that were downloaded and changed, or are not the wanted ones."""
    if not files.weights.is_file():
        raise WeightsError(f"there is no weight file {files.weights}")
    digest = sha256_of(files.weights)
    check_unchanged(files.weights, files.source, digest)
    if wanted and digest != wanted:
        raise WeightsError(
            f"{files.weights} is not the file that is wanted: its SHA-256 is {digest}, not {wanted}. Get it again, or "
            "look up the checksum where it is from."
        )
    return digest
