"""What is measured here: the goals of speed, memory and scale, and one entry for each benchmark."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Goal:
    """What is wanted, and what others reach.

    Parameters
    ----------
    key : str
        G1 to G11 for one slide on one machine, S1 to S4 for many.
    wanted : str
        In a sentence.
    anchor : str
        What others reach, as published or measured beside ours.
    elsewhere : str
        Parts of the goal that no benchmark gives a figure of, and what holds them instead.
    """

    key: str
    wanted: str
    anchor: str
    elsewhere: str = ""


GOALS = (
    Goal("G1", "A whole slide end to end runs at 0.90 of the bare forward or more; 0.95 by the clock with a free core.",
         "TIAToolbox 0.55 to 0.59"),
    Goal("G2", "Beside the forward at most 30 CPU-ms a megapixel; a sixth of TIAToolbox and Cellpose, a twelfth of "
         "InstanSeg.",
         "TIAToolbox 230, InstanSeg 441, Cellpose distributed 217 to 262 CPU-ms/MP, these two beside other work; "
         "304 and 63 in `peers`"),
    Goal("G3",
         "Reading JPEG slides: 4 times openslide-python aligned, 3 times unaligned, 0.9 of cuCIM, two threads 1.6 "
         "times one.", "openslide-python 1, pyvips 4.7 and 4.0, cuCIM on the CPU 5.0 to 5.6",
         "Not measured: that no reader goes through PIL."),
    Goal("G4", "Post-processing takes 15 % of the forward or less, is 8 times TIAToolbox's and linear in nuclei, and "
         "matches no fewer of them.",
         "TIAToolbox 9.7 MP/cpu-s (28 yardsticks), with outlines 2.9 (92); 957 of 1,039 found"),
    Goal("G5", "Nuclei at seams: exact counts, at a tenth of InstanSeg's match_labels; 0.1 % where tiles disagree by a "
         "pixel.", "InstanSeg 3.9 to 4.4 MP/cpu-s (75 yardsticks), -0.5 %; CellViT 4.3, up to +10 %"),
    Goal("G6", "Peak memory at 100,000 px squared at most 128 MiB above that at 8,000, and 2 GiB in all.",
         "TIAToolbox 10 bytes a pixel; Cellpose 2.5 GB at 16,000; HoverFast 12.8 GB, HoVer-Net 44 GB"),
    Goal("G7", "At most 1.25 pixels forwarded for each pixel of tissue.", "HoVer-Net 2.44, InstanSeg 2.64"),
    Goal("G8",
         "After a pan: the first tile within 1.5 forwards, all within 1.3 times theirs; a seen view in 50 ms with "
         "no forward; one stale tile at most.", "micro-sam: 1.8 to 2.3 times its embedding, anew for each view"),
    Goal("G9",
         "The viewer stays fluid: a pan costs no more than direct zarr and 0.3 of dask at 100,000 px, 95 % of pans "
         "within 33 ms, the worst zoom 100 ms.", "zarr 7.4 ms, dask 39 ms at 100,000 px; worst zoom 260 to 470 ms"),
    Goal("G10", "A fine-tune costs 1.15 times its bare loop or less, its first step comes within 2 s, and it "
         "takes as long with 100 regions as with 10.",
         "Cellpose: 5 minutes, 12 with 44 pictures; its targets 0.68 MP/cpu-s"),
    Goal("G11", "The network as it is run by default: 1.25 times eager float32 with an error of 1e-3 at most, twice in "
         "bfloat16 with 0.995 of the nuclei matched.",
         "eager 1.0; ONNX Runtime 1.35 to 1.8; OpenVINO in bfloat16 2.4 to 3.4"),
    Goal("S1", "A tile among a million costs 1.05 of one among a thousand or less; a million are planned in 2 s and "
         "200 MB.", "TIAToolbox +32 % from 8,000 to 16,000 px; Cellpose +21 % from 4,000 to 16,000"),
    Goal("S2", "Workers of dask are 0.95 as busy as plain processes with tasks of 250 ms; 16 sleepers 0.90 of one. No "
         "pixels pass through the scheduler, and a worker loads a model once.",
         "dask 0.74 at 10 ms, 0.99 at 250 ms; Cellpose loads its model anew for each block",
         "Told, not judged: tiles a task. A task is given a time (2 s), in which a processor does few tiles."),
    Goal("S3", "Killed anywhere, a run repeats one task of each worker at most, sees in a second what of a million "
         "tiles is done, and ends bit for bit the same.", "no other tool states any"),
    Goal("S4", "Labels on disk take 0.3 bytes a pixel and at most 10,000 files at 100,000 px squared; chunks fit.",
         "zstd 0.05 to 0.29 B/px; writes across chunks cost 8 to 9 times"),
)  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """One script.

    Parameters
    ----------
    name : str
        As ``python -m benchmarks run`` takes it.
    question : str
        What it answers.
    method : str
        How.
    peer : str
        What it is held against in the same run.
    goals : tuple of str
        Keys of `GOALS` of which it gives figures.
    minutes : float
        Expected with `arguments` on the machine of the figures in RESULTS.md.
    arguments : tuple of str
        Of the unattended run.
    needs : tuple of str
        Of "data", "window", "peers", "gpu".
    by_hand : bool
        Takes too long, or judges accuracy: ``all`` leaves it out.
    """

    name: str
    question: str
    method: str = ""
    peer: str = ""
    goals: tuple[str, ...] = ()
    minutes: float = 2.0
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    by_hand: bool = False

    @property
    def file(self):
        return HERE / f"{self.name}.py"

    @property
    def limit_minutes(self):
        """When the unattended run is stopped."""
        return 2 * self.minutes + 1


TURNS = "Candidates in turn, one thread, CPU time, medians of the rounds with the core to themselves."

BENCHMARKS = (
    Benchmark("reading", "How fast are JPEG slides read?", TURNS,
              "openslide-python, tifffile with zarr; tiffslide, pyvips and cuCIM where their environment is",
              ("G3", "G9"), 1.0, ("--rounds", "3")),
    Benchmark("engine", "What does the engine cost beside the network, and how many pixels does it forward?",
              f"Whole slide against the bare forward of the same tiles. {TURNS}", "the bare forward, a yardstick",
              ("G1", "G2", "G7"), 3.0, ("--side", "4096", "--rounds", "3")),
    Benchmark("peers", "What do other engines cost on the same slide with the same stand-in for a network?",
              "Each in a process and an environment of its own, in turn, on one core; time in the stand-in taken off.",
              "TIAToolbox, InstanSeg, Cellpose distributed, MONAI's sliding window in memory", ("G2",), 6.0,
              ("--sides", "4096", "--rounds", "2", "--patience", "5"), ("peers",)),
    Benchmark("postprocessing", "What does it cost to make nuclei of maps, at any density?",
              f"A fixed synthetic field of 500 to 8,000 nuclei per mm2 with ideal maps. {TURNS}",
              "TIAToolbox, StarDist, InstanSeg and Cellpose where their environments are, else in yardsticks",
              ("G4",), 2.0, ("--rounds", "3")),
    Benchmark("seams", "Are nuclei whole, single and all there where tiles meet?",
              "A synthetic slide of known nuclei, tiles in any order; tiled against one piece.",
              "InstanSeg's match_labels on the same tiles where its environment is, in yardsticks",
              ("G5",), 1.5, ("--side", "2000")),
    Benchmark("memory", "Does memory grow with the slide?",
              "The same number of tiles spread over each slide, fresh processes.",
              "a slide of 8,000 px", ("G6", "S1"), 1.5, ("--tiles", "40")),
    Benchmark("interaction", "How long does one wait after a pan?",
              "Scripted pans without a window; the forward of a tile is timed in the same run.", "single-tile forwards",
              ("G8",), 1.5, ("--pans", "6")),
    Benchmark("panning", "What does a pan cost napari at the size of the slide?",
              "napari's image layer slices a view of 1,000 x 1,600 px at scripted places, without a canvas.",
              "direct zarr, dask over zarr, on the same file", ("G9",), 1.0),
    Benchmark("responsiveness", "How long does the window stand still while a model runs?",
              "A timer in the event loop, the same scripted pans with and without the model.", "the bare slide",
              ("G8", "G9"), 3.0, ("--pans", "24"), ("window",)),
    Benchmark("teaching_speed", "What does a fine-tune cost beside its network?", TURNS,
              "a bare loop of the same steps", ("G10",), 5.0, ("--rounds", "2", "--steps", "60"), ("data",)),
    Benchmark("backends", "How much faster is the network as it is run than eager float32, and does it say the same?",
              TURNS,
              "eager float32, ONNX Runtime if installed", ("G11",), 1.0, ("--rounds", "3")),
    Benchmark("planning", "What do a million tiles cost beside their pixels?", TURNS, "a thousand tiles", ("S1",
              "S3"), 2.0,
              ("--rounds", "7")),
    Benchmark("batch_scaling", "How busy are workers kept?", "The same tasks through both engines, by the wall clock.",
              "a pool of processes", ("S2",), 6.0, ("--workers", "1", "4", "16", "--rounds", "2")),
    Benchmark("batch_faults", "What is done twice when a run is killed, and is the result the same?",
              "SIGKILL at random moments to the run or a worker; the outcome compared bit for bit.", "the plain loop",
              ("S3",), 4.0, ("--kills", "6", "--repeats", "4")),
    Benchmark("store", "What does the project on disk cost?", "Tiles of dense tissue written from the middle outward.",
              "the same pasted with zarr alone", ("S4",), 1.5, ("--tiles", "48")),
    Benchmark("exchange", "How fast do nuclei go out to files and in again?",
              "GeoJSON and all other formats, CPU time.",
              "a contour at a time with OpenCV and json", (), 2.5, ("--tiles", "16")),
    Benchmark("measurements", "How fast are nuclei measured?", TURNS, "scikit-image's regionprops_table", (), 2.0,
              ("--side", "2048", "--rounds", "3")),
    Benchmark("editing", "How long does a stroke take among many nuclei?",
              "Strokes, undo and opening by the wall clock.", "",
              (), 3.0, ("--nuclei", "200000", "--edits", "300")),
    Benchmark("heads_speed", "What does looking with every head cost beside the network?", TURNS, "the bare forward",
              (), 3.0,
              ("--rounds", "2", "--region", "0")),
    Benchmark("painting", "How fast is a brush in the window?", "Scripted strokes by the wall clock.",
              "napari's own labels layer", (), 3.0, (), ("window",), by_hand=True),
    Benchmark("teaching_window", "Does the window stay fluid while a model is taught?", "A timer in the event loop.",
              "the bare slide", ("G10",), 2.0, ("--pans", "12"), ("window", "data")),
    Benchmark("models_window", "How long does the window's thread work for the model browser?",
              "Turns of the event loop.",
              needs=("window",), minutes=1.0),
    Benchmark("startup", "How long does napari wait for the plugin and its panels?", "Fresh processes, CPU seconds.",
              needs=("window",), minutes=2.0),
    Benchmark("heads_window", "How fast is another head shown in the window?", "Medians by the wall clock.",
              needs=("window",), minutes=1.5),
    Benchmark("like_window", "How soon are proposals there after a mark?", "Medians by the wall clock.",
              needs=("window", "data"), minutes=3.0, by_hand=True),
    Benchmark("batch_cohort", "Does a cohort through dask come to its end while workers are killed?",
              "Slides of 100,000 px beside the development data; complete, the same, opened by others.",
              needs=("data",), minutes=5.0, by_hand=True),
    Benchmark("gpu_speed", "How fast is the program on a GPU: forward, whole slides, a view after a pan, fine-tunes?",
              "All cores, wall time; prints its own tables.", needs=("gpu",), minutes=3.0, by_hand=True),
    Benchmark("long_run", "Do hours of work leave the window as it was?",
              "Random work; memory, files, threads, layers and stalls.", needs=("window",), minutes=120.0,
              by_hand=True),
    Benchmark("slides", "Is every slide of the development data segmented whole?", needs=("data",), minutes=3.0,
              by_hand=True),
    Benchmark("accuracy", "How well do nuclei agree with annotated ones?", "Classical floor, models, decoders.",
              needs=("data",), minutes=30.0, by_hand=True),
    Benchmark("brown", "What is it worth to ignore the brown of an immunostain?",
              "H&E whose eosin was turned into DAB.", needs=("data",), minutes=4.0, by_hand=True),
    Benchmark("zoo", "What does every network reach with one budget of training?", "Accuracy, speed and memory.",
              needs=("data",), minutes=60.0, by_hand=True),
    Benchmark("selfsupervised", "What is found without a single label?", needs=("data",), minutes=60.0, by_hand=True),
    Benchmark("attention_ablation", "What does each term of scale attention give?", needs=("data",), minutes=60.0,
              by_hand=True),
    Benchmark("attention_teaching", "What does painting attention give?", needs=("data",), minutes=20.0, by_hand=True),
    Benchmark("heads", "Which attention heads look at nuclei?", "An encoder beside random ones and the stain alone.",
              needs=("data",), minutes=20.0, by_hand=True),
    Benchmark("head_teaching", "What does painting give one head, on patients that nobody painted?", needs=("data",),
              minutes=20.0, by_hand=True),
    Benchmark("warm_starts", "What is a warm start worth with 1, 4 and 15 labelled images?", needs=("data",),
              minutes=60.0,
              by_hand=True),
    Benchmark("cohort", "Is a planted signal of whole slides found, and a shuffled one not?", minutes=20.0,
              by_hand=True),
    Benchmark("clustering", "What do clusters without labels find, and their weights reused on other pictures?",
              needs=("data",), minutes=30.0, by_hand=True),
    Benchmark("few_shot", "How many of the right nuclei are proposed from one to five marked ones?",
              peer="colour alone", needs=("data",), minutes=20.0, by_hand=True),
    Benchmark("planner", "Are planned training runs better than the fixed default at equal time?", needs=("data",),
              minutes=120.0, by_hand=True),
    Benchmark("teaching", "What do a few corrected regions give a model on other pictures?", needs=("data",),
              minutes=60.0,
              by_hand=True),
    Benchmark("teaching_guard", "Is a worse model ever adopted?", "Spoilt labels of ten kinds.", needs=("data",),
              minutes=60.0, by_hand=True),
    Benchmark("stack_teaching", "How many corrected planes does a network for z-stacks need?",
              "Synthetic stacks; scored in three dimensions on others.", minutes=20.0, by_hand=True),
    Benchmark("teaching_queue", "Does correcting where the model is unsure save corrections?", needs=("data",),
              minutes=60.0,
              by_hand=True),
)  # fmt: skip

# Scripts that are parts of others.
PARTS = {
    "__init__", "__main__", "alias_slide", "catalogue", "synthetic_fields", "drawing", "environments",
    "gpu_forward", "gpu_stages", "in_window", "measuring", "other_readers", "plots", "report", "results",
    "running", "traffic",
}  # fmt: skip


def benchmark(name):
    """The entry of that name; an error that lists all names where there is none."""
    for one in BENCHMARKS:
        if one.name == name:
            return one
    raise KeyError(f"there is no benchmark {name!r}; there are {', '.join(one.name for one in BENCHMARKS)}")
