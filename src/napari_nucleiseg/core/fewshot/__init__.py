"""Find the like: what looks like one to five marked nuclei, by prototypes on frozen features; nothing is trained."""
