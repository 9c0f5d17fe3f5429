"""From heads to nuclei and back: one decoder a file, with the training targets it needs."""
