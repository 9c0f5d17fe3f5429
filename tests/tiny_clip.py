"""A CLIP of a few hundred weights, set by hand: it knows dark from pale, and the words for both."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from torchvision_shim import import_timm

WORDS = ("dark", "pale", "tissue")
BEGINS, ENDS = "<|startoftext|>", "<|endoftext|>"
HIDDEN, SIDE, PATCH, LONGEST = 8, 16, 8, 20
README = "---\nlicense: mit\ntags:\n- tiny\n---\nMade for tests.\n"


def vocabulary():
    """Letters, the words and what leads up to them; the two ends are the last, as in published ones."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        done = word[0]
        for letter in (*word[1:-1], word[-1] + "</w>"):
            merges.append((done, letter))
            done += letter
            tokens.append(done)
    return {token: number for number, token in enumerate([*tokens, BEGINS, ENDS])}, merges


def build():
    """Return transformers' CLIPModel of the tiny sizes with its own first weights."""
    import_timm()  # where torchvision imports, so does transformers' network
    from transformers import CLIPConfig, CLIPModel

    words, _ = vocabulary()
    both = {"hidden_size": HIDDEN, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"bos_token_id": words[BEGINS], "eos_token_id": words[ENDS], "pad_token_id": words[ENDS]}
    text = {**both, **ends, "vocab_size": len(words), "max_position_embeddings": LONGEST, "projection_dim": 2}
    vision = {**both, "image_size": SIDE, "patch_size": PATCH, "projection_dim": 2}
    torch.manual_seed(0)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=2))


@torch.no_grad()
def taught(model):
    """Set the weights: what comes out is (dark minus pale, tissue), of words as of pictures."""
    words, _ = vocabulary()
    for value in model.parameters():
        value.zero_()
    for name, value in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            value.fill_(1)
        # Attention to all tokens alike: the last one, or that of the class, gets their mean.
        if name.endswith(("v_proj.weight", "out_proj.weight")):
            value.copy_(torch.eye(HIDDEN))
    tokens = model.text_model.embeddings.token_embedding.weight
    tokens[:, 3] = 1
    for place, word in enumerate(WORDS):
        tokens[words[word + "</w>"]] = 5 * torch.eye(HIDDEN)[place]
    model.text_projection.weight[0, :2] = torch.tensor([1.0, -1.0])
    model.text_projection.weight[1, 2], model.text_projection.weight[1, 4] = 1, -1
    patches = model.vision_model.embeddings
    patches.patch_embedding.weight[0], patches.patch_embedding.weight[1] = -1 / PATCH**2, 1 / PATCH**2
    patches.position_embedding.weight[:, 2], patches.position_embedding.weight[:, 3] = 1, -1
    model.visual_projection.weight[0, :2] = torch.tensor([1.0, -1.0])
    model.visual_projection.weight[1, 2] = 0.1  # so that grey, which is neither, is tissue
    model.logit_scale.fill_(float(np.log(10)))
    return model


def write_clip(folder, model=None, *, readme=README):
    """Write a folder in transformers' layout and return it."""
    model = taught(build()) if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    words, merges = vocabulary()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    rows = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    if readme:
        (folder / "README.md").write_text(readme, encoding="utf-8")
    return folder


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Discs on grey; `is_dark` in the order of the ids, which have gaps."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    is_dark: NDArray[np.bool_]


def nuclei(side=240):
    """Discs 40 px apart, every third one dark, the others pale, on the grey that is zero for the network."""
    ys, xs = np.mgrid[:side, :side]
    image = np.full((side, side, 3), (123, 117, 104), np.uint8)
    labels = np.zeros((side, side), np.int32)
    is_dark = []
    for place, (y, x) in enumerate((y, x) for y in range(20, side, 40) for x in range(20, side, 40)):
        disc = (ys - y) ** 2 + (xs - x) ** 2 <= 36
        labels[disc] = 3 * place + 2
        is_dark.append(place % 3 == 0)
        image[disc] = (40, 20, 60) if is_dark[-1] else (230, 190, 220)
    return Nuclei(image, labels, np.array(is_dark))
