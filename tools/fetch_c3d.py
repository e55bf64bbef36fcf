"""Downloads C3D's weights: `tools/c3d/fetch.py` by a path that is easy to remember.

python tools/fetch_c3d.py -o data/conv3d_deepnetA_sport1m_iter_1900000
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by its path, Python looks in tools/ only

from femur3d import cli
from tools.c3d import fetch

if __name__ == "__main__":
    fetch.define_flags()
    cli.run(fetch.main)
