"""Errors that name the place and the remedy. The command line prints them and exits with 2."""


class ShrinkflowError(Exception):
    """Something a user can act on: its message is one clear sentence, never a traceback."""


class InputError(ShrinkflowError, ValueError):
    """A value handed in by the user (params, data, weights) cannot be worked with."""


class UnreachableError(ShrinkflowError):
    """A server did not answer: the same may work a little later."""


class HubError(InputError, UnreachableError):
    """The hub did not answer, or had no time: the same may work a little later."""


class PlanError(InputError):
    """Every problem that a plan has, listed at once."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"the plan has {count}:\n" + "\n".join(f"  - {p}" for p in problems))


class CheckpointError(InputError):
    """A checkpoint or layer file is missing, damaged, or not what its header says."""
