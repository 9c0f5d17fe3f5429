"""Whole cohorts unattended: slides are cut into tasks for an engine, and one process joins what comes back."""
