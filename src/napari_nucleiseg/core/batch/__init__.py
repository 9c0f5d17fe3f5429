"""Many slides and pictures in one run: one failing does not stop the others, and what is done stays done."""
