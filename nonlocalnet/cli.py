"""The command line: from its words to a command, and from errors to exit codes."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from . import (
    __version__,
    answers,
    bulk,
    commands,
    hosting,
    looking,
    overview,
    planning,
    restoring,
    results,
    shipping,
    studies,
    zoo,
)
from .errors import UserError
from .flags import NonLocal, fitting_blocks
from .protocols import RECIPES
from .recipes import Recipe
from .terminal import OutputError, unwritable

Command = Callable[..., int]

COMMANDS: dict[str, Command] = {
    "check-data": commands.check_data,
    "prepare": bulk.prepare,
    "train": commands.train,
    "test": commands.run_test,
    "fuse": results.fuse,
    "calibrate": results.calibrate,
    "predict": answers.predict,
    "stream": answers.stream,
    "predict-many": bulk.predict_many,
    "attend": looking.attend,
    "serve": hosting.serve,
    "denoise": restoring.denoise,
    "show": overview.show,
    "cost": overview.cost,
    "recipes": planning.recipes,
    "weights": zoo.weights,
    "convert": zoo.convert,
    "export": shipping.export,
    "bench": shipping.bench,
    "doctor": commands.doctor,
    "demo": commands.demo,
    "ablate": studies.ablate,
}

TYPES = ConstructorRegistry()


@TYPES.primitive_rule
def _non_local(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """One word for `non_local`: a list of words would swallow the folder that follows it."""
    if info.type != NonLocal:
        return None

    def parse(words: list[str]) -> Any:
        word = words[0]
        if word.isdigit():
            return int(word)
        return word if re.fullmatch(r"res\d|slowfast|tsm", word) else tuple(word.split(","))

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="COUNT|STAGE|NAME,NAME",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int | str | tuple),
        str_from_instance=lambda v: [",".join(v) if isinstance(v, tuple) else str(v)],
    )


def parse(args: Sequence[str]) -> Callable[[], int]:
    """The call that a command line asks for. Exits with 2 and a hint if it asks for none."""
    calls = {name: _later(command) for name, command in COMMANDS.items()}
    # the named recipe gives the other flags their defaults, so it is looked for first
    calls["train"] = functools.partial(calls["train"], recipe=_named_recipe(args))
    call: Callable[[], int] = tyro.extras.subcommand_cli_from_dict(
        calls,
        prog="nonlocalnet",
        description=f"Non-local networks for video, version {__version__}.",
        args=args,
        config=(OmitArgPrefixes,),
        registry=TYPES,
    )
    return call


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    """The value given to a flag, as --flag VALUE or --flag=VALUE."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else following
    return None


def _named_recipe(args: Sequence[str]) -> Recipe:
    """The defaults of `train`: the recipe's, with as many blocks as the model has places for."""
    # a recipe or a model that does not exist is told when the flags are read
    recipe = RECIPES.get(_value_of("--recipe", args) or "folder", Recipe())
    model = _value_of("--model", args)
    if model is None or _value_of("--non-local", args) is not None:
        return recipe
    return replace(recipe, non_local=fitting_blocks(model, recipe.non_local))


def _later(command: Command) -> Callable[..., Any]:
    """The command as a value: tyro would take a ValueError inside it for a wrong flag."""

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return call


def main(argv: Sequence[str] | None = None) -> int:
    """The `nonlocalnet` command. Returns its exit code: 0, 1 failed, 2 usage, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name the locale cannot write is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            _flush()
    except BrokenPipeError:
        _drop_output()
        return 1
    except OutputError as error:
        _drop_output()
        return _fail(str(error), 1)
    except OSError as error:
        try:
            _flush()
        except OSError:  # it was standard output, which keeps what it could not write
            _drop_output()
            return _fail(unwritable(error), 1)
        raise


def _run(args: Sequence[str]) -> int:
    if args == ["--version"]:
        print(f"nonlocalnet {__version__}")
        return 0
    try:
        return parse(args or ["--help"])()
    except OutputError:
        raise
    except UserError as error:
        code: int = getattr(error, "exit_code", 1)
        silent = getattr(error, "silent", False)  # one of several processes speaks
        return code if silent else _fail(str(error), code)
    except ImportError as error:
        if "nonlocalnet[" not in str(error):
            raise
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def _flush() -> None:
    print(end="", flush=True)  # unlike sys.stdout.flush(), also where there is no standard output


def _drop_output() -> None:
    """Python would complain again when it closes standard output with something left to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str, code: int) -> int:
    print(f"nonlocalnet: {sentence}", file=sys.stderr)
    return code
