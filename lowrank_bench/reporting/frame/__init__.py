"""Records as the rows of one frame, and what several of them say together."""
