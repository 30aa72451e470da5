"""The head of a table: what was run, on what."""

import os
import platform
from importlib.metadata import version


def print_heading(
    title: str, measured: str, packages: tuple[str, ...] = ("jax", "flax", "optax")
) -> None:
    """Prints the title, how it was measured, the machine and the packages' versions."""
    print(f"# {title}\n\n{measured}\n")
    print(f"- {os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}")
    print(f"- {' '.join(f'{name} {version(name)}' for name in packages)}")
