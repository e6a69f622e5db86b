"""What this process may use of its machine."""

import os


def process_cpus() -> int:
    """CPUs that this process may run on: fewer than the machine's where an affinity is set, as in containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
