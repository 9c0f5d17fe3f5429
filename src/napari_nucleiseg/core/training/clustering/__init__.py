"""Clusters of one unlabelled picture (S3-Net): fitting, choosing the nuclei among them, applying them elsewhere."""
