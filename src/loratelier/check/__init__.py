"""What an adapter broke: drift, leak, behaviour, and a verdict with what can be done about it."""

from loratelier.check.check import check_adapter
from loratelier.check.curve import Calibration, calibrate
from loratelier.check.finding import Finding, Verdict
from loratelier.check.thresholds import Thresholds, load_thresholds

__all__ = [
    "Calibration",
    "Finding",
    "Thresholds",
    "Verdict",
    "calibrate",
    "check_adapter",
    "load_thresholds",
]
