"""The exceptions."""


class InputError(ValueError):
    """Bad input: one line that names what was expected, what was found and the remedy."""


class InternalError(RuntimeError):
    """A defect of sinkref itself."""
