"""Settings of every test."""

from hypothesis import settings

# The same examples on every machine and in every run; no deadline, since two cores are shared with whatever else runs.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
