"""Dock widgets; no torch in here."""
