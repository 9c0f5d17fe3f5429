"""Heads of attention taught by paint: patches, division, loss, loop, guard, versions."""
