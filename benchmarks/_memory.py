"""Peak memory of a process, for the benchmarks that measure it in processes of their own."""

import re
import resource
import sys
from pathlib import Path


def peak_resident() -> int:
    """Largest resident set of this process so far, bytes.

    On Linux from the kernel's record of this program: what ``getrusage`` says outlives ``exec``, so that a small child
    of a large process seems as large as its parent was.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
