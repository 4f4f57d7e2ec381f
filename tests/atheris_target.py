"""One reader under atheris: ``python atheris_target.py READER FOLDER -runs=N``. An error without a name ends it."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lowrank_bench"]):
    from fuzzing import Readers

    import lowrank_bench


def main() -> None:
    """Feed one reader, from good documents on, with what covers more and more of its code."""
    what, folder, *options = sys.argv[1:]
    readers, corpus = Readers(Path(folder)), Path(folder) / "records" / "corpus"
    corpus.mkdir(parents=True)
    for number, good in enumerate(readers.good_documents[what]):
        (corpus / str(number)).write_bytes(good)
    _, read = readers.inputs[what]
    atheris.Setup([lowrank_bench.__name__, *options, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
