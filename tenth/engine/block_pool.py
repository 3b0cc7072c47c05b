"""The blocks of the paged cache: who uses which, which are free, which free ones still hold a known prefix.

Why: sequences share what they have in common, so a block has a reference count. A block that nobody uses
keeps its content, under its prefix hash, until somebody needs the room: the prefix cache costs no memory.
In/out: block ids, 0 to num_blocks - 1, and the hashes of prefix.py.
Not here: the tensors (runner.py), what a hash means (prefix.py), who gets a block (scheduler.py).
"""

from collections import OrderedDict
from collections.abc import Callable

BLOCK = 64  # tokens per block


class NoBlock(Exception):  # noqa: N818  the scheduler's signal, no error of the user's
    """Every block is in use."""


class BlockPool:
    """Reference counts of `num_blocks` blocks."""

    def __init__(self, num_blocks: int, *, on_evict: Callable[[int, bytes], None] | None = None) -> None:
        self.num_blocks = num_blocks
        self.on_evict = on_evict  # called while the block still holds what the hash names
        self._references = [0] * num_blocks
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._found: dict[bytes, int] = {}  # hash -> the block that holds it
        self._blank = list(range(num_blocks - 1, -1, -1))  # free, content of no use; the last one goes first
        self._cold: OrderedDict[int, None] = OrderedDict()  # free, content still findable; oldest first

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._cold)

    def references(self, block: int) -> int:
        return self._references[block]

    def allocate(self) -> int:
        """A block of one's own. Content that can still be found is given up last, the oldest first."""
        if self._blank:
            block = self._blank.pop()
        elif self._cold:
            block, _ = self._cold.popitem(last=False)
            name = self._hashes[block]
            assert name is not None
            if self.on_evict is not None:
                self.on_evict(block, name)
            del self._found[name]
            self._hashes[block] = None
        else:
            raise NoBlock
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user of a block in use."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free and cannot be shared")
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One user fewer; the last one frees the block."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free already")
        self._references[block] -= 1
        if self._references[block]:
            return
        if self._hashes[block] is None:
            self._blank.append(block)
        else:
            self._cold[block] = None

    def register(self, block: int, name: bytes) -> None:
        """This block, in use, is full and holds what `name` says. The first block of a name keeps it."""
        if not self._references[block]:
            raise ValueError(f"block {block} is free and cannot be registered")
        if self._found.setdefault(name, block) == block:
            self._hashes[block] = name

    def find(self, name: bytes) -> int | None:
        """The block of that name, with one more reference; None when there is none."""
        block = self._found.get(name)
        if block is not None:
            if not self._references[block]:
                del self._cold[block]
            self._references[block] += 1
        return block

    def named(self) -> list[tuple[int, bytes]]:
        """All blocks that can be found; what would be missed least comes first."""
        in_use = [block for block in self._found.values() if self._references[block]]
        # Of those in use the newest first: without the blocks before it, a block cannot be found.
        return [(block, name) for block in (*self._cold, *reversed(in_use)) if (name := self._hashes[block])]

    def forget(self) -> None:
        """No content is worth anything any more (the weights changed). Users keep their blocks."""
        self._found.clear()
        self._hashes = [None] * self.num_blocks
        self._blank.extend(self._cold)
        self._cold.clear()
