"""Masked autoencoders: transformers of patches learn from slides without labels to fill tokens that were left out."""
