"""Published CLIPs that somebody may ask for by name: where their weights are, under which licence, and what to know."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = "unknown"
_PICKLED = "pytorch_model.bin"
_OPENAI = (
    "MIT is the licence of OpenAI's repository CLIP; the page of the weights itself states none, and their model card "
    "calls every deployed use out of scope."
)


@dataclass(frozen=True, slots=True)
class KnownClip:
    """A published CLIP.

    Parameters
    ----------
    name : str
        As its page is called.
    title : str
        What it is for, for people.
    licence : str
        Of the weights, as far as their authors say.
    note : str
        What to know, as sentences.
    weights : str
        File of the weights that is downloaded when it is asked for by name; empty where none is.
    megabytes : int
        About how large that is.
    fits : bool
        Whether its files are those of transformers' CLIPModel.
    """

    name: str
    title: str
    licence: str
    note: str
    weights: str = ""
    megabytes: int = 0
    fits: bool = True

    @property
    def page(self) -> str:
        """Where it is published."""
        return f"https://huggingface.co/{self.name}"

    @property
    def files(self) -> str:
        """Where its files are."""
        return f"{self.page}/resolve/main"


# No checksum of any of them is known here: what is downloaded first is trusted, and checked from then on.
KNOWN = (
    KnownClip(
        "openai/clip-vit-base-patch32",
        "Patches of 32 px: the fastest",
        "MIT",
        f"Trained on photographs of the web. {_OPENAI}",
        _PICKLED,
        605,
    ),
    KnownClip(
        "openai/clip-vit-base-patch16",
        "Patches of 16 px: finer, and slower",
        "MIT",
        f"Trained on photographs of the web. {_OPENAI}",
        _PICKLED,
        600,
    ),
    KnownClip(
        "vinid/plip",
        "PLIP: pictures of pathology",
        UNKNOWN,
        "Trained on pictures of pathology; its code says MIT, the page of the weights states no licence: ask its "
        "authors before commercial use.",
    ),
    KnownClip(
        "MahmoodLab/CONCH",
        "CONCH: pictures of pathology",
        "CC-BY-NC-ND-4.0",
        "Trained on pathology, given on request, for academic use only; it is a CoCa of another layout.",
        fits=False,
    ),
)
FETCHED = tuple(known for known in KNOWN if known.weights)


def known_clip(name: str) -> KnownClip | None:
    """Return what is known of a published CLIP; None of any other."""
    return next((known for known in KNOWN if known.name.lower() == name.strip().lower()), None)
