"""The few exceptions of the package; every message is a sentence that says what to do."""


class NucleiSegError(Exception):
    """Base of all errors that a user may meet; ``str(error)`` is fit to be shown."""


class SlideError(NucleiSegError):
    """A slide cannot be opened or read."""


class PixelSizeError(SlideError):
    """The micrometres per pixel of a slide are not known or cannot be right."""


class MissingPixelSizeError(PixelSizeError):
    """A slide does not state its micrometres per pixel and none was given."""


class VoxelSizeError(SlideError):
    """The micrometres per voxel of a stack are not known or cannot be right."""


class UnsupportedImageError(SlideError):
    """An image is readable but is not something this package can work on."""


class MissingDependencyError(NucleiSegError):
    """An optional package is needed; the message names the extra to install."""


class ModelError(NucleiSegError):
    """A model is unknown or cannot be built or run."""


class WeightsError(ModelError):
    """A weight file is missing, damaged, foreign or unsafe to load."""


class UnclearPackageError(WeightsError):
    """A model of another program does not say what its network means; a person must say it."""


class LicenceNotAcceptedError(ModelError):
    """Weights under a restrictive licence were asked for but not accepted yet."""


class StoreError(NucleiSegError):
    """The slide's project cannot be created, opened or written."""


class DataError(NucleiSegError):
    """Training or evaluation data are missing or do not fit together."""


class TeachingError(NucleiSegError):
    """A model cannot be taught with what there is; the message says what is missing."""


class DoubtfulLabelsError(TeachingError):
    """Regions to learn from look wrong; the message says which and why."""


class ExportError(NucleiSegError):
    """Nuclei cannot be written to another program's format."""


class ImportFileError(NucleiSegError):
    """A file of nuclei from another program cannot be taken over."""
