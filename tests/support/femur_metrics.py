"""Rows of metrics with round numbers: two good femurs, a missed one, and one that is nowhere."""

from __future__ import annotations

import math

from femur3d.evaluation.metrics import FemurMetrics

GOOD = FemurMetrics("hip_01", "femur_left", 0.5, 0.25, 4.0, 1.5, 0.9, 0.8, 0.95, 0.85, 100.0, 90.0, 0.4)
BETTER = FemurMetrics("hip_01", "femur_right", 0.25, 0.75, 2.0, 0.5, 1.0, 1.0, 1.0, 1.0, 110.0, 110.0, 0.2)
FAILED = FemurMetrics("hip_02", "femur_left", *(math.inf,) * 4, 0.0, 0.0, 0.0, 0.0, 120.0, 0.0, math.inf)
NOT_APPLICABLE = FemurMetrics("hip_03", "femur", *(math.nan,) * 8, 0.0, 0.0, math.nan)
