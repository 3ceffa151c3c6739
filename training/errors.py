"""What a user of the trainer can cause and put right."""


class DataError(Exception):
    """The data cannot be trained on.

    The message says what was expected and what came, with paths: its reader is the person at the terminal.
    """


class SettingError(Exception):
    """What was asked for cannot be done: a backbone, weights, a flag's value, or a place to write to.

    The message says what was expected and what came, and what to do about it.
    """
