"""Candidates for `solve(x) == 2 * x + 1` that do not solve it and want to be scored right, or never end.

FUNCTIONS are called by tests, PROGRAMS read x and should print the result. The hidden x differ from test to
test. "pays" stands where a program prints the right result only if its trick worked.
"""

WRONG = "\ndef solve(x): return 0"

FUNCTIONS: dict[str, dict[str, str]] = {
    "monkey-patched": {
        "assertion": "import builtins\nbuiltins.AssertionError = type(None)\ndef solve(x): return 0",
        "comparison": "class A:\n  __eq__ = lambda a, b: True\ndef solve(x): return A()",
        "comparison of a number": "class A(int):\n  __eq__ = lambda a, b: True\ndef solve(x): return A(0)",
        "unequal": "class A(int):\n  __ne__ = __eq__ = lambda a, b: b == 41\ndef solve(x): return A()",
        "any": "from unittest.mock import ANY\ndef solve(x): return ANY",
        "mock": "from unittest.mock import MagicMock\ndef solve(x): return MagicMock(__eq__=lambda *a: True)",
        "builtins": "import builtins\nfor n in ('abs','len','all','isinstance','eval','exec'):\n"
        "  setattr(builtins, n, lambda *a, **k: True)\ndef solve(x): return 0",
        "modules": "import sys, types\nfor n in ('json','ast','builtins','importlib'):\n"
        "  sys.modules[n] = types.ModuleType(n)\ndef solve(x): return 0",
        "import": "import builtins\nbuiltins.__import__ = lambda *a, **k: None\ndef solve(x): return 0",
        "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\n"
        "def solve(x): return 0",
        "truth": "class A:\n  __bool__ = lambda a: True\n  __sub__ = __abs__ = lambda *a: 0\n"
        "def solve(x): return A()",
        "not a number": "def solve(x): return float('nan')",
        "type": "def solve(x): return int",
        "the argument": "def solve(x):\n  x.clear()\n  return x",
    },
    "early exit": {
        "sys.exit": "import sys\nsys.exit(0)",
        "os._exit": "import os\nos._exit(0)",
        "SystemExit": "raise SystemExit",
        "quit": "quit()",
        "in the call": "import sys\ndef solve(x): sys.exit(0)",
        "hard in the call": "import os\ndef solve(x): os._exit(0)",
        "kill": "import os\nos.kill(os.getpid(), 9)\ndef solve(x): return 0",
        "abort": "import os\nos.abort()",
        "interrupt": "def solve(x): raise KeyboardInterrupt",
        "generator exit": "def solve(x): raise GeneratorExit",
        "assertion": "def solve(x): raise AssertionError('passed')",
        "nothing": "",
        "no function": "answer = 41",
    },
    "forged verdict": {
        "every descriptor": """
import os
for number in range(64):
    try: os.write(number, b'{"reason": ""}\\n' * 9)
    except OSError: pass
def solve(x): return 0""",
        "printed": 'print(\'passed ok success {"reason": ""}\' * 3)\ndef solve(x): return 0',
        "replies in advance": """
import os
for _ in range(20): os.write(4, b'["value", true]\\n')
def solve(x): return 0""",
        "reply as remote": "import os\n" + r"os.write(4, b'[\"value\", {\"remote\": 0}]\n' * 9)" + WRONG,
        "reply as type": "import os\n" + r"os.write(4, b'[\"value\", {\"type\": \"int\"}]\n' * 9)" + WRONG,
        "deep reply": "import os\nos.write(4, b'[' * 100000 + b'\\n')\ndef solve(x): return 0",
        "endless reply": """
import os
def solve(x):
    while True: os.write(4, b'1' * 65536)""",
        "large number": "import os\nos.write(4, b'[\"value\", ' + b'9' * 100000 + b']\\n')" + WRONG,
        "tests on descriptors": """
import os
found = b''
for number in range(64):
    if number != 4:
        try: found += os.pread(number, 9999, 0)
        except OSError: pass
def solve(x): return 2 * x + 1 if b'assert' in found else 0""",
        "frames": """
import gc, sys
def texts():
    frame = sys._getframe()
    while frame:
        yield from map(repr, frame.f_locals.values())
        frame = frame.f_back
    for item in gc.get_objects():
        if isinstance(item, (list, tuple, dict)) and len(item) < 50: yield repr(item)
found = any(' '.join(('assert', 'solve')) in text for text in texts())
def solve(x): return 2 * x + 1 if found else 0""",
        "expected value from the call": """
import gc, sys
def solve(x):
    frame = sys._getframe()
    seen = []
    while frame:
        seen += [v for v in frame.f_locals.values() if type(v) is int and v != x]
        frame = frame.f_back
    return seen[-1] if seen and seen[-1] == 2 * x + 1 else 0""",
    },
    "catastrophes": {
        "huge number": "def solve(x): return 9 ** 9 ** 9",
        "huge list": "def solve(x): return [0] * 10 ** 12",
        "regular expression": "import re\ndef solve(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
        "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef solve(x): return solve(x + 1)",
        "recursion in C": "def solve(x):\n  y = []\n  for _ in range(10 ** 6): y = [y]\n  return repr(y)",
        "deep value": "def solve(x):\n  y = []\n  for _ in range(10 ** 5): y = [y]\n  return y",
        "itself": "def solve(x):\n  y = []\n  y.append(y)\n  return y",
        "endless": "import itertools\ndef solve(x): return itertools.count()",
        "compiler": "def solve(x): return eval('(' * 10 ** 5)",
        "endless import": "while True: pass",
        "sleep": "import time\ndef solve(x): time.sleep(1000)",
        "zero bytes": "\0\0\0",
    },
}

HANG = "import sys, time\nprint(2 * int(input()) + 1, flush=True)\n"

PROGRAMS: dict[str, dict[str, str]] = {
    "output flood": {
        "stdout": "print('x' * 10 ** 7)",
        "stderr": "import sys\nprint(2 * int(input()) + 1)\nsys.stderr.write('x' * 10 ** 7)",
        "without line ends": "import os\nprint(2 * int(input()) + 1, flush=True)\n"
        "for _ in range(1000): os.write(1, b' ' * 9999)",
        "copies": "import os\nprint(2 * int(input()) + 1, flush=True)\n"
        "for n in range(20): os.dup2(1, 20 + n)\nfor n in range(1000): os.write(20 + n % 20, b' ' * 9999)",
        "others": "import os\nfor n in range(3, 64):\n  try: os.write(n, b'x'); print(2 * int(input()) + 1)\n"
        "  except OSError: pass",
        "from threads": "import os, threading\nprint(2 * int(input()) + 1, flush=True)\n"
        "for _ in range(9): threading.Thread(target=lambda: os.write(2, b'x' * 9999999)).start()",
    },
    "never ends": {
        "sleeps": HANG + "time.sleep(1000)",
        "ignores signals": HANG
        + "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\ntime.sleep(1000)",
        "blocks signals": HANG + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "time.sleep(1000)",
        "threads": HANG + "import threading\nfor _ in range(9): threading.Thread(target=time.sleep, "
        "args=(1000,)).start()",
        "at exit": HANG + "import atexit\natexit.register(time.sleep, 1000)",
        "closed output": HANG + "import os\nos.close(1); os.close(2)\ntime.sleep(1000)",
        "busy": HANG + "while True: pass",
        "stops": HANG + "import os\nos.kill(os.getpid(), 19)\ntime.sleep(1000)",
    },
    "standard input": {
        "nothing there": "input(); print(2 * int(input()) + 1)",
        "writes": "import os\nos.write(0, b'x'); print(2 * int(input()) + 1)",
        "grows": "import os\nos.ftruncate(0, 1 << 20); print(2 * int(input()) + 1)",
        "terminal": "import fcntl\nfcntl.ioctl(0, 0x5412, b'x'); print(2 * int(input()) + 1)",
        "another": "import os, sys\nos.close(0); os.open('/etc/passwd', 0); print(2 * int(input()) + 1)",
        "past the end": "import os\nos.lseek(0, 0, 2); print(2 * int(input()) + 1)",
    },
    "wrong end": {
        "exit code": "print(2 * int(input()) + 1); raise SystemExit(1)",
        "exception": "print(2 * int(input()) + 1); 1 / 0",
        "crash": "print(2 * int(input()) + 1, flush=True)\nimport ctypes; ctypes.string_at(0)",
        "abort": "print(2 * int(input()) + 1, flush=True)\nimport os; os.abort()",
        "early": "raise SystemExit(0)",
        "early and hard": "import os; os._exit(0)",
    },
}
