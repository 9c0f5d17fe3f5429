"""The files of a CLIP as transformers lays them out: sizes, vocabulary, licence. Nothing is unpickled or downloaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.licences import FREE, NOT_COMMERCIAL

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
VOCABULARY, MERGES, TOKENIZER = "vocab.json", "merges.txt", "tokenizer.json"
UNKNOWN = "unknown"
BEGINS, ENDS = "<|startoftext|>", "<|endoftext|>"
# Mean and standard deviation of RGB in 0..1 that the published ones were trained with.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_BOTH = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
_TEXT = (*_BOTH, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
_VISION = (*_BOTH, "num_channels", "image_size", "patch_size")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
_HOW = (
    "Where there is a connection, transformers makes such a folder: "
    "CLIPModel.from_pretrained(NAME).save_pretrained(FOLDER) and CLIPTokenizer.from_pretrained(NAME)"
    ".save_pretrained(FOLDER)."
)


@dataclass(frozen=True, slots=True)
class KnownClip:
    """A published CLIP that somebody may ask for; its files must be fetched by hand.

    Parameters
    ----------
    name : str
        As its page is called.
    licence : str
        Of the weights, as far as their authors say.
    fits : bool
        Whether its files are those of transformers' CLIPModel.
    note : str
        What to know, as a sentence.
    """

    name: str
    licence: str
    fits: bool
    note: str

    @property
    def address(self) -> str:
        """Where it is published."""
        return f"https://huggingface.co/{self.name}"


# No checksum of their weight files is known here, so none is downloaded.
KNOWN = (
    KnownClip(
        "openai/clip-vit-base-patch32",
        "MIT",
        True,
        "Trained on photographs of the web; MIT is the licence of OpenAI's repository CLIP.",
    ),
    KnownClip(
        "vinid/plip",
        UNKNOWN,
        True,
        "Trained on pictures of pathology; its code says MIT, the page of the weights states no licence: ask its "
        "authors before commercial use.",
    ),
    KnownClip(
        "MahmoodLab/CONCH",
        "CC-BY-NC-ND-4.0",
        False,
        "Trained on pathology, given on request, for academic use only; it is a CoCa of another layout.",
    ),
)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """What a folder holds beside the tensors.

    Parameters
    ----------
    weights : Path
        The safetensors file.
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
        What the README states, as SPDX identifier if it is one; else unknown.
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


def read_clip_files(path: str | Path) -> ClipFiles:
    """Read what is needed to build a CLIP.

    Parameters
    ----------
    path : path-like
        A folder in transformers' layout (``config.json``, ``model.safetensors``, ``vocab.json`` with ``merges.txt``
        or ``tokenizer.json``), or a safetensors file with the others beside it.

    Raises
    ------
    WeightsError
        If something is missing, damaged or of another kind, with what to do.
    """
    weights = _weights_of(path)
    folder = weights.parent
    config = _json(path := folder / CONFIG)
    if (kind := config.get("model_type")) != "clip":
        raise WeightsError(f"{path} is that of a {kind or 'network of no kind'}, not of a clip. {_HOW}")
    text, vision = (_sizes(config, name, keys, path) for name, keys in (("text", _TEXT), ("vision", _VISION)))
    vocabulary, merges = _vocabulary(folder)
    prepared = _json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    mean, std = (_colour(prepared, key, usual) for key, usual in (("image_mean", MEAN), ("image_std", STD)))
    projection = config.get("projection_dim") or 512
    return ClipFiles(weights, text, vision, projection, vocabulary, merges, mean, std, _licence_in(folder))


def _weights_of(path: str | Path) -> Path:
    for known in KNOWN:
        if str(path).lower() == known.name.lower() and not Path(path).exists():
            what = (
                "Download its files with a browser into a folder and give that." if known.fits else "It cannot be used."
            )
            raise WeightsError(
                f"{known.name} is not downloaded by this program: {known.address}, licence {known.licence}. "
                f"{known.note} {what}"
            )
    path = Path(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path} is no safetensors file; others may hold code and are not opened. {_HOW}")
        return path
    if not path.is_dir():
        raise WeightsError(
            f"there is no folder {path}. Give one with {CONFIG}, {WEIGHTS}, {VOCABULARY} and {MERGES}; published are "
            f"{', '.join(known.name for known in KNOWN if known.fits)}."
        )
    found = [path / WEIGHTS] if (path / WEIGHTS).is_file() else sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(
            f"{path} holds several safetensors files, none called {WEIGHTS}; give the one that is meant."
        )
    if pickles := [one.name for pattern in _PICKLES for one in sorted(path.glob(pattern))]:
        raise WeightsError(f"{path} holds only {pickles[0]}, which may hold code and is not opened. {_HOW}")
    raise WeightsError(f"{path} holds no {WEIGHTS}. {_HOW}")


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


def _licence_in(folder: Path) -> str:
    """Return the licence that the head of a README states, as such pages do."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return UNKNOWN
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    stated = _LICENCE.search(head)
    names = {name.lower(): name for name in FREE | NOT_COMMERCIAL}
    return names.get(stated[1].lower(), stated[1]) if stated else UNKNOWN
