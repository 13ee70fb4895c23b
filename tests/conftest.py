import sys
from pathlib import Path

from jaxtyping import install_import_hook

# Helpers that several test files share live beside this file.
sys.path.insert(0, str(Path(__file__).parent))

# Here and not by jaxtyping's option of pytest, which the workers of xdist do not get to see.
install_import_hook("fgvce_jax", "typechecker.checked")
