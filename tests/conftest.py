import sys
from pathlib import Path

# Helpers that several test files share live beside this file.
sys.path.insert(0, str(Path(__file__).parent))
