"""Batch normalisation of what was pooled to one value a channel: a batch of one picture has no variance there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation after pooling over whole pictures; it can learn from one picture at a time.

    A single value is its own mean and has no variance, so that torch refuses it. Here the running statistics, those
    that are used once the network is trained, stand in for them, and do not change.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch calls it so
        """Return ``(batch, channels, y, x)`` normalised."""
        if not self.training or input.numel() > input.shape[1]:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
