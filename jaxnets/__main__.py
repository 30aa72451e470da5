"""The program `jaxnets`, and `python -m jaxnets`: the command line in a process with large pages."""

import multiprocessing
import os
import sys
from pathlib import Path

_TUNABLES, _LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def main() -> None:
    """Runs one command; see `jaxnets.cli`."""
    wanted = with_large_pages(dict(os.environ), sys.platform)
    if wanted is not None:
        # The C library reads its settings when a process begins, so it has to begin again.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
    try:
        from jaxnets import cli
    except KeyboardInterrupt:  # which `cli.main` takes, once it is there
        print("\njaxnets: interrupted", file=sys.stderr)
        sys.exit(130)
    try:
        cli.main()
    except SystemExit as end:
        if end.code in (130, 143):
            _end_now(end.code)
        raise


def _end_now(code: int) -> None:
    """Ends the process without what Python does at its end: threads of JAX, Orbax and Grain that were
    interrupted at their work can make it crash there, with another exit status."""
    for process in multiprocessing.active_children():
        process.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def with_large_pages(
    environment: dict[str, str],
    platform: str,
    kernel: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled"),
) -> dict[str, str] | None:
    """The environment in which malloc asks Linux for large pages, or None where that changes nothing.

    A train step touches much memory for the first time, which costs a fault for each page
    (benchmarks/README.md). Whoever sets `glibc.malloc.hugetlb` in GLIBC_TUNABLES is obeyed. C libraries
    other than glibc do not look at it.

    Args:
        environment: variables of the process.
        platform: as `sys.platform`.
        kernel: where Linux tells whether programs may ask for large pages.
    """
    given = environment.get(_TUNABLES, "")
    if platform != "linux" or _LARGE_PAGES in given:
        return None
    try:
        on_demand = "[madvise]" in kernel.read_text()
    except OSError:
        on_demand = False
    if not on_demand:  # never, or always without being asked
        return None
    return {**environment, _TUNABLES: ":".join(filter(None, (given, f"{_LARGE_PAGES}=1")))}


if __name__ == "__main__":
    main()
