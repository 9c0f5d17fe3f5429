"""Models for other programs and from them: one format a file."""
