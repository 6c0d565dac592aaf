"""What is said when a merge is done."""

from __future__ import annotations

from ...compiler.pipeline import Compilation
from ...grammar.render import escape
from ...runtime.session.session import Report
from ..terminal.amounts import count, memory, seconds, size


def summary(compilation: Compilation, report: Report) -> str:
    """Parameters, ties, bytes, memory predicted and measured, time, and where the output is."""
    plan, outcome = compilation.plan, report.outcome
    if report.unchanged:
        return f"nothing to do: {escape(report.path)} is what the recipe makes"
    ties = compilation.elaboration.ties
    copied = len(compilation.elaboration.copied)
    rate = (outcome.bytes_read + outcome.bytes_written) / max(1e-9, outcome.seconds)
    stored = [name for name in ties if name in compilation.elaboration.template.space.names]
    lines = [
        f"wrote {escape(report.path)}",
        f"  parameters  {compilation.parameters:,} in {count(len(plan.tensors), 'tensor')}, {size(plan.writes)}",
    ]
    if ties:
        shown = ", ".join(f"{escape(alias)} = {escape(primary)}" for alias, primary in list(ties.items())[:3])
        lines.append(f"  tied        {shown}{' …' if len(stored) > 3 else ''}")
    if copied:
        template = compilation.elaboration.template.label
        lines.append(f"  copied      {count(copied, 'tensor')} from `{template}`, covered by no statement")
    if report.resumed or report.reused:
        lines.append(f"  kept        {count(report.resumed + report.reused, 'tensor')} that were there already")
    lines.append(
        f"  moved       {size(outcome.bytes_read)} read, {size(outcome.bytes_written)} written"
        f" in {seconds(outcome.seconds)} ({size(rate)}/s)"
    )
    lines.append(f"  memory      {memory(outcome.peak_host)} at most, {memory(plan.peak_host)} planned")
    if plan.peak_device:
        lines.append(
            f"  device      {memory(outcome.peak_device)} at most, {memory(plan.peak_device)} planned on {plan.device}"
        )
    if outcome.non_finite:
        worst = sorted(outcome.non_finite.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{escape(name)} ({n:,})" for name, n in worst)
        lines.append(f"  warning     infinities or NaNs in {count(len(outcome.non_finite), 'tensor')}: {shown}")
    return "\n".join(lines)
