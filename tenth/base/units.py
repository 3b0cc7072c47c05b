"""Numbers the way people write and read them: tokens, bytes, FLOPs, seconds, dollars."""

from tenth.base.errors import ConfigError

_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def parse_count(text: str) -> int:
    """Read a count the way people write it.

    >>> parse_count("14.8T")
    14800000000000
    >>> parse_count("2k")
    2000
    """
    try:
        scale = _SCALES.get(text[-1:].lower())
        return round(float(text[:-1]) * scale) if scale else int(text)
    except (ValueError, OverflowError) as error:  # 'twelve', 'infk'
        raise ConfigError(f"'{text}' is not a count; write it like 2000, 2k or 14.8T.") from error


def show_count(value: float) -> str:
    """A count in three digits and a letter.

    >>> show_count(671_026_419_200)
    '671B'
    """
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:  # 999,999 is 1M, not 1e+03k
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def show_bytes(value: float) -> str:
    """Bytes in binary units.

    >>> show_bytes(70_272)
    '68.6 KiB'
    """
    for scale, letter in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {letter}"
    return f"{value:.0f} B"


def show_seconds(value: float) -> str:
    """A duration a person can say.

    >>> show_seconds(754)
    '12m34s'
    """
    if value < 59.95:
        return f"{value:.1f}s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
