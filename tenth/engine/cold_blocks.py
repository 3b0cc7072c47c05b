"""Cold blocks of the prefix cache on their way between memory and disk.

Why: the pool gives up what was used longest ago; it is written to disk first, and read again when a prompt
begins with it. A block that is read is checked before anybody counts on it.
In/out: what pool and scheduler say of blocks; bytes from and to the runner.
Not here: files (spill.py); which block is given up (block_pool.py) or wanted (scheduler.py).
"""

from collections.abc import Sequence

from tenth.engine.runner import Runner
from tenth.engine.spill import SpillStore
from tenth.model.fingerprint import weights_fingerprint
from tenth.model.transformer import Transformer


class ColdBlocks:
    """The prefix cache's second home."""

    def __init__(self, store: SpillStore, runner: Runner) -> None:
        self.store, self.runner = store, runner
        self._read: dict[bytes, bytes] = {}  # what the step being planned will load

    def weights_changed(self, model: Transformer) -> None:
        """What was written with the old weights is for whoever has them still."""
        self.store.use(spill_salt(model, self.runner))

    def save(self, block: int, name: bytes) -> None:
        """This block is about to be overwritten."""
        if not self.store.problem:
            self.store.put(name, self.runner.read_block(block))

    def save_all(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Memory is about to be freed. Waits for the disk; the last blocks matter most."""
        most = self.store.limit_bytes // self.store.file_bytes
        self.store.flush()
        for block, name in blocks[-most:]:
            self.save(block, name)
            self.store.flush()  # one by one: the queue drops what it has no room for

    def fetch(self, name: bytes) -> bool:
        """Whether the disk has it; if so it has been read, and `load` must follow."""
        data = self.store.get(name)
        if data is not None:
            self._read[name] = data
        return data is not None

    def load(self, loads: Sequence[tuple[bytes, int]]) -> None:
        """Fill blocks with what was fetched."""
        read, self._read = self._read, {}
        for name, block in loads:
            self.runner.write_block(block, read[name])
        # A prefix whose beginning is gone is worth nothing, so its end must go first.
        for name, _ in reversed(loads):
            self.store.touch(name)


def spill_salt(model: Transformer, runner: Runner) -> bytes:
    """Names weights and layout; reads every weight once (see `weights_fingerprint`)."""
    return runner.layout.encode() + weights_fingerprint(model)
