"""Makes `water.py`, which these tests use, importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
