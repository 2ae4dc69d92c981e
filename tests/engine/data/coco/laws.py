"""How the property tests of this folder are run: the same examples every time."""

from hypothesis import settings

lawful = settings(derandomize=True, deadline=None, max_examples=60, database=None)
