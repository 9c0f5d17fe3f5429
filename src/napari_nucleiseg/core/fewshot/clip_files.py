"""The files of a CLIP as transformers lays them out: sizes, vocabulary, licence. Nothing is unpickled or downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.fewshot.clip_source import ClipSource, check_unchanged, licence_in, read_source
from napari_nucleiseg.core.fewshot.known_clips import FETCHED, KnownClip, known_clip

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
PICKLED = "pytorch_model.bin"
VOCABULARY, MERGES, TOKENIZER = "vocab.json", "merges.txt", "tokenizer.json"
BEGINS, ENDS = "<|startoftext|>", "<|endoftext|>"
# Mean and standard deviation of RGB in 0..1 that the published ones were trained with.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_BOTH = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
_TEXT = (*_BOTH, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
_VISION = (*_BOTH, "num_channels", "image_size", "patch_size")
# Of these only tensors are read, by torch's reader that runs no code.
PICKLES = (".bin", ".pt", ".pth")
_HOW = (
    "Where there is a connection, transformers makes such a folder: "
    "CLIPModel.from_pretrained(NAME).save_pretrained(FOLDER) and CLIPTokenizer.from_pretrained(NAME)"
    ".save_pretrained(FOLDER)."
)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """What a folder holds beside the tensors.

    Parameters
    ----------
    weights : Path
        The safetensors file, or the checkpoint of which only tensors are read.
    text, vision : mapping
        Sizes of the two networks, by transformers' names.
    projection : int
        Length of the vectors that both end in.
    vocabulary : mapping of str to int
        Tokens and their numbers.
    merges : tuple of (str, str)
        Which pieces are joined, in that order.
    mean, std : tuple of float
        Of RGB in 0..1.
    licence : str
        As it was known when they were downloaded, or as the README states it, as SPDX identifier if it is one; else
        unknown.
    source : ClipSource or None
        Where they were downloaded from, if they were.
    """

    weights: Path
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    projection: int
    vocabulary: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    source: ClipSource | None = None


def read_clip_files(path: str | Path) -> ClipFiles:
    """Read what is needed to build a CLIP.

    Parameters
    ----------
    path : path-like
        A folder in transformers' layout (``config.json``, ``model.safetensors`` or ``pytorch_model.bin``,
        ``vocab.json`` with ``merges.txt`` or ``tokenizer.json``), or a file of weights with the others beside it.

    Raises
    ------
    WeightsError
        If something is missing, damaged, changed since it was downloaded or of another kind, with what to do.
    """
    weights = _weights_of(path)
    folder = weights.parent
    source = read_source(folder)
    for name in (CONFIG, VOCABULARY, MERGES, TOKENIZER, PREPROCESSOR):
        if (folder / name).is_file():
            check_unchanged(folder / name, source)
    config = _json(path := folder / CONFIG)
    if (kind := config.get("model_type")) != "clip":
        raise WeightsError(f"{path} is that of a {kind or 'network of no kind'}, not of a clip. {_HOW}")
    text, vision = (_sizes(config, name, keys, path) for name, keys in (("text", _TEXT), ("vision", _VISION)))
    vocabulary, merges = _vocabulary(folder)
    prepared = _json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    mean, std = (_colour(prepared, key, usual) for key, usual in (("image_mean", MEAN), ("image_std", STD)))
    projection = config.get("projection_dim") or 512
    return ClipFiles(weights, text, vision, projection, vocabulary, merges, mean, std, licence_in(folder), source)


def _weights_of(path: str | Path) -> Path:
    known = None if Path(path).exists() else known_clip(str(path))
    if known is not None:
        raise WeightsError(_absent(known))
    path = Path(path)
    if path.is_file():
        if path.suffix not in {".safetensors", *PICKLES}:
            raise WeightsError(f"{path} is no file of weights: that ends in .safetensors, {', '.join(PICKLES)}. {_HOW}")
        return path
    if not path.is_dir():
        raise WeightsError(
            f"there is no folder {path}. Give one with {CONFIG}, {WEIGHTS}, {VOCABULARY} and {MERGES}; published are "
            f"{', '.join(known.name for known in FETCHED)}."
        )
    for usual, endings in ((WEIGHTS, (".safetensors",)), (PICKLED, PICKLES)):
        found = sorted(one for one in path.glob("*") if one.suffix in endings and one.is_file())
        if (path / usual) in found:
            return path / usual
        if len(found) > 1:
            raise WeightsError(f"{path} holds several weight files, none called {usual}; give the one that is meant.")
        if found:
            return found[0]
    raise WeightsError(f"{path} holds no {WEIGHTS}. {_HOW}")


def _absent(known: KnownClip) -> str:
    """Return what there is to say of a published CLIP that is not here."""
    if known.weights:
        how = f"Get it first: `napari-nucleiseg by-text --clip {known.name}`, or core.fewshot.clip_download.get_clip."
    elif known.fits:
        how = "Where that is settled, give the address of its weights, and accept the licence."
    else:
        how = "It cannot be used."
    return f"{known.name} is not here: {known.page}, licence {known.licence}. {known.note} {how}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path.name} is missing in {path.parent}; get it from where the weights are from."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return _mapping(found, path)


def _mapping(found: object, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise WeightsError(f"{path} does not hold what its name says; get it again from where the weights are from.")
    return found


def _sizes(config: Mapping[str, Any], name: str, keys: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Return the known sizes of one network; whatever else a file may ask of transformers is left out."""
    # Files of older versions state them a second time, and that counts.
    twice = (_mapping(config.get(key) or {}, path) for key in (f"{name}_config", f"{name}_config_dict"))
    stated = {key: value for one in twice for key, value in one.items()}
    return {key: stated[key] for key in keys if stated.get(key) is not None}


def _colour(prepared: Mapping[str, Any], key: str, usual: tuple[float, ...]) -> tuple[float, ...]:
    found = prepared.get(key, usual)
    least = 0.0 if key == "image_mean" else 1e-3
    three = isinstance(found, list | tuple) and len(found) == len(usual)
    if three and all(isinstance(value, int | float) and least <= value <= 1 for value in found):
        return tuple(float(value) for value in found)
    raise WeightsError(f"{key} in {PREPROCESSOR} must be three numbers from {least:g} to 1, not {found}")


def _vocabulary(folder: Path) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    words: Any
    rows: Any
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        words = _json(folder / VOCABULARY)
        lines = [line.rstrip("\r") for line in _text(folder / MERGES).split("\n")]
        rows = [line for line in lines[lines[0].startswith("#version") :] if line]
    elif (folder / TOKENIZER).is_file():
        model = _mapping(_json(folder / TOKENIZER).get("model"), folder / TOKENIZER)
        words, rows = model.get("vocab"), model.get("merges") or []
    else:
        raise WeightsError(
            f"the vocabulary is missing in {folder}: {VOCABULARY} and {MERGES}, or {TOKENIZER}. Get it from where the "
            "weights are from."
        )
    if not isinstance(words, dict) or not all(isinstance(number, int) and number >= 0 for number in words.values()):
        raise WeightsError(f"the vocabulary in {folder} is damaged; get it again from where the weights are from.")
    if not {BEGINS, ENDS} <= words.keys():
        raise WeightsError(f"the vocabulary in {folder} is not that of a CLIP: it has no {BEGINS} and {ENDS}.")
    pairs = [tuple(row.split(" ") if isinstance(row, str) else row) for row in rows]
    # What is joined must be there, and what comes of it.
    if any(len(pair) != 2 or not {*pair, "".join(pair)} <= words.keys() for pair in pairs):
        raise WeightsError(
            f"{MERGES} in {folder} does not fit the vocabulary; get both from where the weights are from."
        )
    return words, tuple((left, right) for left, right in pairs)
