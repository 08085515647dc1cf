"""The command line ``sedflow``."""

import os
import sys
from pathlib import Path

# The folder in which somebody works is no place to import from: a `cluster.py` there would be taken for our package. Python
# puts it first for `python -m`; processes that start here are told the same.
_root = str(Path(__file__).parents[2])
sys.path[:] = [path for path in sys.path if path == _root or os.path.abspath(path) not in (os.path.abspath(""), "")]
if _root not in sys.path:
    sys.path.insert(0, _root)
os.environ["PYTHONSAFEPATH"] = "1"
