"""Which status a run ends with: of every code, of several findings at once, and where a command has
its own."""

from __future__ import annotations

import pytest
from mergec.cli.main import main
from mergec.grammar import error_codes
from mergec.grammar.diagnostic import Diagnostic, MergecError, Severity, error, finding
from mergec.grammar.error_codes import ERRORS, Exit

USAGE = {"E0002", "E0004", "E0005", "E0608", "E0613"}
INPUT = {"E0606", "E0607", "E0611", "E0663"} | {f"E065{digit}" for digit in range(10)}
RUN = {"E0001", "E0003", "E0114", "E0662"} | {f"E06{number:02}" for number in (*range(1, 6), 9, 10, 12, *range(14, 18))}
RUN |= {f"E064{digit}" for digit in range(5)}


def expected(code: str) -> Exit:
    """The status of an error about a file, as docs/errors.md and `mergec --help` tell it."""
    for status, codes in ((Exit.USAGE, USAGE), (Exit.INPUT, INPUT), (Exit.RUN, RUN)):
        if code in codes:
            return status
    return Exit.INPUT if "E0403" <= code <= "E0499" else Exit.RECIPE


@pytest.mark.parametrize("code", ERRORS)
def test_the_status_of_a_code(code: str) -> None:
    about_a_file = Diagnostic(code, "what", severity=Severity.ERROR, file="model.safetensors")
    about_the_recipe = Diagnostic(code, "what", severity=Severity.ERROR)
    status = expected(code)
    assert MergecError(about_a_file).exit is status
    assert MergecError(about_the_recipe).exit is (Exit.RECIPE if status is Exit.INPUT else status)


def test_a_wrong_recipe_outweighs_a_corrupt_input_and_warnings_count_for_nothing() -> None:
    corrupt, wrong = finding("E0410", "corrupt", file="a.safetensors"), finding("E0201", "unknown")
    warning = finding("W0502", "unused")
    assert warning.severity is Severity.WARNING
    assert MergecError([corrupt, warning]).exit is Exit.INPUT
    assert MergecError([corrupt, wrong]).exit is Exit.RECIPE


def test_a_raise_and_a_package_may_say_otherwise() -> None:
    assert error("E0402", "a folder", file="recipe", exit=Exit.INPUT).exit is Exit.INPUT
    assert error("X1", "of a package that is installed").exit is Exit.RECIPE


def test_a_register_that_can_not_be_opened_is_no_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(dict[str, error_codes.ErrorCode]):
        def get(self, *_: object) -> None:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(error_codes, "ERRORS", Closed())
    assert error("E0610", "can't write", file="out").exit is Exit.RUN


@pytest.mark.parametrize(
    ("words", "status"),
    [("missing.mrg --check", 1), (". --check", 3), ("--frobnicate", 2), ("--explain E9999", 2), ("verify missing", 1)],
)
def test_of_the_command_line(words: str, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == status
    assert capfd.readouterr().err.startswith("error[E0")
