"""Reads machine code as cuobjdump prints it: the main loop of a kernel, and what an iteration executes."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_FUNCTION = re.compile(r"^\s*Function : (\S+)$", re.MULTILINE)
_INSTRUCTION = re.compile(
    r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z]\w*)(\S*)\s*([^;]*);", re.MULTILINE
)
_BRANCH = re.compile(r"(0x[0-9a-f]+)\s*$")
# Conversions between integers and floating point, roundings and transcendental functions share a unit that
# takes 16 lanes per cycle; the others take 64 or 128.
SLOW_UNIT = ("MUFU", "F2I", "I2F", "FRND", "F2F")


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it is, its predicate, name, what the name's parts after a dot say, operands."""

    address: int
    predicate: str
    name: str
    modifiers: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = _BRANCH.search(self.operands) if self.name == "BRA" else None
        return int(found.group(1), 16) if found else None

    @property
    def conditional(self) -> bool:
        """Whether a branch may go on below."""
        return bool(self.predicate) or self.operands.lstrip().startswith(("P", "!P", "UP", "!UP"))

    @property
    def bytes(self) -> int:
        """How many bytes of memory a thread reads or writes with it."""
        if "128" in self.modifiers:
            return 16
        if "64" in self.modifiers:
            return 8
        if re.search(r"\.[US]?16\b", self.modifiers):
            return 2
        return 1 if re.search(r"\.[US]8\b", self.modifiers) else 4


@dataclass(frozen=True)
class Code:
    """The instructions of a kernel, in their order."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def index(self) -> dict[int, int]:
        """The place of each address."""
        return {instruction.address: i for i, instruction in enumerate(self.instructions)}

    def main_loop(self) -> list[Instruction]:
        """What an iteration of the loop that reads most from global memory executes, if all goes well.

        Rare cases are functions of their own (CALL), and do not belong to it. Empty if there is no loop.
        """
        loops = [self.way(self.index[i.target], self.index[i.address]) for i in self.back_edges()]
        return max(loops, key=global_bytes_read, default=[])

    def back_edges(self) -> Iterator[Instruction]:
        """Branches to where the code has been."""
        for instruction in self.instructions:
            if instruction.target is not None and instruction.target < instruction.address:
                yield instruction

    def way(self, first: int, last: int) -> list[Instruction]:
        """The way from one place to another that stores most in global memory; of those, the shortest one.

        By branches forward only, and without calls; empty if there is none.
        """
        best = {first: (self.cost(first), -1)}  # place: cost of the way, the place before it
        for place in range(first, last):
            for successor in self.successors(place) if place in best else ():
                cost = best[place][0] + self.cost(successor)
                if place < successor <= last and cost < best.get(successor, (cost + 1, 0))[0]:
                    best[successor] = (cost, place)
        way, place = [], last if last in best else -1
        while place >= 0:
            way.append(self.instructions[place])
            place = best[place][1]
        return way[::-1]

    def cost(self, place: int) -> int:
        """One for an instruction; a stored byte outweighs all instructions that there are."""
        instruction = self.instructions[place]
        return 1 - len(self.instructions) * (instruction.bytes if instruction.name == "STG" else 0)

    def successors(self, place: int) -> Iterator[int]:
        """The places that may be executed after this one, without calls."""
        instruction = self.instructions[place]
        if instruction.target is not None:
            yield self.index[instruction.target]
        ends = instruction.name in ("EXIT", "RET", "BRA", "CALL")
        if not ends or (instruction.conditional and instruction.name != "CALL"):
            yield place + 1


def read_sass(text: str) -> list[Code]:
    """The functions in what `cuobjdump -sass` printed."""
    _, *parts = _FUNCTION.split(text)
    return [Code(name, tuple(instructions(body))) for name, body in zip(parts[::2], parts[1::2], strict=True)]


def instructions(body: str) -> Iterator[Instruction]:
    """The instructions of one function."""
    for address, predicate, name, modifiers, operands in _INSTRUCTION.findall(body):
        yield Instruction(int(address, 16), predicate, name, modifiers, operands)


def global_bytes_read(code: list[Instruction]) -> int:
    """Bytes that a thread loads from global memory."""
    return sum(i.bytes for i in code if i.name == "LDG")


def accesses(code: list[Instruction], name: str) -> dict[str, int]:
    """How many instructions `name` (LDG, STG ...) access how many bytes."""
    counted = Counter(i.bytes for i in code if i.name == name)
    return {f"{size}": counted[size] for size in sorted(counted, reverse=True)}


def slow_unit(code: list[Instruction]) -> int:
    """How many instructions go to the unit that takes 16 lanes per cycle."""
    return sum(i.name in SLOW_UNIT for i in code)
