"""Small recipes, drawn so that most of them are right: checkpoints from a pool, and statements over
them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

POOL = ("base", "tied2", "own2", "bias2", "some2", "half2", "tied3", "own3")
"""Names of checkpoints: the digit is the number of layers (`base` has two)."""
DEPTHS = {name: 3 if name.endswith("3") else 2 for name in POOL}
_ROLES = ("attn", "attn.q", "attn.o", "mlp", "mlp.up", "norm1", "self_attn.k_proj", "mlp.down_proj.weight")
_GLOBS = ('"*.bias"', '"*"', '"*mlp*"', '"*norm*"', '"model.layers.1.*"', '"*q_proj.weight"', '"*nothing*"', '"lm_*"')


@dataclass
class _World:
    """What a recipe has bound so far: models and virtual models with their depths, numbers, lists,
    defs."""

    models: dict[str, int] = field(default_factory=dict)
    virtual: dict[str, int] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)
    defs: set[str] = field(default_factory=set)
    picked: dict[str, int] = field(default_factory=dict)

    def like(self, depth: int) -> list[str]:
        return [n for n, d in {**self.models, **self.virtual}.items() if d == depth]


class _Drawer:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw, self.world = draw, _World()

    def of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) < percent

    # --- numbers

    def plain(self) -> str:
        return self.of("0.5", "1", "0.25", "2", "-0.5", "0", "0.3", "1.5", "1_0e-1")

    def number(self, size: int = 2) -> str:
        """A number that may vary over the output."""
        kind = self.draw(st.integers(0, 11)) if size > 0 else self.draw(st.integers(0, 3))
        if kind <= 1:
            return self.plain()
        if kind == 2:
            return self.of("depth", "layer", *self.world.numbers)
        if kind == 3:
            return "curve([" + ", ".join(self.plain() for _ in range(self.draw(st.integers(1, 4)))) + "])"
        if kind == 4:
            return f"({self.number(size - 1)} if {self.condition(size - 1)} else {self.number(size - 1)})"
        if kind <= 7:
            left, right = (f"({self.number(size - 1)})" for _ in range(2))
            return f"{left} {self.of('+', '-', '*', '**' if self.chance(5) else '*')} {right}"
        if kind == 8:
            return f"{self.of('min', 'max', 'sum')}({self.number(size - 1)}, {self.number(size - 1)})"
        if kind == 9:
            return f"[{self.number(size - 1)}, {self.number(size - 1)}][{self.of('0', '1', '-1', '1 - 1')}]"
        return self.place_map(size - 1)

    def condition(self, size: int) -> str:
        if self.chance(25):
            return self.of("in_layers()", "has_vocabulary()", "true", "not in_layers()")
        test = f"{self.number(size)} {self.of('<', '<=', '>', '>=', '==', '!=')} {self.number(size)}"
        return f"{test} {self.of('and', 'or')} depth < 0.5" if self.chance(20) else test

    def place_map(self, size: int) -> str:
        entries = [f"{self.key()}: {self.number(size)}" for _ in range(self.draw(st.integers(1, 4)))]
        if self.chance(95):
            entries.insert(self.draw(st.integers(0, len(entries))), f"_: {self.number(size)}")
        return "{" + ", ".join(entries) + "}"

    def key(self) -> str:
        if self.chance(20):
            return self.of(*_GLOBS)
        if self.chance(40):
            return self.of(*_ROLES[:6])
        return self.place(2, rest=False)

    # --- places

    def index(self, depth: int) -> str:
        top = depth - 1
        choices = ["0", str(top), "-1", "*", f"0..{top}", "..0", f"{top}..", f"0..{top} by 2", "0, 1", f"{top}, 0", "1"]
        if self.chance(6):
            choices = ["0..9", "1..0", "0, 0", "*, 0", "0-1", "0 + 1", "-2..-1"]
        return self.of(*choices)

    def place(self, depth: int, *, rest: bool = True) -> str:
        if rest and self.chance(15):
            return "*"
        if self.chance(25):
            return self.of("embed", "head", "norm", "model.norm", "lm_head.weight", "model.embed_tokens")
        if self.chance(15):
            return self.of(*_GLOBS[: 4 if rest else 8])
        prefix = self.of("layers", "layers", f"layers[{self.index(depth)}]", f"layers[{self.index(depth)}]")
        prefix = self.of(prefix, prefix, prefix, prefix, "model.layers.1", f"model.layers[{self.index(depth)}]")
        return f"{prefix}.{self.of(*_ROLES)}" if self.chance(50) else prefix

    # --- regions

    def options(self, count: int) -> str:
        if self.chance(40):
            return self.number(1)
        return "[" + ", ".join(self.number(1) for _ in range(count)) + "]"

    def region(self, depth: int, size: int = 2) -> str:
        """A region of so many layers, without a place of its own."""
        names = self.world.like(depth)
        kind = self.draw(st.integers(0, 12)) if size > 0 else 0
        if kind <= 1:
            return self.of(*names)
        if kind <= 4:
            left, right = self.region(depth, size - 1), self.region(depth, size - 1)
            return f"({left} {self.of('+', '-')} {right})"
        if kind <= 6:
            return f"({self.number(1)}) * {self.region(depth, size - 1)}"
        if kind == 7:
            return f"({self.region(depth, size - 1)} if {self.condition(1)} else {self.region(depth, size - 1)})"
        if kind == 8:
            return self.assembly(depth, size - 1)
        if kind == 9:
            a, b = self.region(depth, size - 1), self.region(depth, size - 1)
            return self.of(
                f"sum([{a}, {b}])", f"max({a}, {b})", f"where({a} > {b}, {a}, {self.plain()})", f"tanh({a})",
                f"abs({a}) * sign({b})", f"{a} / (1 + total(abs({b})))", f"[{a}, {b}][{self.of('0', '-1')}]",
            )  # fmt: skip
        if kind == 10 and self.world.defs:
            return self.call(depth, size - 1)
        return self.method(depth, size - 1)

    def method(self, depth: int, size: int) -> str:
        several = [self.region(depth, size) for _ in range(self.draw(st.integers(1, 3)))]
        listed = ", ".join(several) if self.chance(80) else f"*[{', '.join(several)}]"
        name = self.of("linear", "slerp", "task_arithmetic", "ties", "nearswap", "slerp")
        if name in ("slerp", "nearswap"):
            return f"{name}({self.region(depth, size)}, {self.region(depth, size)}, t={self.number(1)})"
        out = f"{name}({listed}"
        if self.chance(70):
            out += f", weight={self.options(len(several))}"
        if name == "ties" and self.chance(60):
            out += f", density={self.of('0.5', '0.3', '1', '0', 'depth', '[0.5' + ', 0.9' * (len(several) - 1) + ']')}"
        if name != "linear" and self.chance(40):
            out += f", base={self.of(*self.world.like(depth))}"
        if self.chance(30):
            out += f", normalize={self.of('true', 'false')}"
        return out + ")"

    def call(self, depth: int, size: int) -> str:
        name = self.of(*sorted(self.world.defs))
        if name == "mean_of":
            several = [self.region(depth, size) for _ in range(self.draw(st.integers(1, 3)))]
            return f"mean_of({', '.join(several)}{f', weight={self.options(len(several))}' if self.chance(60) else ''})"
        if name == "scaled":
            return f"scaled({self.region(depth, size)}{f', factor={self.number(1)}' if self.chance(60) else ''})"
        if name == "over":
            return f"over({self.region(depth, size)}, share={self.number(1)})"
        return f"mid({self.region(depth, size)}, {self.region(depth, size)})"

    def assembly(self, depth: int, size: int) -> str:
        """A model put together from parts, of so many layers."""
        parts = []
        for _ in range(self.draw(st.integers(1, 3))):
            key = self.key()
            parts.append(f"{key}: {self.number(1) if self.chance(15) else self.region(depth, size)}")
        if self.chance(40):
            parts.insert(0, f"layers: {self.stack(depth)}")
            rest = self.of(*self.world.models)
        else:
            rest = self.of(*self.world.like(depth))
        parts.insert(self.draw(st.integers(0, len(parts))), f"_: {rest}")
        return "{" + ", ".join(parts) + "}"

    # --- regions at places

    def pick(self, count: int, below: str) -> str:
        """So many layers of something, in any order."""
        name = self.of(*self.world.models, *self.world.virtual)
        depth = {**self.world.models, **self.world.virtual}[name]
        numbers = self.draw(st.permutations(range(depth)))[:count]
        if len(numbers) < count:
            index = "*"
        elif list(numbers) == list(range(numbers[0], numbers[0] + count)) and self.chance(70):
            index = f"{numbers[0]}..{numbers[-1]}"
        else:
            index = ", ".join(map(str, numbers))
        return f"{name}.layers[{index}]{below}"

    def stack(self, depth: int) -> str:
        parts, left = [], depth
        while left > 0:
            count = self.draw(st.integers(1, min(2, left)))
            part = self.pick(count, "")
            if self.chance(25):
                part = f"slerp({part}, {self.pick(count, '')}, t={self.number(0)})"
            parts.append(part)
            left -= count
        return f"stack({', '.join(parts)})"

    # --- a recipe

    def recipe(self) -> str:
        lines = []
        for k in range(self.draw(st.integers(2, 3))):
            source = self.of(*POOL)
            name = "base" if k == 0 and self.chance(85) else "abc"[k]
            lines.append(f'let {name} = model("{source}")')
            self.world.models[name] = DEPTHS[source]
        first = next(iter(self.world.models))
        for _ in range(self.draw(st.integers(0, 3))):
            lines.append(self.binding(len(lines)))
        template = first
        settings = []
        if self.chance(50):
            template = self.of(*self.world.models)
            settings.append(f"like={template}")
        depth = self.world.models[template]
        if self.chance(10):
            depth = self.draw(st.integers(1, 3))
            settings.append(f"layers={depth}")
        if self.chance(25):
            settings.append(f'dtype="{self.of("float32", "bfloat16", "float16")}"')
        if settings:
            lines.insert(self.draw(st.integers(len(self.world.models), len(lines))), f"output({', '.join(settings)})")
        # a def is known in the whole file
        texts = [_DEFS[name] for name in sorted(self.world.defs)]
        if self.chance(85):
            lines.append(f"* = {self.region(depth)}" if self.world.like(depth) else f"* = {first}")
        for _ in range(self.draw(st.integers(0, 4))):
            lines.append(self.statement(depth))
        if self.chance(50):
            lines.append(self.of("head = tie(embed)", f"head = {self.of(*self.world.models)}"))
        return "\n".join([*lines, *texts]) + "\n" if self.chance(50) else "\n".join([*texts, *lines]) + "\n"

    def binding(self, number: int) -> str:
        kind, name = self.draw(st.integers(0, 6)), f"x{number}"
        if kind == 0:
            text = f"let {name} = {self.number(2)}"
            self.world.numbers.append(name)
            return text
        if kind <= 2:
            self.world.defs.add(self.of(*_DEFS))
            return ""
        depths = sorted(set(self.world.models.values()))
        depth = self.draw(st.sampled_from(depths))
        if kind == 3:
            depth = self.draw(st.integers(1, 4))
            text = f"{{layers: {self.stack(depth)}, _: {self.of(*self.world.models)}}}"
        else:
            text = self.region(depth)
        self.world.virtual[name] = depth
        return f"let {name} = {text}"

    def statement(self, depth: int) -> str:
        kind = self.draw(st.integers(0, 9))
        if kind == 0:
            count = self.draw(st.integers(1, 4))
            return f"{self.of('layers', 'layers[*]')} = {self.stack(count)}"
        if kind <= 3:
            count = self.draw(st.integers(1, depth))
            start = self.draw(st.integers(0, depth - count))
            below = self.of("", "", ".attn", ".mlp.up", ".norm1")
            left = f"layers[{start}..{start + count - 1}]{below}"
            right = self.pick(count, below)
            if self.chance(30) and self.world.like(depth):
                right = (
                    f"{right} + ({self.number(1)}) * ({self.of(*self.world.like(depth))} - {self.pick(count, below)})"
                )
            return f"{left} = {right}"
        if kind == 4:
            word = self.of("embed", "norm", "head")
            return f"{self.of('embed', 'norm', 'head', word)} = {self.of(*self.world.models)}.{word}"
        value = self.region(depth) if self.world.like(depth) else self.of(*self.world.models)
        return f"{self.place(depth)} = {value}"


_DEFS = {
    "scaled": "def scaled(x: region, factor: number(-20..20) = 1) = factor * x",
    "mid": "def mid(x, y, share=depth) {\n  let rest = 1 - share\n  rest * x + share * y\n}",
    "mean_of": "def mean_of(*models: region, weight: number = 1) {\n  let w = each(weight, models)\n"
    "  sum([k * m for k, m in zip(w, models)]) / (1 + sum([abs(k) for k in w]))\n}",
    "over": "def over(x: region, share: number, base: region) = base + share * (x - base)",
}


@st.composite
def recipes(draw: st.DrawFn) -> str:
    return _Drawer(draw).recipe()
