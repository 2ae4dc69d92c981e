"""BatchNorm and the PWLU behind it as one operator, in training and evaluation."""

from .. import library as library  # its operators are looked up here
