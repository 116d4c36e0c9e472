"""Makes `energy_toy.py`, which these tests and the contract tests share, importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
