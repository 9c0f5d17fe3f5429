"""Self-distillation without labels (DINO): encoders of patches, and of regions made of them, learn from slides."""
