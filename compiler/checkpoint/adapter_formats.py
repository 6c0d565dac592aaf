"""Adapters by the names of their tensors: whose naming it is. `lora(…)` applies PEFT's; the others
are named.

module.part                                                     written by
lora_unet_X.lora_down.weight, .lora_up.weight, .alpha           sd-scripts (kohya), image trainers
lora_unet_X.hada_w1_a, .lokr_w2, .oft_blocks                    LyCORIS
unet.X.to_q.lora.down.weight, X.to_q_lora.up.weight             diffusers before PEFT
transformer.X.to_q.lora_A.weight                                diffusers, ai-toolkit, others
base_model.model.X.lora_A.weight                                PEFT
X.lora_A, X.lora_B                                              loralib
model.layers.0.self_attn.q_proj.lora_a                          MLX
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ...grammar.records import dataclass

_ANY = re.compile(
    r"lora|hada_|lokr_|oft_|ia3_l|vera_|dora_|base_layer|magnitude_vector|boft_|fourierft_|randlora_|hra_u|road_theta"
    r"|c3a_kernel|glora|bone_|shira_",
    re.IGNORECASE,
)
"""What every name of a factor has somewhere: looked for first, in all names at once."""

_OF_PEFT = (
    "lora_magnitude_vector|lora_ranknum|ia3_l|vera_lambda_[bd]|vera_[AB]|oft_[rRs]|boft_[Rs]|fourierft_spectrum"
    r"|randlora_\w+|hra_u|road_theta|c3a_kernel|bone_\w+|shira_weight"
)
_OF_LYCORIS = "hada_(?:w[12]_[ab]|w[12]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])|oft_(?:blocks|diag)"
_FACTORS = tuple(
    (tool, re.compile(rf"(?P<module>.*?){parts}"))
    for tool, parts in (
        ("kohya", r"\.(?P<part>lora_(?:down|up|mid))(?:\.[^.]+)?(?:\.(?:weight|bias))?"),
        ("lycoris", rf"\.(?P<part>{_OF_LYCORIS})(?:\.[^.]+)?"),
        ("diffusers", r"[._](?P<part>lora\d*\.(?:down|up)|lora_linear_layer\.(?:down|up))\.weight"),
        ("mlx", r"\.(?P<part>lora_[ab])(?:\.[^.]+){0,2}"),
        ("peft", r"\.(?P<part>lora_(?:embedding_)?[ABE])(?:\.[^.]+)?\.(?:weight|bias)"),
        ("loralib", r"\.(?P<part>lora_(?:embedding_)?[ABE])(?:\.[^.]+)?"),
        ("peft", rf"\.(?P<part>{_OF_PEFT})(?:\.[^.]+)*"),
    )
)
_BESIDE = re.compile(r"(?:(?P<module>.+?)\.|)(?:alpha|scale|dora_scale|lora_scaling|(?:base_layer\.)?weight)")
"""What belongs to the factors of a module, where it has any."""

_TITLES = {
    "kohya": "the naming of kohya-ss's sd-scripts, which most image trainers share",
    "lycoris": "the naming of LyCORIS",
    "diffusers": "diffusers' older naming",
    "image": "PEFT's names of factors, as diffusers and image trainers store them",
    "mlx": "MLX's naming",
    "peft": "PEFT's naming",
    "loralib": "loralib's naming",
}
_IMAGE = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.", "diffusion_model.", "model.diffusion_model.")


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The factors among some tensors.

    `tool` is one of the keys of `_TITLES`, `parts` what their names end in, `modules` maps each
    factor, and what belongs to one, to the module that it is for; `count` is the number of factors.
    """

    tool: str
    parts: tuple[str, ...]
    modules: Mapping[str, str]
    count: int

    @property
    def title(self) -> str:
        """Whose naming it is, with some of the names."""
        shown = ", ".join(f"`{part}`" for part in self.parts[:3])
        return f"{_TITLES[self.tool]} ({shown})"


def factors_among(names: Iterable[str]) -> Factors | None:
    """The factors of adapters among tensors of these names; None where there are none."""
    listed = list(names)
    if _ANY.search("\n".join(listed)) is None:
        return None
    found = {name: at for name in listed if (at := _factor(name)) is not None}
    if not found:
        return None
    homes = {module for _, module, _ in found.values()}
    modules = {name: module for name, (_, module, _) in found.items()}
    for name, module in _beside(listed, homes):
        modules.setdefault(name, module)
    tools = [tool for tool, _, _ in found.values()]
    tool = max(dict.fromkeys(tools), key=tools.count)
    if tool == "peft" and next(iter(found)).startswith(_IMAGE):
        tool = "image"
    parts = tuple(dict.fromkeys([part for _, _, part in found.values()]))
    if any(name.endswith(".alpha") for name in modules):
        parts = (*parts[:2], "alpha")
    return Factors(tool, parts, modules, len(found))


def _factor(name: str) -> tuple[str, str, str] | None:
    """The tool, module and part of a factor's name; None for another."""
    if _ANY.search(name) is None:
        return None
    for tool, expression in _FACTORS:
        match = expression.fullmatch("." + name)  # a module alone in a file has no name
        if match is not None:
            return tool, match["module"][1:], match["part"]
    return None


def _beside(names: Iterable[str], homes: set[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        match = _BESIDE.fullmatch(name)
        if match is not None and (match["module"] or "") in homes:
            yield name, match["module"] or ""
