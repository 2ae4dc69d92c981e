"""Errors that a user can mend."""


class UserError(Exception):
    """An error, the same on every process, whose message tells the user what to do."""
