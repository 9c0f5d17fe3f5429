"""Transformers of the library timm as encoders: those with a class token and plain attention, such as DINOv2's.

timm (Wightman, Apache-2.0) is an optional dependency, imported only when such an encoder is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.encoders import PATCH, EncoderSpec, register_encoder
from napari_nucleiseg.core.models.vit import Attended, rolled_out

NAME = "timm"
# Sizes that timm's functions take. Nothing that names a file or a download: weights come from weight files alone.
_OPTIONS = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "reg_tokens", "qk_norm")


class TimmTransformer(nn.Module):
    """A transformer of timm that says what it attends to; an `Encoder`.

    Parameters
    ----------
    vit : nn.Module
        A ``timm.models.vision_transformer.VisionTransformer`` without a classifier.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        self.prefix: int = vit.num_prefix_tokens
        self.patch_px: int = vit.patch_embed.patch_size[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of whole inputs, ``(batch, embed)``.

        Parameters
        ----------
        x : Tensor, shape (batch, 3, y, x)
            Normalised RGB of the size that the transformer was built for.
        """
        return self._pooled(self.vit.forward_features(x))

    def attend(self, x: Tensor, *, query: int = 0, rollout: bool = False) -> Attended:
        """Return features, tokens, and what one token attends to in every head of every layer.

        Parameters
        ----------
        x : Tensor, shape (batch, 3, y, x)
            As for `forward`.
        query : int
            The token that attends: 0 is the class token, then patches row by row; registers are not counted.
        rollout : bool
            Whether attention is rolled out, too.

        Raises
        ------
        ValueError
            If there is no such token.
        """
        rows, columns = x.shape[-2] // self.patch_px, x.shape[-1] // self.patch_px
        if not 0 <= query <= rows * columns:
            raise ValueError(f"there is no token {query} among {rows * columns} patches")
        token = query + self.prefix - 1 if query else 0
        found: list[Tensor] = []
        means: list[Tensor] = []

        def on_attention(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            weights = given[0].float()
            found.append(weights[:, :, token, self.prefix :])
            if rollout:
                means.append(weights.mean(dim=1))

        with _explicit([block.attn for block in self.vit.blocks], on_attention):
            tokens = self.vit.forward_features(x)
        batch, _, embed = tokens.shape
        attention = torch.stack(found, dim=1)
        rolled = rolled_out(means, token)[:, self.prefix :].reshape(batch, rows, columns) if rollout else None
        return Attended(
            features=self._pooled(tokens),
            tokens=tokens[:, self.prefix :].transpose(1, 2).reshape(batch, embed, rows, columns),
            attention=attention.reshape(*attention.shape[:3], rows, columns),
            rollout=rolled,
        )

    def _pooled(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self.vit.forward_head(tokens, pre_logits=True))


@contextmanager
def _explicit(layers: list[Any], on_attention: Callable[..., None]) -> Iterator[None]:
    """Let layers of attention make their weights for the length of the block, and hand them over."""
    fused = [layer.fused_attn for layer in layers]
    # Weights go through a dropout, which does nothing while a network is used: there they can be seen.
    hooks = [layer.attn_drop.register_forward_pre_hook(on_attention) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield
    finally:
        for layer, was, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was
            hook.remove()


@register_encoder(NAME)
def build_timm(
    *, model_name: str, img_size: int = 224, mpp_um: float = 0.5, **options: float | bool
) -> tuple[EncoderSpec, TimmTransformer]:
    """Build a transformer that timm knows by name, with random weights.

    Parameters
    ----------
    model_name : str
        As timm calls it, such as ``vit_small_patch14_reg4_dinov2``.
    img_size : int
        Side of a patch in pixels.
    mpp_um : float
        Micrometres per pixel.
    **options
        Sizes that differ from those of the name: `_OPTIONS`.

    Raises
    ------
    MissingDependencyError
        If timm is not installed or cannot be imported.
    ModelError
        If timm has no such model, or it has no class token or no plain attention.
    """
    timm = _imported()
    if surplus := sorted(set(options) - set(_OPTIONS)):
        raise ModelError(f"timm's models are not built with {', '.join(surplus)}; there are {', '.join(_OPTIONS)}")
    if not timm.is_model(model_name):
        raise ModelError(
            f"timm {timm.__version__} has no model called {model_name}; timm.list_models('vit*') shows some"
        )
    try:
        vit = timm.create_model(model_name, pretrained=False, num_classes=0, img_size=img_size, **options)
    except TypeError as error:  # convolutional networks know no size of the input
        raise ModelError(_refusal(model_name)) from error
    except AssertionError as error:
        raise ModelError(f"timm's {model_name} cannot be built with {options}: {error}") from error
    _must_attend(vit, model_name)
    config = vit.pretrained_cfg
    spec = EncoderSpec(
        NAME,
        f"What timm's {model_name} looks at",
        PATCH,
        embed=vit.embed_dim,
        depth=len(vit.blocks),
        heads=vit.blocks[0].attn.num_heads,
        mpp_um=mpp_um,
        input_px=img_size,
        patch_px=vit.patch_embed.patch_size[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        paper="https://github.com/huggingface/pytorch-image-models",
    )
    return spec, TimmTransformer(vit)


def adapted(network: TimmTransformer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published transformer's tensors under the names of a network, positions resampled to its grid.

    Parameters
    ----------
    network : TimmTransformer
        That is to have them.
    tensors : mapping of str to Tensor
        With the names that timm or the authors gave them.

    Raises
    ------
    ModelError
        If they are not those of such a transformer.
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    try:
        found = checkpoint_filter_fn(dict(tensors), network.vit)
    except (RuntimeError, LookupError, AttributeError, AssertionError, TypeError, ValueError) as error:
        raise ModelError(f"these are no tensors of the transformer that was named: {error}") from error
    return {f"vit.{key}": value for key, value in found.items()}


def _imported() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            'this encoder needs timm: install the extra zoo with pip install "napari-nucleiseg[zoo]".'
        ) from error
    except RuntimeError as error:  # that of torchvision, if it was built for another torch
        raise MissingDependencyError(
            f"timm is installed but cannot be imported ({str(error).splitlines()[0]}). Install a torchvision of the "
            "same build as torch."
        ) from error
    return cast("ModuleType", timm)


def _must_attend(vit: Any, model_name: str) -> None:
    """Refuse what has no class token, or no attention of one token to every other."""
    from timm.layers import PatchEmbed
    from timm.models.vision_transformer import Attention, VisionTransformer

    is_plain = type(vit) is VisionTransformer and vit.has_class_token and vit.global_pool == "token"
    is_plain = is_plain and type(vit.patch_embed) is PatchEmbed
    if not is_plain or any(type(getattr(block, "attn", None)) is not Attention for block in vit.blocks):
        raise ModelError(_refusal(model_name))


def _refusal(model_name: str) -> str:
    return (
        f"timm's {model_name} has no class token that attends to every patch in every layer. Choose a plain vision "
        "transformer, such as vit_small_patch16_224 or vit_small_patch14_reg4_dinov2."
    )
