"""Whole slides judged by what is known of their patients: bags of features, labels, folds, losses, scores."""
