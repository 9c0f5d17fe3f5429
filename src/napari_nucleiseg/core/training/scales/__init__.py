"""Pretraining without labels: a classifier of magnification learns where to look (Sahasrabudhe et al., MICCAI 2020)."""
