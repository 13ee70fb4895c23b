import os
import sys
from pathlib import Path

from jaxtyping import install_import_hook

# Most of the tests' time is compilation, which takes two thirds as long without these passes. An
# XLA_FLAGS of one's own, an empty one too, is kept: CI compares with other libraries without it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

# Helpers that several test files share live beside this file.
sys.path.insert(0, str(Path(__file__).parent))

# Here and not by jaxtyping's option of pytest, which the workers of xdist do not get to see.
install_import_hook("fgvce_jax", "typechecker.checked")
