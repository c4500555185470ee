"""Resource quantities in their canonical form, which is what a server answers whatever was sent.

Source: https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity. Amounts are exact fractions in whole units.
"""

from __future__ import annotations

import re
from fractions import Fraction

_TEXT = re.compile(r"(?P<number>[+-]?(\d+\.?\d*|\.\d+))(?P<suffix>[eE][+-]?\d+|[KMGTPE]i|[numkMGTPE]?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def parse(text: str) -> Fraction:
    """The amount. Raises ValueError with Kubernetes' words."""
    number, suffix = _split(text)
    return _amount(number, suffix)


def _split(text: str) -> tuple[str, str]:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return found["number"], found["suffix"]


def _amount(number: str, suffix: str) -> Fraction:
    if suffix in _BINARY:
        return Fraction(number) * (1 << 10 * _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    power = Fraction(10 ** abs(exponent))
    return Fraction(number) * power if exponent > 0 else Fraction(number) / power


def canonical(text: str) -> str:
    """The same amount without fractions, with the largest suffix that leaves it whole. Raises ValueError."""
    number, suffix = _split(text)
    amount = _amount(number, suffix)
    if amount == 0:
        return "0"
    if suffix in _BINARY and amount.denominator == 1 and abs(amount) >= 1024:
        return _binary(int(amount))
    exponent = -9
    nano = amount * 10**9
    mantissa = -(-nano.numerator // nano.denominator) if nano > 0 else nano.numerator // nano.denominator
    while mantissa % 1000 == 0 and exponent < 18:
        mantissa, exponent = mantissa // 1000, exponent + 3
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix not in _BINARY:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{next(name for name, power in _DECIMAL.items() if power == exponent)}"


def _binary(amount: int) -> str:
    names = ["", *_BINARY]
    power = 0
    while amount % 1024 == 0 and power < len(names) - 1:
        amount, power = amount // 1024, power + 1
    return f"{amount}{names[power]}"
