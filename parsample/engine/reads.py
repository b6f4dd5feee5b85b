"""What a function reads beside its arguments, so that what was compiled of it serves only while that stays the same.

JAX looks at a function once, and never again. But a user who changes a number that a function reads, and runs the cell
anew, means the new one.
"""

import collections
import contextlib
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

# Where libraries are, whose functions and globals do not change under a user's hands.
LIBRARIES = tuple({path for name in ("stdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))})
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, slice, np.dtype)
# In `__flags__` of a class that Python code made: what its instances hold is in their `__dict__`.
MADE_IN_PYTHON = 1 << 9
# Arrays of JAX never change: above so many bytes one stands for itself, and is not read through.
LARGE = 2**20


class Unknown(Exception):
    """It cannot be told what an object reads."""


class Pinned:
    """A function that equals another only if both do the same: they have the same code, and read the same.

    Where that cannot be told, it equals itself alone.

    Args:
        function: any callable.
    """

    def __init__(self, function: Callable):
        """Look at what the function reads now."""
        functools.update_wrapper(self, function, updated=())
        self.function = function
        try:
            self.read: Hashable = reads(function)
        except Unknown:
            self.read = object()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the function."""
        if name in ("function", "read"):  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.function, name)

    def __eq__(self, other: object) -> bool:
        """Say whether both do the same."""
        return isinstance(other, Pinned) and self.read == other.read

    def __hash__(self) -> int:
        """Return the hash of what is read."""
        return hash(self.read)


def pinned(tree: PyTree) -> PyTree:
    """Return the same pytree, with what is compiled for it kept apart from what was compiled when it read other things.

    Functions among its leaves become `Pinned`; a module of a user's class gets a subclass for each state of what the
    methods read.

    Args:
        tree: of arrays, functions and modules, as they are given to something that is compiled.

    Cost: what `reads` costs for the functions.
    """
    return jax.tree.map(_pinned, tree, is_leaf=_is_own)


def _is_own(node: Any) -> bool:
    """Say whether it is a module of a user's class."""
    return isinstance(node, eqx.Module) and not is_of_library(type(node))


def _is_function(leaf: Any) -> bool:
    return callable(leaf) and not isinstance(leaf, Pinned | type | jax.Array)


def _without_arrays(module: eqx.Module) -> eqx.Module:
    """Return a module without the arrays that are arguments of what is compiled."""
    return eqx.filter(module, eqx.is_array, inverse=True)


def _pinned(leaf: Any) -> Any:
    if _is_own(leaf):
        key = _key(_without_arrays(leaf))
        found: Any = object.__new__(_subclass(type(leaf), key))
        for name, value in vars(leaf).items():
            object.__setattr__(found, name, value)
        return found
    return Pinned(leaf) if _is_function(leaf) else leaf


# What the methods of a class read, and the fields that are known when it is compiled -> the subclass.
_subclasses: dict[Hashable, type] = {}


def pinned_class(cls: type) -> type:
    """Return a class of modules, or for a user's own the subclass for what its methods read now."""
    return cls if is_of_library(cls) else _subclass(cls, _key(cls))


def _key(value: Any) -> Hashable:
    try:
        return reads(value)
    except Unknown:
        return None


def _subclass(cls: type, key: Hashable) -> type:
    original = vars(cls).get("_pinned_of", cls)
    found: Any = _subclasses.get(key)
    if found is None or vars(found)["_pinned_of"] is not original:
        names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
        found = type(original)(original.__name__, (original,), {**names, "_pinned_of": original})
        if key is not None:
            _subclasses[key] = found
    return found


def reads(value: Any) -> Hashable:
    """Return what stands for a value and all that it reads: equal only for values that do the same.

    Functions are followed into their code, closures and defaults, and into the globals that their code names; classes
    into their methods; arrays stand for their numbers, objects for their class and attributes. What libraries made
    stands for itself.

    Args:
        value: a function, an argument of one, or anything that they hold.

    Raises:
        Unknown: it holds what may change unseen, such as a generator of random numbers, an open file, a table of
            pandas, or an array that is being traced.

    Cost: a hash of the arrays of NumPy, about a second for a gigabyte.
    """
    return _reads(value, _Walk({}, {}))


# By the code of a function the names of what it changes itself, such as a counter of its calls: they are not what it
# reads. And the functions of which this is known.
_own: dict[types.CodeType, set[str]] = collections.defaultdict(set)
_settled: set[Hashable] = set()


@contextlib.contextmanager
def settling(tree: PyTree) -> Iterator[bool]:
    """Trace functions for the first time; what they change on the way is not what they read.

    Args:
        tree: as for `pinned`; its functions are traced inside, once or more.

    Yields:
        Whether that has to be: some of them have not been traced so before.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree, is_leaf=_is_own) if _is_own(leaf) or _is_function(leaf)]
    new = [leaf for leaf in leaves if _code_of(leaf) not in _settled]
    before = _named(new)
    yield bool(new)
    for place, (token, found) in _named(new).items():
        if place in before and before[place][0] != token and not callable(found):
            code, name = place
            _own[code].add(name)
    # Of what a library wraps around functions the class says nothing.
    _settled.update(_code_of(leaf) for leaf in new if not _is_wrapper(leaf))


def _code_of(leaf: Any) -> Hashable:
    return cast(Hashable, leaf.__code__ if hasattr(leaf, "__code__") else type(leaf))


def _is_wrapper(leaf: Any) -> bool:
    return not hasattr(leaf, "__code__") and is_of_library(type(leaf))


def _named(leaves: list[Any]) -> dict[tuple[types.CodeType, str], tuple[Hashable, Any]]:
    walk = _Walk({}, {})
    for leaf in leaves:
        with contextlib.suppress(Unknown):
            _reads(_without_arrays(leaf) if _is_own(leaf) else leaf, walk)
    return walk.named


class _Walk(NamedTuple):
    """What was met on the way: objects by their id, and what functions read, by their code and the name in it."""

    seen: dict[int, Any]
    named: dict[tuple[types.CodeType, str], tuple[Hashable, Any]]


def _reads(value: Any, walk: _Walk) -> Hashable:
    if isinstance(value, PLAIN):
        # The kind too: 1, 1.0 and True are equal, and make different programs.
        return (type(value), repr(value))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _numbers(value)
    if isinstance(value, Pinned):
        return value
    if id(value) in walk.seen:
        return ("seen", list(walk.seen).index(id(value)))
    walk.seen[id(value)] = value  # kept, so that its id is nobody else's
    if isinstance(value, types.FunctionType) and not _stands_for_itself(value):
        return _reads_of_function(value, walk)
    parts = _parts(value)
    return value if parts is None else (type(value).__name__, *(_reads(part, walk) for part in parts))


class _Same:
    """Stands for one object, which is kept."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _numbers(value: Any) -> Hashable:
    if isinstance(value, jax.core.Tracer):
        raise Unknown
    if isinstance(value, jax.Array) and value.nbytes > LARGE:
        return _Same(value)
    kind = (type(value).__name__, str(value.dtype), value.shape, getattr(value, "weak_type", False))
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    numbers = np.ascontiguousarray(value)
    if numbers.dtype.hasobject:
        raise Unknown
    return (*kind, hashlib.sha256(numbers.tobytes()).digest())


def _parts(value: Any) -> list[Any] | None:
    """Return what stands for a value in its place; None for the value itself."""
    if _stands_for_itself(value):
        return None
    if isinstance(value, type):
        return _parts_of_class(value)
    if type(value) in PARTS:
        return PARTS[type(value)](value)
    if hasattr(value, "__dict__") and all(
        row is object or row.__flags__ & MADE_IN_PYTHON for row in type(value).__mro__
    ):
        return [type(value), vars(value)]
    raise Unknown


def _stands_for_itself(value: Any) -> bool:
    is_fixed = type(value) is object or isinstance(value, types.CodeType | np.ufunc)
    return is_fixed or (is_of_library(value) and _is_global(value))


def _reads_of_function(function: types.FunctionType, walk: _Walk) -> Hashable:
    code, tokens = function.__code__, []
    for name, value in _read_by(function).items():
        if name not in _own.get(code, ()):
            token = _reads(value, walk)
            walk.named[code, name] = token, value
            tokens.append((name, token))
    return (code, *tokens)


def _read_by(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function reads beside its arguments, by the names that its code has for it."""
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
    found |= {"(defaults)": function.__defaults__, "(keywords)": function.__kwdefaults__}
    found |= {"(wrapped)": getattr(function, "__wrapped__", None)}
    if is_of_library(function):  # made by one, of what a user gave, as `jax.vmap(function)` is
        return found
    names = sorted({name for row in _codes(code) for name in row.co_names})
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType) and not is_of_library(value):
            # What the code takes from the user's own module is among the names.
            found |= {f"{name}.{other}": vars(value)[other] for other in names if other in vars(value)}
        elif name in function.__globals__:
            found[name] = value
    return found


def _parts_of_class(cls: type) -> list[Any]:
    """Return its bases, and what it defines; of what Python and Equinox put into it only what can be called.

    Raises:
        Unknown: a library made it, but not when it was imported.
    """
    if is_of_library(cls):
        raise Unknown
    cls = vars(cls).get("_pinned_of", cls)
    kinds = (types.FunctionType, staticmethod, classmethod, property)
    own = {
        name: value
        for name, value in vars(cls).items()
        if isinstance(value, kinds) or not (name.startswith("__") or name.startswith("_abc_"))
    }
    return [cls.__name__, list(cls.__bases__), own]


# What a value of these types holds.
PARTS: dict[type, Callable[[Any], list[Any]]] = {
    types.MethodType: lambda method: [method.__func__, method.__self__],
    functools.partial: lambda partial: [partial.func, partial.args, partial.keywords],
    type(jax.jit(lambda: None)): lambda jitted: [jitted.__wrapped__],
    staticmethod: lambda method: [method.__func__],
    classmethod: lambda method: [method.__func__],
    property: lambda method: [method.fget],
    tuple: list,
    list: list,
    dict: lambda table: [part for item in table.items() for part in item],
    set: lambda values: sorted(values, key=repr),
    frozenset: lambda values: sorted(values, key=repr),
}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_global(value: Any) -> bool:
    """Say whether a name in its module leads to it, as to all that a module makes when it is imported."""
    if isinstance(value, types.ModuleType):
        return True
    found: Any = sys.modules.get(value.__module__)
    for name in str(getattr(value, "__qualname__", getattr(value, "__name__", ""))).split("."):
        found = getattr(found, name, None)
    return found is value


def is_of_library(value: Any) -> bool:
    """Say whether a module, a class or a function comes with Python, an installed library or this package."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    if not isinstance(name, str) or name == "__main__":
        return False
    package = name.partition(".")[0]
    if package in sys.stdlib_module_names or package == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and file.startswith(LIBRARIES)
