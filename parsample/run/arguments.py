"""Whose is an argument: an option of a front door, or a parameter of the model that passes through it."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from parsample.engine.names import unknown
from parsample.targets.given import is_model
from parsample.targets.numpyro_model import NumPyroModel

P = ParamSpec("P")
T = TypeVar("T")

# Words of other libraries -> what they are here.
ELSEWHERE = {
    **dict.fromkeys(("chains", "n_chains", "nchains"), "num_chains"),
    "cores": "num_chains says how many chains there are; all run at once on JAX's device, so leave cores out",
    **dict.fromkeys(("draws", "num_draws", "n_samples", "n_draws", "iter_sampling"), "num_samples"),
    **dict.fromkeys(("n_tune", "num_tune", "iter_warmup", "n_warmup"), "num_warmup"),
    **dict.fromkeys(("random_seed", "rng_key", "rng_seed"), "seed, a whole number"),
    **dict.fromkeys(("target_accept", "target_accept_prob", "adapt_delta"), "target_acceptance"),
    **dict.fromkeys(("progressbar", "progress_bar", "show_progress"), "progress"),
    **dict.fromkeys(("initvals", "init_params", "inits", "init", "init_strategy", "jitter"), "start"),
    "thinning": "thin",
    "nuts_sampler": "sampler",
    "dense_mass": "mass='dense'",
    **dict.fromkeys(("max_tree_depth", "max_treedepth", "maxdepth"), "sampler_options={'num_integration_steps': 8}"),
    "return_inferencedata": "always so: leave it out",
    "chain_method": "not needed, for chains are an axis of the program: leave it out",
}


def serves_models(place: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a front door take `model_kwargs`, and refuse an argument that may be its own or the model's.

    Of what is given by name, the door's options are its own and the rest is the model's. Where the model has a
    parameter of the name of an option that is given, neither is guessed: `model_kwargs={"window": 7}` gives the model
    its own, and the name alone is then the option's.

    Args:
        place: of the target among the positional arguments, the first of which is 0.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = list(inspect.signature(function).parameters.values())
        options = [row.name for row in parameters if row.kind is row.KEYWORD_ONLY]
        named = [row.name for row in parameters[: place + 1]]

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            given: dict[str, Any] = dict(kwargs)
            own = given.pop("model_kwargs", None)
            target: Any = args[place] if len(args) > place else given.get(named[place])
            door = f"parsample.{function.__name__}"
            if not is_model(target) or _is_density(target, given):
                if own is not None:
                    raise ValueError(f"model_kwargs is given, but {door} has no NumPyro model here; leave it out.")
                _check_words([name for name in given if name not in options])
                return function(*args, **given)
            own = _checked(own, target, args[place + 1 :], given, options, named, door)
            if not own and len(args) > place and not any(name in given for name in named):
                return function(*args, **given)
            # What has the name of a parameter of the door, such as `target`, can only be the model's by now.
            of_door = {name: value for name, value in given.items() if name in options}
            if len(args) <= place:
                given.pop(named[place])
            of_model = {name: value for name, value in given.items() if name not in options}
            first = [*args[:place], *(of_model.pop(name) for name in named[len(args) : place] if name in of_model)]
            ready = NumPyroModel(target, *args[place + 1 :], **{**of_model, **own})
            call: Callable[..., T] = function
            return call(*first, ready, **of_door)

        return wrapper

    return decorate


def serves_own_model(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method of a `parsample.MCMC` take `model_kwargs`, and refuse what may be its own or its model's, likewise.

    The model is that of the kernel, and the first argument of the method is a key. All that is the model's by name
    reaches the method as `model_kwargs`.
    """
    parameters = list(inspect.signature(method).parameters.values())
    options = [row.name for row in parameters if row.kind is row.KEYWORD_ONLY and row.name != "model_kwargs"]
    first = parameters[1].name

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        given: dict[str, Any] = dict(kwargs)
        mcmc: Any = args[0]
        own, model, door = given.pop("model_kwargs", None), mcmc.sampler.model, f"parsample.MCMC.{method.__name__}"
        call: Callable[..., T] = method
        if model is None:
            if own is not None:
                raise ValueError(f"model_kwargs is given, but the kernel of {door} has no model; leave it out.")
            return call(*args, **given)
        has_key = len(args) > 1
        own = _checked(own, model, args[2:], given, options if has_key else [first, *options], [], door)
        of_method = {name: given.pop(name) for name in options if name in given}
        if not has_key and first in given:
            of_method[first] = given.pop(first)
        return call(*args, **of_method, model_kwargs={**given, **own})

    return wrapper


def check_left(args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError where arguments are left beside a target that takes none, but for a positional sampler."""
    if kwargs:
        raise ValueError(f"{next(iter(kwargs))} is no option here, and this target takes no arguments; leave it out.")
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments follow the target, expected at most the sampler.")


def check_meeting(model: Any, args: tuple, own: Mapping[str, Any], given: Mapping[str, Any], door: str) -> None:
    """Raise ValueError where an option that is given has the name of a parameter of the model.

    Args:
        model: a NumPyro model.
        args: its positional arguments.
        own: what can only be the model's, by name.
        given: the options that are given.
        door: that has these options, for the sentence.
    """
    parameters, _ = _parameters(model, args)
    for name in given:
        if name in parameters and name not in own:
            value = " ".join(reprlib.repr(given[name]).split())
            raise ValueError(
                f"{name}={value} may be the option of {door} or the parameter of the model {_title(model)}; write "
                f"model_kwargs={{{name!r}: ...}} for the model's, and for the option give both, "
                "the model's value in model_kwargs."
            )


def _is_density(target: Any, given: Mapping[str, Any]) -> bool:
    """Say whether a function is given with a position to start around, as only a log density is."""
    return given.get("initial_position") is not None and "initial_position" not in _parameters(target, ())[0]


def _checked(
    own: Any, model: Any, args: tuple, given: Mapping[str, Any], options: list[str], named: list[str], door: str
) -> Mapping[str, Any]:
    """Return what can only be the model's, once nothing is left that may be an option or the model's.

    Args:
        own: `model_kwargs`, or None.
        model: a NumPyro model.
        args: its positional arguments.
        given: all that is given by name.
        options: of the door.
        named: other parameters of the door, which may be given by name.
        door: for the sentences.
    """
    if own is not None and not isinstance(own, Mapping):
        raise ValueError(f"model_kwargs is a {type(own).__name__}, expected the model's arguments by name, as a dict.")
    meeting = {name: value for name, value in given.items() if name in options}
    meeting |= {} if own is None else {"model_kwargs": own}
    own = own or {}
    twice = [name for name in own if name in given and name not in options]
    if twice:
        raise ValueError(f"{twice[0]} is given twice, by itself and in model_kwargs; leave one out.")
    check_meeting(model, args, own, meeting, door)
    parameters, is_open = _parameters(model, args)
    if not is_open:
        strangers = [name for name in given if name not in options and name not in (*parameters, *named)]
        _check_words(strangers)
        if strangers:
            raise unknown(f"an argument beside the model {_title(model)}", strangers[0], [*parameters, *options])
    return own


def _check_words(names: list[str]) -> None:
    for name in names:
        if name in ELSEWHERE:
            raise ValueError(f"{name} is what other libraries call it; here it is {ELSEWHERE[name]}.")


def _parameters(model: Any, args: tuple) -> tuple[list[str], bool]:
    """Return the parameters that can be given by name beside positional ones, and whether there may be others."""
    bound = set()
    while not inspect.isroutine(model):
        if isinstance(model, functools.partial):
            bound |= set(model.keywords)
            args, model = (*model.args, *args), model.func
        elif callable(getattr(model, "fn", None)):  # one of NumPyro's handlers around a model
            model = model.fn
        else:
            break
    try:
        rows = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return [], True
    positional = [row for row in rows if row.kind in (row.POSITIONAL_ONLY, row.POSITIONAL_OR_KEYWORD)]
    taken = {row.name for row in positional[: len(args)]} | bound
    found = [row.name for row in rows if row.kind in (row.POSITIONAL_OR_KEYWORD, row.KEYWORD_ONLY)]
    return [name for name in found if name not in taken], any(row.kind is row.VAR_KEYWORD for row in rows)


def _title(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__)
