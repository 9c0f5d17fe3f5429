"""Networks and weights: spec, registry, one network a file."""
