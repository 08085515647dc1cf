"""What two people may do to one run at the same time, each as a process of its own that can be killed at any moment."""

import os
import sys
import traceback

from jobs.config.run_file import RunFile
from jobs.export import export
from jobs.ingest.job import ingest_of
from jobs.run.reprocess import infer_of, reprocess
from storage_schemas import open_catalog
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

#: Refusals that a second writer is given: the process ends, and nothing of its was done by halves.
REFUSED = (
    "another process is writing", "main moved to", "when this command began", "run ingest again", "has no release",
    "holds no release", "was changed while it was read", "was lost", "belongs to one that ended", "is damaged: array",
)  # fmt: skip
DONE, TURNED_AWAY, BROKEN = 0, 3, 1


def act(what, run, out, complaints):
    """Do one thing to a run, and end the process with how it went."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    sys.argv = ["sedflow", what]
    try:
        do(what, RunFile.model_validate(run), out)
        code = DONE
    except Exception as error:
        code = TURNED_AWAY if any(words in str(error) for words in REFUSED) else BROKEN
        with open(complaints, "a") as file:
            file.write(f"--- {what}\n{traceback.format_exc()}\n")
    os._exit(code)


def do(what, run, out):
    where = run.store("catalog")
    if what == "ingest":
        ingest_of(run)
    elif what == "infer":
        infer_of(run)
    elif what == "reprocess":
        reprocess(run)
    elif what == "rollback":
        repo = catalog.repository(where)
        with releases.writing(where):
            releases.rollback(repo, "release-1")
    elif what == "export":
        export(open_catalog(where), out)
    else:
        raise AssertionError(what)
