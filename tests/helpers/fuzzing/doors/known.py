"""All doors there are."""

from __future__ import annotations

from fuzzing.core import Door
from fuzzing.doors.arguments import Arguments
from fuzzing.doors.data import Data
from fuzzing.doors.images import Images
from fuzzing.doors.library import Library
from fuzzing.doors.models import Models
from fuzzing.doors.paths import Paths
from fuzzing.doors.prompts import Prompts
from fuzzing.doors.results import Results
from fuzzing.doors.runs import Runs
from fuzzing.doors.scores import Scores
from fuzzing.doors.settings import Settings

DOORS: tuple[type[Door], ...] = (
    Settings,
    Arguments,
    Scores,
    Data,
    Runs,
    Results,
    Models,
    Images,
    Prompts,
    Paths,
    Library,
)
