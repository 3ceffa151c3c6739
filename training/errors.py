"""What a user of the trainer can cause and put right."""


class DataError(Exception):
    """The data cannot be trained on.

    The message says what was expected and what came, with paths: its reader is the person at the terminal.
    """


class WeightsUnavailable(Exception):
    """Pre-trained weights were asked for and are neither on this machine nor to be downloaded.

    The message says which file, where it could lie, and what else can be done.
    """


class WorseThanChampion(Exception):
    """The new version is significantly worse than the live one, and was not published.

    The message has the numbers, and says what to do about it.
    """


class SettingError(Exception):
    """What was asked for cannot be done: a backbone, weights, a flag's value, or a place to write to.

    The message says what was expected and what came, and what to do about it.
    """
