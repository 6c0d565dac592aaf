"""`output(…)`: what each key accepts, and the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...grammar.diagnostic import Diagnostic, MergecError, collecting, finding
from ...grammar.literals import parse_size
from ...grammar.records import dataclass
from ...grammar.source import Source, Span
from ...grammar.suggest import near
from ..checkpoint.dtypes import FLOATS, NAMES
from ..checkpoint.model import Model
from ..terms.kinds import article, kind_of
from ..terms.map_keys import plain
from ..terms.terms import Leaf, PlaceMap, Token, Union
from .calls import Given
from .statements import Recipe

SHORT: Mapping[str, str] = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "fp64": "float64",
    "double": "float64",
    "fp8": "float8_e4m3fn",
}
"""What people call the dtypes elsewhere."""

KEYS: Mapping[str, str] = {
    "like": "the template: depth, shapes, dtypes, names and configuration come from it",
    "dtype": "the dtype of all float tensors; the template's where it is not given",
    "layers": "the number of layers",
    "layout": "the layout (names and fusions) of the output; the template's where it is not given",
    "shard_size": "the largest weight file, such as `5GB`",
    "tokenizer": "a model, or `union(a, b)`: whose vocabulary the output has",
    "tokens": 'rows of single tokens: a map from token to model, `zero` or `token(a, "<x>")`',
    "pad_vocab_to": "the vocabulary is padded to a multiple of this",
    "pad_rows": "what rows without a token hold: the `mean` of the model's other rows, or `zero`",
    "resize": "tensors of unequal sizes: `error`, cut to what is `common`, or to the template's size (`base`)",
    "chat_template": "a model, a name (`alpaca`, `chatml`, `llama3`, `mistral`), or the template's text",
    "config": "a map that is merged into config.json",
    "seed": "the seed of random masks",
    "compute": "the dtype of arithmetic: `float32` or `float64`",
    "on_nonfinite": "what to do about infinities and NaNs: `report` those computed, or `error`: no output that has any",
    "license": "the licence named in the model card",
}

CHAT_TEMPLATES = ("alpaca", "chatml", "llama3", "mistral")
"""Names of the chat templates in `chat_templates/`."""

MOST_PADDING = 1 << 20
"""The largest `pad_vocab_to`."""

DEFAULT_SHARD = 5 * 10**9


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """The settings of the output, checked. `spans` says where each was given; `template_named`
    whether the recipe named one."""

    template: Model
    template_named: bool
    dtype: str | None
    layers: int | None
    layout: str | None
    shard_size: int
    tokenizer: Model | Union | None
    tokens: Mapping[str, Any]
    pad_vocab_to: int | None
    pad_rows: str
    resize: str
    chat_template: Model | str | None
    config: Mapping[str, Any]
    seed: int
    compute: str
    on_nonfinite: str
    license: str | None
    strict: bool
    spans: Mapping[str, Span]


def settings_of(recipe: Recipe, overrides: Mapping[str, Any], strict: bool) -> Settings:
    """Checks the recipe's settings; `overrides` is `--set output.KEY=value`. Raises MergecError
    with all that is wrong."""
    errors: list[Diagnostic] = []
    given = dict(recipe.settings)
    for key, value in overrides.items():
        text = f"--set output.{key}={value}"
        given[key] = Given(key, value, Span(Source("<command line>", text), 0, len(text)))
    for key, argument in given.items():
        if key not in KEYS:
            likely = near(key, KEYS, 1, 0.5)
            errors.append(
                finding(
                    "E0203",
                    f"the output has no setting `{key}`",
                    argument.where,
                    "unknown setting",
                    notes=f"its settings are {', '.join(f'`{k}`' for k in KEYS)}",
                    help=f"did you mean `{likely[0]}`?" if likely else (),
                )
            )
    check = _Checker(given, errors)
    template, named = _template(recipe, check)
    tokens = check.map("tokens")
    out = Settings(
        template=template,
        template_named=named,
        dtype=check.dtype("dtype"),
        layers=check.integer("layers", 1),
        layout=check.text("layout"),
        shard_size=check.size("shard_size", DEFAULT_SHARD),
        tokenizer=check.tokenizer("tokenizer"),
        tokens={key: value for key, value in tokens.items() if check.token(key, value)},
        pad_vocab_to=check.integer("pad_vocab_to", 1, MOST_PADDING),
        pad_rows=check.choice("pad_rows", ("mean", "zero")),
        resize=check.choice("resize", ("error", "common", "base")),
        chat_template=check.chat_template("chat_template"),
        config=check.map("config"),
        seed=check.integer("seed", 0) or 0,
        compute=check.compute("compute"),
        on_nonfinite="error" if strict else check.choice("on_nonfinite", ("report", "error")),
        license=check.text("license"),
        strict=strict,
        spans={key: argument.span for key, argument in given.items()},
    )
    known = {layout.name for layout in template.family.layouts} | {"canonical"}
    if out.layout is not None and out.layout not in known:
        check.wrong("layout", "a layout of its family: " + " or ".join(f"`{k}`" for k in sorted(known)))
    if errors:
        raise MergecError(errors)
    return out


def _template(recipe: Recipe, check: _Checker) -> tuple[Model, bool]:
    like = check.given.get("like")
    if like is not None:
        if isinstance(like.value, Leaf) and like.value.path is None:
            return like.value.model, True
        check.wrong("like", "a model")
    for model in recipe.models:
        if model.label == "base":
            return model, True
    if not recipe.models:
        none = finding("E0220", "the recipe names no model", help='name one: `let base = model("…")`')
        raise MergecError([*check.errors, none])
    return recipe.models[0], False


class _Checker:
    """One method per kind of setting; what is wrong goes to `errors`."""

    def __init__(self, given: Mapping[str, Given], errors: list[Diagnostic]) -> None:
        self.given, self.errors = given, errors

    def wrong(self, key: str, wanted: str, *help: str) -> None:
        """Reports a setting that is not `wanted`: a noun with its article, or the values that are
        allowed."""
        value, span = self.given[key].value, self.given[key].span
        found = f'"{value}"' if isinstance(value, str) else kind_of(value)
        message, notes = f"`{key}` must be {wanted}, not {found}", f"`{key}` is {KEYS[key]}" if key in KEYS else ()
        self.errors.append(finding("E0208", message, span, "not allowed here", notes=notes, help=help))

    def text(self, key: str) -> str | None:
        if key not in self.given:
            return None
        value = self.given[key].value
        if value is None or isinstance(value, str):
            return value
        self.wrong(key, article("string"))
        return None

    def integer(self, key: str, low: int, high: int = 2**63 - 1) -> int | None:
        if key not in self.given:
            return None
        value = self.given[key].value
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        bounds = f"of at least {low}" if high >= 2**62 else f"from {low} to {high}"
        self.wrong(key, f"a whole number {bounds}")
        return None

    def dtype(self, key: str) -> str | None:
        value = self.text(key)
        if value is None:
            return None
        name = NAMES.get(value.removeprefix("torch."), value)
        if name in FLOATS:
            return name
        meant = SHORT.get(value.lower())
        help = (f"did you mean `{meant}`?",) if meant else ()
        self.wrong(key, "one of " + ", ".join(f"`{k}`" for k, v in NAMES.items() if v in FLOATS), *help)
        return None

    def compute(self, key: str) -> str:
        value = self.text(key)
        if value in (None, "float32", "float64"):
            return "F64" if value == "float64" else "F32"
        self.wrong(key, "`float32` or `float64`")
        return "F32"

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of some words; the first where none is given."""
        value = self.text(key)
        if value is None or value in allowed:
            return value or allowed[0]
        self.wrong(key, " or ".join(f"`{word}`" for word in allowed))
        return allowed[0]

    def size(self, key: str, default: int) -> int:
        if key not in self.given:
            return default
        value = self.given[key].value
        size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(value)
        if size is not None and size > 0:
            return size
        self.wrong(key, "a size such as `5GB` or `500MiB`")
        return default

    def tokenizer(self, key: str) -> Model | Union | None:
        if key not in self.given:
            return None
        value = self.given[key].value
        if isinstance(value, Leaf) and value.path is None:
            return value.model
        if isinstance(value, Union):
            return value
        self.wrong(key, "a model or `union(a, b)`")
        return None

    def chat_template(self, key: str) -> Model | str | None:
        if key not in self.given:
            return None
        value = self.given[key].value
        if isinstance(value, Leaf) and value.path is None:
            return value.model
        # a template says something of its messages; a bare word that is no name is a slip
        if isinstance(value, str) and (value in CHAT_TEMPLATES or "{" in value):
            return value
        self.wrong(key, "a model, a template's text, or one of " + ", ".join(f"`{name}`" for name in CHAT_TEMPLATES))
        return None

    def map(self, key: str) -> dict[str, Any]:
        if key not in self.given:
            return {}
        value = self.given[key].value
        if not isinstance(value, PlaceMap):
            self.wrong(key, "a map `{…}`")
            return {}
        with collecting(self.errors):
            return {name: _plain(inner) for name, inner in plain(value.entries).items()}
        return {}

    def token(self, key: str, value: Any) -> bool:
        if isinstance(value, Token | Leaf) or value == "zero":
            return True
        message = f'the row of `{key}` must be a model, "zero" or `token(model, "…")`, not {kind_of(value)}'
        self.errors.append(finding("E0208", message, self.given["tokens"].span))
        return False


def _plain(value: Any) -> Any:
    """Maps and lists of a setting as plain dicts and lists."""
    if isinstance(value, PlaceMap):
        return {name: _plain(inner) for name, inner in plain(value.entries).items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
