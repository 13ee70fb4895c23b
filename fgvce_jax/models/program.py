"""A function of one image as a list of equations, which can be cut where a single value passes.

JAX traces any function into equations (a jaxpr), whatever library its layers come from. Where only
one value that depends on the image is still needed, the function falls into two: from the image to
that value, and from it to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


@dataclass(frozen=True, eq=False)
class Equations:
    """Equations from inputs to an output; compared by identity, so that `jax.jit` can hold them.

    Attributes:
        steps: In order.
        inputs: The variables that are given, weights left out.
        weights: The variables of the weights.
        output: The variable that is asked for.
    """

    steps: tuple[JaxprEqn, ...]
    inputs: tuple[Var, ...]
    weights: tuple[Var, ...]
    output: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Program:
    """Equations and the weights in them: a pytree that can be called.

    Attributes:
        weights: Arrays.
        equations: What is done with them and the inputs.
    """

    weights: tuple[Any, ...]
    equations: Equations = field(metadata={"static": True})

    def __call__(self, *inputs: Any, scaled: Mapping[Var, Any] | None = None) -> Any:
        """The output; variables in `scaled` are multiplied by what is given as they arise."""
        known = self.equations
        values = dict(zip(known.weights, self.weights, strict=True))
        values |= dict(zip(known.inputs, inputs, strict=True))
        _run(known.steps, values, scaled or {})
        return _read(values, known.output)

    def between(self, start: Var, end: Any) -> Program:
        """The part that makes `end` of `start`, on which alone of the image's values it depends."""
        weights = dict(zip(self.equations.weights, self.weights, strict=True))
        steps, needed = [], {end}
        for step in reversed(self.equations.steps):
            if start not in step.outvars and needed & set(step.outvars):
                steps.append(step)
                needed |= set(_variables(step))
        held = tuple(var for var in weights if var in needed)
        equations = Equations(tuple(reversed(steps)), (start,), held, end)
        return Program(tuple(weights[var] for var in held), equations)


def trace(function: Callable[[Any], Any], *shape: int) -> tuple[Program, Any]:
    """A function of a float32 array as a program, and the shapes of all that it returns.

    Arrays that the function captures are the program's weights. Calls of jitted functions, and
    those derivative rules that hide a sum (a softmax), are dissolved into their equations.
    """
    given = jax.ShapeDtypeStruct(shape, jnp.float32)
    with jax.disable_jit():
        closed, out = jax.make_jaxpr(function, return_shape=True)(given)
        flat = jax.make_jaxpr(lambda value: _evaluate(closed.jaxpr, closed.consts, [value]))(given)
    jaxpr = flat.jaxpr
    equations = Equations(
        tuple(jaxpr.eqns), tuple(jaxpr.invars), tuple(jaxpr.constvars), jaxpr.outvars[0]
    )
    return Program(tuple(map(jnp.asarray, flat.consts)), equations), out


def passes(program: Program) -> Iterator[Var]:
    """The values through which everything that depends on the image passes, first to last."""
    known = program.equations
    last = {var: place for place, step in enumerate(known.steps) for var in _variables(step)}
    last[known.output] = len(known.steps)
    alive = {var for var in known.inputs if var in last}
    moving = set(known.inputs)  # depends on the image
    for place, step in enumerate(known.steps):
        if moving & set(_variables(step)):
            moving |= set(step.outvars)
            alive |= {var for var in step.outvars if last.get(var, -1) > place}
        alive = {var for var in alive if last[var] > place}
        if len(alive) == 1 and alive <= set(step.outvars):
            yield from alive


def attention_masses(program: Program, tokens: int) -> dict[Var, int]:
    """Exponentials that are divided by their sum over `tokens` keys, and the axis of the keys.

    To scale one by 1 - G is to add log(1 - G) to the attention's logits.
    """
    steps = program.equations.steps
    exponentials = {
        step.outvars[0] for step in steps if step.primitive.name in ("exp", "exp2", "softmax")
    }
    found = {}
    for step in steps:
        var = step.invars[0] if step.invars else None
        if step.primitive.name == "reduce_sum" and var in exponentials:
            axes = [int(axis) for axis in step.params["axes"]]
            if len(axes) == 1 and shape_of(var)[axes[0]] == tokens:
                found[var] = axes[0]
    return found


def first_product(program: Program, shape: Sequence[int]) -> Any:
    """The first factor of this shape in a product with weights: what layers behind a cut read."""
    weights = set(program.equations.weights)
    for step in program.equations.steps:
        if step.primitive.name == "dot_general" and weights & set(_variables(step)):
            for var in step.invars:
                if var not in weights and shape_of(var) == tuple(shape):
                    return var
    return program.equations.inputs[0]


def spatial_sides(program: Program, before: Var) -> tuple[int, int] | None:
    """Height and width of the last convolution's output before a value; None without one."""
    sides = None
    for step in program.equations.steps:
        if step.primitive.name == "conv_general_dilated":
            out = step.params["dimension_numbers"].out_spec
            shape = shape_of(step.outvars[0])
            if len(out) == 4:
                sides = shape[out[2]], shape[out[3]]
        if before in step.outvars:
            break
    return sides


def shape_of(var: Any) -> tuple[int, ...]:
    """The shape of a variable."""
    return tuple(var.aval.shape)


# --- evaluation ---------------------------------------------------------------------------------


def _run(steps: Sequence[JaxprEqn], values: dict[Any, Any], scaled: Mapping[Var, Any]) -> None:
    for step in steps:
        inputs = [_read(values, var) for var in step.invars]
        bound = step.primitive.get_bind_params(step.params)
        # JAX gives the functions apart up to version 0.9.
        functions, options = bound if isinstance(bound, tuple) else ((), bound)
        out = step.primitive.bind(*functions, *inputs, **options)
        outs = out if step.primitive.multiple_results else [out]
        for var, value in zip(step.outvars, outs, strict=True):
            values[var] = value * scaled[var] if var in scaled else value


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a jaxpr, with the calls in it dissolved."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))
    for step in jaxpr.eqns:
        inner = _inside(step)
        if inner is None:
            _run([step], values, {})
            continue
        given = [_read(values, var) for var in step.invars]
        outs = _evaluate(*inner, given)
        values |= dict(zip(step.outvars, outs, strict=True))
    return [_read(values, var) for var in jaxpr.outvars]


def _inside(step: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]] | None:
    """The jaxpr and constants of a call that is to be dissolved."""
    if step.primitive.name in ("scan", "while", "cond"):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = step.params.get(name)
        if isinstance(inner, ClosedJaxpr):
            inner, consts = inner.jaxpr, inner.consts
        elif isinstance(inner, Jaxpr):
            consts = ()
        else:
            continue
        # A ReLU keeps its rule: at 0 its gradient is 0.
        custom = step.primitive.name.startswith("custom_")
        if not custom or any(e.primitive.name.startswith("reduce_") for e in inner.eqns):
            return inner, consts
    return None


def _read(values: Mapping[Any, Any], var: Any) -> Any:
    return var.val if isinstance(var, Literal) else values[var]


def _variables(step: JaxprEqn) -> list[Var]:
    return [var for var in step.invars if not isinstance(var, Literal)]
