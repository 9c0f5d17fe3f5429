"""Another tool's reader of slides, in its own environment; waits until it is asked, so that rounds can be in turn.

``python readers.py READER SLIDE`` answers each line of JSON on the standard input with one on the standard output:
``{"side": s, "corners": [[y, x], ...]}`` with the CPU and wall seconds of reading these squares, with nothing read
before; ``{"side": s, "corner": [y, x], "into": "FILE.npy"}`` when the pixels are in the file.
"""

import json
import os
import sys
import time

import numpy as np


def tiffslide(path):
    import tiffslide

    slide = tiffslide.TiffSlide(path)
    return lambda y, x, side: slide.read_region((x, y), 0, (side, side), as_array=True)


def pyvips(path):
    import pyvips

    pyvips.cache_set_max(0)  # else the image that is opened again is the one that was open
    region = pyvips.Region.new(pyvips.Image.new_from_file(path, access="random", page=0))

    def read(y, x, side):
        return np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, -1)

    return read


def cucim(path):
    from cucim import CuImage

    slide = CuImage(path)
    return lambda y, x, side: np.asarray(slide.read_region((x, y), (side, side)))


def timed(read, corners, side):
    """CPU and wall seconds of all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    for y, x in corners:
        read(y, x, side)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def main():
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    opened = {"tiffslide": tiffslide, "pyvips": pyvips, "cucim": cucim}[sys.argv[1]]
    for line in sys.stdin:
        asked = json.loads(line)
        read = opened(sys.argv[2])  # anew: it has forgotten what it read
        if "into" in asked:
            np.save(asked["into"], read(*asked["corner"], asked["side"])[..., :3])
            answer = {}
        else:
            answer = timed(read, asked["corners"], asked["side"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
