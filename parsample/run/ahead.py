"""What will be needed when the draws are there, begun while XLA compiles."""

import contextlib
import sys
import threading


def import_ahead() -> None:
    """Begin to import, in the background, what ArviZ takes most of its time to import.

    It is needed when the draws are there, and until then XLA compiles, which leaves a core to others. Not ArviZ itself:
    to silence its notice takes a change of the filters for warnings, which are those of all threads. Nor pyplot, whose
    import may look for a display.
    """

    def work() -> None:
        with contextlib.suppress(Exception):  # who needs it later is told
            import matplotlib.figure  # noqa: F401
            import scipy.stats  # noqa: F401

    if "arviz" not in sys.modules:
        threading.Thread(target=work, name="parsample imports", daemon=True).start()
