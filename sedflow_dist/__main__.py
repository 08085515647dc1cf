"""``python -m sedflow_dist STAGE ...``: how ceci starts the stages of RAIL's pipelines (`sedflow_dist.rail`), each as a process."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the stage that the command line names; return its exit code."""
    from ceci import PipelineStage

    from sedflow_dist import rail  # declares the stages

    assert rail.SedflowEstimator.name in PipelineStage.pipeline_stages
    return int(PipelineStage.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
