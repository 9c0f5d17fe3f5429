"""Training: samples, augmentation, losses, the loop."""
