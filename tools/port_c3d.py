"""Ports C3D's weights to femur3d's encoder: `tools/c3d/port.py` by a path that is easy to remember.

python tools/port_c3d.py --weights data/conv3d_deepnetA_sport1m_iter_1900000 -o data/c3d_encoder.h5
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by its path, Python looks in tools/ only

from femur3d import cli
from tools.c3d import port

if __name__ == "__main__":
    port.define_flags()
    cli.run(port.main)
