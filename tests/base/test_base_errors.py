from tenth.base.errors import CheckpointError


def test_what_a_stranger_wrote_into_a_sentence_moves_no_cursor_and_starts_no_line():
    assert str(CheckpointError("a\x1b[2J\r\nb\u2028\ud800 ä｜")) == r"a\x1b[2J\r\nb\u2028\ud800 ä｜"


def test_a_sentence_that_shows_too_much_keeps_its_beginning_and_its_end():
    for value in ("9" * 100_000, "\0" * 1900):
        shown = str(CheckpointError(f"who {value}; do this."))
        assert shown.startswith("who ")
        assert shown.endswith("; do this.")
        assert len(shown) < 2000
