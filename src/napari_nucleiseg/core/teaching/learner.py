"""A network that learns from a few examples without straying far from what it was.

Three things hold it: weights are pulled back to those it started from (L2-SP, Li et al., ICML 2018); on tissue that
nobody annotated, its colours changed at random, it must go on saying what it said (learning without forgetting, Li &
Hoiem, ECCV 2016); and what is kept may be a mean of the former and the new weights (WiSE-FT, Wortsman et al.,
CVPR 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.training.loop import moving_average, scheduled_rate, total_loss, training_device
from napari_nucleiseg.core.training.losses import UNITS, cross_entropy, weighted_mean

Tensors = dict[str, Tensor]
# Side of the crop that shows how much memory a step takes.
_TRY_PX = 96


class Learner:
    """One run from the weights of a model: `step` learns from a batch, `average` is what is measured and kept.

    The statistics of normalisation layers stay those of the model: a few crops of one slide would bend them. Networks
    for stacks are taught alike, with one more axis.

    Parameters
    ----------
    model : LoadedModel
        Where it starts; not changed.
    config : FinetuneConfig
        Rates, anchor and device.
    losses : mapping of str to float
        Weight of each head's loss.
    is_new : bool
        Whether the network knows nothing yet, so that its normalisation layers must learn as well.
    """

    def __init__(
        self, model: LoadedModel, config: FinetuneConfig, losses: Mapping[str, float], *, is_new: bool = False
    ) -> None:
        self.config, self.training = config, config.as_training(dict(losses))
        self.device, self.autocast = training_device(self.training)
        self._may_be_mixed = config.mixed_precision
        self.layout = torch.channels_last if model.spec.dimensions == 2 else torch.channels_last_3d
        start = copy.deepcopy(model.network).to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.network: nn.Module = start.train(is_new)
        self.network.requires_grad_(requires_grad=True)
        self.spec = model.spec
        self.teacher = copy.deepcopy(start).eval().requires_grad_(requires_grad=False)
        self.weights = [value for value in self.network.parameters() if value.is_floating_point()]
        self.former = [value.detach().clone() for value in self.weights]
        self.optimiser = torch.optim.AdamW(self.weights, lr=config.learning_rate, weight_decay=0.0)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=moving_average(config.ema), use_buffers=True
        )

    def kept_bytes(self) -> float:
        """Return how many bytes a pixel that goes in keeps for the backward pass; tries it with a small crop."""
        kept: dict[int, int] = {}

        def seen(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return value

        side = self.spec.fitting_side(_TRY_PX)
        whole = side + 2 * self.spec.output_margin_px
        crop = torch.zeros(1, 3, whole, whole, device=self.device)
        with torch.autograd.graph.saved_tensors_hooks(seen, lambda value: value), self.autocast:
            self.network(crop.contiguous(memory_format=torch.channels_last))
        return sum(kept.values()) / whole**2

    def step(self, batch: Mapping[str, Tensor], unlabelled: Tensor, number: int) -> tuple[float, dict[str, float]]:
        """Learn from one batch; return the loss and its parts.

        Parameters
        ----------
        batch : mapping of str to Tensor
            Images, targets and what is known of them, each ``(batch, channels, y, x)``, or with a z axis.
        unlabelled : Tensor
            Images of the same size ``(n, 3, y, x)`` on which it is to say what it said before; n may be 0.
        number : int
            Of the step, from 1.
        """
        rate = scheduled_rate(self.training, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        on_device = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        quiet = unlabelled.to(self.device, non_blocking=True).contiguous(memory_format=self.layout)
        with self.autocast:
            maps = self.network(torch.cat([on_device["image"], quiet]).contiguous(memory_format=self.layout))
        size = len(on_device["image"])
        loss, parts = total_loss({name: value[:size] for name, value in maps.items()}, on_device, self.training)
        if "attention" in parts:
            left = self._left_unpainted(on_device, maps["attention"][:size])
            loss, parts = loss + self.config.memory * left, parts | {"unpainted": float(left.detach())}
        if len(quiet):
            kept = self._former_view(quiet, {name: value[size:] for name, value in maps.items()})
            loss, parts = loss + self.config.memory * kept, parts | {"memory": float(kept.detach())}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, 5.0)
        # A slope beyond all numbers would spoil every weight. Half the precision gives such ones to some networks, as
        # to V-Net on a processor: it goes on in full. Where that does not help, the next crops have another one.
        if torch.isfinite(norm):
            self.optimiser.step()
        elif self._may_be_mixed:
            self._may_be_mixed = False
            self.autocast = torch.autocast(self.device.type, enabled=False)
            return self.step(batch, unlabelled, number)
        self._pull_back(rate * self.config.anchor)
        self.average.update_parameters(self.network)
        return float(loss.detach()), parts

    def _left_unpainted(self, batch: Mapping[str, Tensor], raw: Tensor) -> Tensor:
        """Return how far attention is from what the former model says where a person left it, and labels say nothing.

        Most of what people paint is "look here": without this the whole map would rise.
        """
        with torch.no_grad(), self.autocast:
            former = self.teacher(batch["image"])["attention"].float()
        unsaid = (1 - batch["painted"]) * (1 - batch["known"])
        return cross_entropy(raw.float(), torch.sigmoid(former), unsaid.expand_as(raw))

    def _former_view(self, images: Tensor, maps: Tensors) -> Tensor:
        """Return how far the maps are from what the former model says of the same images."""
        with torch.no_grad(), self.autocast:
            former = self.teacher(images)
        sure = torch.sigmoid(former["nuclei"].float()) if "nuclei" in former else None
        total = images.new_zeros(())
        for head in self.spec.heads:
            now, then = maps[head.name].float(), former[head.name].float()
            if head.activation == "sigmoid":
                total = total + F.binary_cross_entropy_with_logits(now, torch.sigmoid(then))
            else:
                unit = UNITS.get(head.name, 1.0)
                apart = F.smooth_l1_loss(now / unit, then / unit, reduction="none", beta=0.1)
                weights = torch.ones_like(apart) if sure is None else sure.expand_as(apart)
                total = total + 2 * weighted_mean(apart, weights)
        return total

    @torch.no_grad()
    def _pull_back(self, share: float) -> None:
        """Move all weights towards those of the former model by a share of the difference."""
        if share:
            torch._foreach_lerp_(self.weights, self.former, min(share, 1.0))

    def averaged(self) -> Tensors:
        """Return a copy of the averaged weights on the CPU, float32."""
        state = self.average.module.state_dict()
        return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}

    def forget_gradients(self) -> None:
        """Release what a step that did not fit into memory has left."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def between(former: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> Tensors:
    """Return weights on the way from `former` (share 0) to `new` (share 1).

    The mean of a model and what was fine-tuned from it keeps more of the former's skill than the latter alone
    (WiSE-FT, Wortsman et al., CVPR 2022).
    """
    return {
        key: torch.lerp(value.float(), new[key].float(), share) if value.is_floating_point() else new[key]
        for key, value in former.items()
    }
