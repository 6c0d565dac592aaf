"""mergekit's methods: what each takes, and what that is called here.

Names, scopes and defaults are those of mergekit 0.1.5.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from ...grammar.records import dataclass


class Reach(enum.Enum):
    """Whose a parameter is: the merge's, each input's, or each input's but the base's."""

    SHARED = "shared"
    INPUT = "input"
    NON_BASE = "non_base"


class Base(enum.Enum):
    """Whether `base_model` is more than one input among others."""

    IGNORED = "ignored"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Required:
    """The default of a parameter that must be given."""


REQUIRED = Required()


@dataclass(frozen=True, slots=True)
class MethodParameter:
    """`name` is mergekit's, `ours` that of the function here; without `ours` it has no effect on
    the numbers.

    `kind` is float, int or bool. `always`: written out even where it is left to its default, since
    ours is another. A `rescale` is a boolean there and the name of a norm here.
    """

    name: str
    kind: type
    reach: Reach
    default: bool | int | float | Required | None
    ours: str | None
    always: bool = False

    @property
    def norm(self) -> bool:
        return self.name == "rescale"


@dataclass(frozen=True, slots=True)
class Method:
    """`least` and `most` count all inputs; `others` is how many there must be besides the base,
    None for any number.

    `base_first`: the base is the first positional argument. `extra` are arguments that repeat a
    rule of mergekit's which is not the default here. `random`: depends on random masks.
    """

    name: str
    parameters: tuple[MethodParameter, ...]
    base: Base = Base.IGNORED
    least: int = 1
    most: int | None = None
    others: int | None = None
    base_first: bool = False
    extra: tuple[tuple[str, str], ...] = ()
    random: bool = False

    def parameter(self, name: str) -> MethodParameter | None:
        return next((p for p in self.parameters if p.name == name), None)


def _shared(name: str, kind: type, default: bool | int | float | Required, ours: str | None = "") -> MethodParameter:
    return MethodParameter(name, kind, Reach.SHARED, default, name if ours == "" else ours)


def _each(name: str, default: float | Required) -> MethodParameter:
    return MethodParameter(name, float, Reach.NON_BASE, default, name)


_WEIGHT = _each("weight", REQUIRED)
_INT8 = _shared("int8_mask", bool, False, None)


def _deltas(
    name: str,
    normalize: bool,
    rescale: bool | None,
    *more: MethodParameter,
    density: bool = True,
    always: bool = False,
    random: bool = False,
) -> Method:
    """A method of the task-arithmetic family; `rescale` None: the parameter is accepted and has no
    effect."""
    own = MethodParameter(
        "rescale", bool, Reach.SHARED, bool(rescale), "rescale" if rescale is not None else None, always=always
    )
    share = _each("density", 1.0)
    if not density:
        share = MethodParameter("density", float, Reach.NON_BASE, 1.0, None)
    parameters = (
        _WEIGHT,
        share,
        *more,
        _shared("normalize", bool, normalize),
        _shared("lambda", float, 1.0),
        own,
        _INT8,
    )
    return Method(name, parameters, Base.REQUIRED, random=random)


_GAMMA = _each("gamma", 0.01)
_EPSILON = _each("epsilon", 0.15)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "linear",
                (MethodParameter("weight", float, Reach.INPUT, REQUIRED, "weight"), _shared("normalize", bool, True)),
            ),
            Method("passthrough", (MethodParameter("scale", float, Reach.INPUT, None, "scale"),), most=1),
            Method("slerp", (_shared("t", float, REQUIRED),), Base.REQUIRED, 2, 2, base_first=True),
            Method(
                "nuslerp",
                (
                    _WEIGHT,
                    _shared("nuslerp_flatten", bool, True, "flatten"),
                    _shared("nuslerp_row_wise", bool, False, "row_wise"),
                ),
                Base.OPTIONAL,
                others=2,
                extra=(("guard", "0"),),
            ),
            Method(
                "multislerp",
                (_WEIGHT, _shared("normalize_weights", bool, True), _shared("eps", float, 1e-8)),
                Base.OPTIONAL,
            ),
            Method("karcher", (_shared("max_iter", int, 10), _shared("tol", float, 1e-5))),
            _deltas("task_arithmetic", False, None, density=False),
            _deltas("ties", True, False),
            _deltas("dare_linear", False, True, always=True, random=True),
            _deltas("dare_ties", False, True, always=True, random=True),
            _deltas("breadcrumbs", False, False, _GAMMA),
            _deltas("breadcrumbs_ties", False, False, _GAMMA),
            _deltas("della", True, True, _EPSILON, always=True, random=True),
            _deltas("della_linear", False, True, _EPSILON, always=True, random=True),
            Method("sce", (_shared("select_topk", float, 1.0), _INT8), Base.REQUIRED, extra=(("floor", "1e-6"),)),
            Method("ram", (_shared("epsilon", float, 1e-5),), Base.REQUIRED),
            Method(
                "ramplus_tl",
                (_shared("epsilon", float, 1e-5), _shared("r", float, 0.1), _shared("alpha", float, 0.2)),
                Base.REQUIRED,
            ),
            Method(
                "model_stock",
                (_shared("filter_wise", bool, False),),
                Base.REQUIRED,
                least=3,
                extra=(("floor", "1e-6"),),
            ),
            Method("nearswap", (_shared("t", float, REQUIRED),), Base.REQUIRED, 2, 2, base_first=True),
            Method("arcee_fusion", (), Base.REQUIRED, 2, 2, base_first=True),
        )
    }
)
"""By mergekit's name, which is ours too."""
