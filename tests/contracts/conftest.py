"""Makes `energy_toy.py` of the models' tests, and what these tests share, importable."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "models"), str(Path(__file__).parent)]
