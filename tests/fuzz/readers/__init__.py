"""The readers of files from strangers, each with whole files to mutate. All are the project's own functions.

A reader is called with the folder of an input. It returns for files that it reads, and raises UserError for others.
The readers of the runs' folders are in `tests.fuzz.runs`.
"""

from tests.fuzz.readers.captioners import CAPTIONERS
from tests.fuzz.readers.datasets import DATASETS
from tests.fuzz.readers.images import IMAGES
from tests.fuzz.readers.lists import LISTS
from tests.fuzz.readers.presets import PRESETS
from tests.fuzz.readers.tools import TOOLS
from tests.fuzz.readers.weights import WEIGHTS

READERS = [*IMAGES, *WEIGHTS, *CAPTIONERS, *LISTS, *DATASETS, *PRESETS, *TOOLS]
