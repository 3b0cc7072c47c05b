"""The registry of generated families, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from tenth.tasks.generated.arithmetic import ChainSum, Modular, Product
from tenth.tasks.generated.chinese import Ages, Shopping
from tenth.tasks.generated.countdown import Countdown
from tenth.tasks.generated.equations import Equation, Variables
from tenth.tasks.generated.logic import Boolean, Ordering, Swaps
from tenth.tasks.generated.numbers import Binary, Gcd, Lcm
from tenth.tasks.generated.rows import LetterCount, Reverse, Sort, WordShift
from tenth.tasks.task import Family

_ALL: tuple[Family, ...] = (
    ChainSum(),
    Product(),
    Equation(),
    Countdown(),
    Sort(),
    Gcd(),
    Lcm(),
    Binary(),
    Reverse(),
    LetterCount(),
    WordShift(),
    Boolean(),
    Ordering(),
    Swaps(),
    Variables(),
    Modular(),
    Shopping(),
    Ages(),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})
