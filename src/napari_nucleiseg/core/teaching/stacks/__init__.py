"""Networks for z-stacks taught by planes that people corrected: lesson, division, examiner, loop."""
