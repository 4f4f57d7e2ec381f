"""Where a row may move between two sets of records, and what of it counts against the later one."""

from typing import Literal

Direction = Literal["slower", "larger", "worse", "faster", "smaller", "better"]
REGRESSIONS: tuple[Direction, ...] = ("slower", "larger", "worse")
