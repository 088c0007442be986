"""The process of an evaluator: it loads one function and answers one stream after another.

It is run as a program of its own, from a copy in an empty folder, and imports nothing of this package, so that the
evaluator sees a caller like any other. A message is the length of a JSON head, the head, and the arrays it announces.
"""

import ctypes
import importlib
import importlib.util
import json
import os
import resource
import struct
import sys
import traceback
from pathlib import Path
from typing import Any

NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
BIND, REC, PRIVATE, NO_SUID_DEV_EXEC = 0x1000, 0x4000, 0x40000, 0xE
DIE_WITH_PARENT, SIGKILL = 1, 9
_APART = "no network, no other processes, no file of the data"
FIELDS = ("nats", "p", "positions", "bytes", "loss", "bpb", "count")


def receive(source: int) -> tuple[dict[str, Any], bytes]:
    """(head, the bytes after it); ends the process where the pipe has ended."""

    def exactly(size: int) -> bytes:
        parts = []
        while size:
            part = os.read(source, min(size, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    (size,) = struct.unpack("<q", exactly(8))
    head = json.loads(exactly(size))
    return head, exactly(head.get("size", 0))


def send(sink: int, head: dict[str, Any], body: bytes = b"") -> None:
    """Write a message."""
    text = json.dumps(head).encode()
    rest = memoryview(struct.pack("<q", len(text)) + text + body)
    while rest:
        rest = rest[os.write(sink, rest) :]


def confine(hidden: list[str]) -> list[str]:
    """Leave the network, other processes and the hidden files behind; returns what of it was not possible.

    Twice into a new user namespace: what the first has mounted, the second can't unmount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    failed: list[str] = []
    if not hasattr(libc, "unshare"):
        return [f"{_APART} (it is not Linux)"]

    def done(code: int, what: str) -> bool:
        if code:
            failed.append(f"{what} ({os.strerror(ctypes.get_errno())})")
        return code == 0

    def enter(flags: int, what: str) -> bool:
        user, group = os.getuid(), os.getgid()
        if not done(libc.unshare(NEWUSER | NEWNS | flags), what):
            return False
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
        return True

    if not enter(NEWPID | NEWNET, _APART):
        return failed
    done(libc.mount(b"none", b"/", None, REC | PRIVATE, None), "mounts of its own")
    for path in hidden:
        done(libc.mount(b"/dev/null", os.fsencode(path), None, BIND, None), f"{path} hidden")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(DIE_WITH_PARENT, SIGKILL)
    done(libc.mount(b"proc", b"/proc", b"proc", NO_SUID_DEV_EXEC, None), "a /proc of its own")
    enter(0, "mounts that stay")
    return failed


def load(module: str, function: str) -> Any:
    """The function of a module, or of a file if its name ends in .py."""
    if module.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(module).stem, module)
        assert spec is not None
        assert spec.loader is not None
        found: Any = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = found
        sys.path.insert(0, str(Path(module).parent))
        spec.loader.exec_module(found)
    else:
        found = importlib.import_module(module)
    for name in function.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{function} is no function, but a {type(found).__name__}")
    return found


def numbers(value: Any) -> tuple[Any, str]:
    """(an array of a plain value or of a tensor, the name of the type that it came in)."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        name = str(value.dtype).removeprefix("torch.")
        return np.asarray(value.float() if name == "bfloat16" else value), name
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"numbers are expected, and there is {array.dtype} of shape {array.shape}")
    return array, str(array.dtype)


def joined(parts: list[Any]) -> Any:
    """What a generator gave, in one piece: charges one by one, arrays of them, or dictionaries of arrays."""
    import numpy as np

    if parts and isinstance(parts[0], dict):
        return {name: joined([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate([np.atleast_1d(numbers(part)[0]) for part in parts]) if parts else np.zeros(0)


def plain(value: Any) -> tuple[dict[str, Any], bytes]:
    """The answer in any of its forms as (head, arrays)."""
    import numpy as np

    if isinstance(value, tuple) and len(value) == 2 and all(numbers(one)[0].ndim == 0 for one in value):
        value = {"loss": value[0], "bpb": value[1]}
    elif hasattr(value, "__next__"):
        value = joined(list(value))
    if not isinstance(value, dict):
        value = {"nats": value}
    if set(value) - set(FIELDS) or not {"nats", "p", "loss"} & set(value):
        raise TypeError(f"it gave {list(value)}: give nats, p or loss, and what there is of {', '.join(FIELDS)}")
    scalars, arrays, bodies, precision = {}, [], [], ""
    for name, given in value.items():
        array, kind = numbers(given)
        if name in ("nats", "p", "loss"):
            precision = kind
        if array.ndim == 0:
            scalars[name] = repr(float(array.astype(np.float64)))
        elif array.ndim == 1:
            arrays.append([name, len(array)])
            bodies.append(array.astype("<f8" if name in ("nats", "p") else "<i8").tobytes())
        else:
            raise TypeError(f"{name} has shape {array.shape}: give one number for each position, or one in all")
    body = b"".join(bodies)
    return {"scalars": scalars, "arrays": arrays, "precision": precision, "size": len(body)}, body


def answer(function: Any, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """What the function says to a stream: its charges, or the error that it raised."""
    import numpy as np

    stream = body if head["kind"] == "bytes" else np.frombuffer(body, "<i8").copy()
    try:
        return plain(function(stream))
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}, b""


class Pass:
    """What a function of the past is given: the tokens so far, and a state of its own."""

    def __init__(self) -> None:
        import numpy as np

        self.tokens: Any = np.zeros(1024, np.int64)
        self.length, self.state = 0, dict[str, Any]()

    def next(self, function: Any, token: int) -> tuple[dict[str, Any], bytes]:
        """What the function says after one more token, or the error that it raised."""
        import numpy as np

        if self.length == len(self.tokens):
            grown: Any = np.append(self.tokens, np.zeros_like(self.tokens))
            self.tokens = grown
        self.tokens[self.length] = token
        self.length += 1
        past = self.tokens[: self.length]
        past.flags.writeable = False
        try:
            values, precision = numbers(function(past, self.state))
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}, b""
        body = values.astype("<f8").tobytes()
        return {"shape": values.shape, "precision": precision, "size": len(body)}, body


def main() -> None:
    """Answer until the pipe ends."""
    source, sink = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the evaluator prints is no answer
    setup, _ = receive(source)
    lacking = confine(setup["hidden"])
    for limit, amount in ((resource.RLIMIT_DATA, setup["memory"]), (resource.RLIMIT_CPU, setup["seconds"])):
        if amount:
            resource.setrlimit(limit, (amount, amount))
    sys.argv[:] = ["evaluate"]
    sys.path[:1] = setup["path"]
    try:
        function = load(setup["module"], setup["function"])
    except BaseException as error:  # a module may well exit
        send(sink, {"error": f"{type(error).__name__}: {error}"})
        return
    send(sink, {"ready": True, "lacking": lacking})
    current = Pass()
    while True:
        head, body = receive(source)
        if head["kind"] == "next":
            current = Pass() if head["first"] else current
            send(sink, *current.next(function, head["token"]))
            continue
        child = os.fork() if setup["fresh"] else 0
        if child:
            os.waitpid(child, 0)
            continue
        send(sink, *answer(function, head, body))
        if setup["fresh"]:
            os._exit(0)


if __name__ == "__main__":
    main()
