"""A worker process: reads positions from its standard input, runs a model, writes what came of it.

It is started as a program of its own, not by `multiprocessing`: a script needs no `if __name__ == "__main__"`, a
notebook no module, and nothing that JAX holds is forked. What the model prints goes to the standard error stream.
"""

import os
from typing import Any, BinaryIO

import cloudpickle

from parsample.workers.model import Model

# Of a message: its length in bytes, and then its bytes.
HEAD = 8
PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from parsample.workers.child import main; main()"


def send(stream: BinaryIO, content: bytes) -> None:
    """Write a message."""
    stream.write(len(content).to_bytes(HEAD, "big") + content)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    """Read a message.

    Raises:
        EOFError: the other side is gone.
    """
    head = stream.read(HEAD)
    content = stream.read(int.from_bytes(head, "big"))
    if len(head) < HEAD or len(content) < int.from_bytes(head, "big"):
        raise EOFError
    return content


def main() -> None:
    """Serve until the standard input ends: it does when the other process is gone, however that ended."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    model: Any = None
    try:
        content = receive(requests)
        try:
            model = cloudpickle.loads(content)
            send(replies, b"")
        except Exception as error:
            send(replies, f"{type(error).__name__}: {error}".encode())
            return
        assert isinstance(model, Model)
        while True:
            send(replies, cloudpickle.dumps(model(cloudpickle.loads(receive(requests)))))
    except (EOFError, BrokenPipeError):
        pass
