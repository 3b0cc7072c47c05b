"""Programs that try to get out or to use up the machine. `attack()` is true only if it got through.

All are bounded, so that a sandbox that failed would cost little: forks are counted, memory and files are
small multiples of the limit, signals are harmless ones. PID, PORT, CANARY, SOCKET and HOME are the test's.
"""

SYSCALL = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
"""

ATTACKS: dict[str, dict[str, str]] = {
    "fork bomb": {
        "fork": """
import os, time
def attack():
    for _ in range(40):
        if os.fork() == 0:
            time.sleep(1); os._exit(0)
    return True""",
        "multiprocessing": """
import multiprocessing, time
def attack():
    workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,)) for _ in range(20)]
    [worker.start() for worker in workers]
    return True""",
        "clone by number": SYSCALL
        + """
def attack():
    pids = [call(56, 17, 0, 0, 0, 0) for _ in range(3)]
    if 0 in pids: os._exit(0)
    return min(pids) > 0""",
        "clone beside the parent": SYSCALL
        + """
def attack():
    pid = call(56, 0x8000 | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    return pid > 0""",
        "a program": """
import subprocess
def attack(): return subprocess.run(["/bin/true"]).returncode == 0""",
        "threads": """
import threading, time
def attack():
    threading.stack_size(1 << 16)
    for _ in range(400): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
    return True""",
    },
    "memory": {
        "one block": "def attack(): return len(bytearray(600 << 20)) > 0",
        "many blocks": "def attack(): return len([bytes(1 << 20) for _ in range(600)]) > 0",
        "shared mapping": "import mmap\ndef attack(): return len(mmap.mmap(-1, 600 << 20)) > 0",
        "doubling text": """
def attack():
    text = "x"
    while len(text) < 600 << 20: text += text
    return True""",
        "file in memory": """
import os
def attack(): return os.write(os.memfd_create("x"), bytes(1)) == 1""",
        "shared segment": SYSCALL + "def attack(): return call(29, 0, 600 << 20, 0o1600) >= 0",
    },
    "disk": {
        "one large file": """
def attack():
    with open("large", "wb") as file:
        for _ in range(64): file.write(bytes(1 << 20))
    return True""",
        "many files": """
import time
def attack():
    for number in range(3000): open(str(number), "w").close()
    time.sleep(0.3)
    return True""",
        "many full files": """
import time
def attack():
    for number in range(24): open(str(number), "wb").write(bytes(1 << 20))
    time.sleep(0.3)
    return True""",
        "hole": """
def attack():
    with open("hole", "wb") as file: file.truncate(1 << 30)
    return True""",
        "deep folders": """
import os, time
def attack():
    for _ in range(2500):
        os.mkdir("d"); os.chdir("d")
    time.sleep(0.3)
    return True""",
    },
    "network": {
        "tcp": "import socket\ndef attack(): return bool(socket.create_connection(('127.0.0.1', PORT), 1))",
        "udp": """
import socket
def attack(): return socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", PORT))""",
        "listen": """
import socket
def attack():
    server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
    return True""",
        "names": "import socket\ndef attack(): return bool(socket.gethostbyname('example.com'))",
        "abstract socket": """
import socket
def attack(): return socket.socket(socket.AF_UNIX).connect("\\0SOCKET") is None""",
        "abstract socket from a pair": """
import socket
def attack():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "\\0SOCKET-datagrams")""",
        "by number": SYSCALL + "def attack(): return call(41, 2, 1, 0) >= 0",
        "netlink": "import socket\ndef attack(): return bool(socket.socket(socket.AF_NETLINK, 3, 0))",
    },
    "/proc": {
        "own environment": "def attack(): return bool(open('/proc/self/environ').read() or 1)",
        "environment of the parent": "def attack(): return bool(open('/proc/PID/environ', 'rb').read())",
        "memory of the parent": "def attack(): return bool(open('/proc/PID/mem', 'rb'))",
        "list of processes": "import os\ndef attack(): return bool(os.listdir('/proc'))",
        "files of the parent": "import os\ndef attack(): return bool(os.listdir('/proc/PID/fd'))",
        "kernel settings": "def attack(): return bool(open('/proc/sys/kernel/hostname', 'w'))",
        "root of the parent": "def attack(): return bool(open('/proc/PID/root/etc/passwd'))",
    },
    "signals": {
        "parent": "import os\ndef attack(): return os.kill(PID, 10) is None",
        "is it there": "import os\ndef attack(): return os.kill(PID, 0) is None",
        "everybody": "import os\ndef attack(): return os.kill(-1, 0) is None",
        "group": "import os\ndef attack(): return os.kill(0, 0) is None",
        "zygote": "import os\ndef attack(): return os.kill(os.getppid() or PID, 10) is None",
        "by number": SYSCALL
        + "def attack(): return call(129, PID, 10, ctypes.create_string_buffer(128)) == 0",
        "thread": SYSCALL + "def attack(): return call(234, PID, PID, 10) == 0 or call(200, PID, 10) == 0",
        "handle": SYSCALL + "def attack(): return call(424, call(434, PID, 0), 10, 0, 0) == 0",
        "owner of a descriptor": """
import fcntl, os, socket
def attack():
    ours, theirs = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, PID); fcntl.fcntl(ours, 10, 10)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
    return theirs.send(b"x") == 1""",
        "limits of the parent": "import resource\ndef attack(): return resource.prlimit(PID, 7) is not None",
        "priority": "import os\ndef attack(): return os.setpriority(os.PRIO_PROCESS, PID, 19) is None",
    },
    "paths": {
        "absolute": "def attack(): return open('CANARY', 'w').write('x')",
        "append": "def attack(): return open('CANARY', 'a').write('x')",
        "symbolic link": """
import os
def attack():
    os.symlink("CANARY", "link")
    return open("link", "w").write("x")""",
        "link": "import os\ndef attack(): return os.link('CANARY', 'link') is None",
        "upwards": "def attack(): return open('../' * 40 + 'CANARY'[1:], 'w').write('x')",
        "rename": "import os\ndef attack(): open('x', 'w'); return os.rename('x', 'CANARY') is None",
        "remove": "import os\ndef attack(): return os.remove('CANARY') is None",
        "shorten": "import os\ndef attack(): return os.truncate('CANARY', 0) is None",
        "mode": "import os\ndef attack(): return os.chmod('CANARY', 0o777) is None",
        "times": "import os\ndef attack(): return os.utime('CANARY', (1, 1)) is None",
        "attribute": "import os\ndef attack(): return os.setxattr('CANARY', 'user.x', b'x') is None",
        "beside it": "def attack(): return open('CANARY.new', 'w').write('x')",
        "shared memory": "def attack(): return open('/dev/shm/tenth-attack', 'w').write('x')",
        "library": "import os\ndef attack(): return open(os.__file__, 'a').write('')  == 0",
        "device": "import os\ndef attack(): return os.mknod('disk', 0o60600, os.makedev(254, 0)) is None",
    },
    "secrets": {
        "environment": "import os\ndef attack(): return 'TENTH_TEST_SECRET' in os.environ",
        "home": "import os\ndef attack(): return bool(os.listdir('HOME'))",
        "keys": "import os\ndef attack(): return bool(open('HOME/.ssh/id_ed25519').read())",
        "users": "def attack(): return bool(open('/etc/passwd').read())",
        "passwords": "def attack(): return bool(open('/etc/shadow').read())",
        "what the zygote remembers": """
import gc
def attack():
    secret = "-".join(("do", "not", "tell"))  # not written out, else this program would find itself
    texts = [item for item in gc.get_objects() if isinstance(item, (dict, list, tuple))]
    return any(secret in repr(text) for text in texts if len(text) < 50)""",
        "the project": "import tenth.sandbox.sandbox\ndef attack(): return True",
        "modules of the project": "import sys\ndef attack(): return any('tenth' in n for n in sys.modules)",
    },
    "tracing": {
        "attach": SYSCALL + "def attack(): return call(101, 16, PID, 0, 0) == 0",
        "seize": SYSCALL + "def attack(): return call(101, 0x4206, PID, 0, 0) == 0",
        "trace me": SYSCALL + "def attack(): return call(101, 0, 0, 0, 0) == 0",
        "read memory": SYSCALL + "def attack(): return call(310, PID, None, 0, None, 0, 0) >= 0",
        "write memory": SYSCALL + "def attack(): return call(311, PID, None, 0, None, 0, 0) >= 0",
        "take a descriptor": SYSCALL + "def attack(): return call(438, call(434, PID, 0), 0, 0) >= 0",
        "compare": SYSCALL + "def attack(): return call(312, PID, PID, 0, 0, 0) >= 0",
    },
    "system calls": {
        name: SYSCALL + f"def attack(): return call({arguments}) >= 0"
        for name, arguments in {
            "unshare users": "272, 0x10000000",
            "unshare mounts": "272, 0x00020000",
            "clone a namespace": "56, 0x10000000 | 17, 0, 0, 0, 0",
            "clone3": "435, ctypes.create_string_buffer(88), 88",
            "mount": '165, b"none", b"/tmp", b"tmpfs", 0, None',
            "bind": '165, b"/", b"/tmp", None, 4096, None',
            "unmount": '166, b"/tmp", 2',
            "open a tree": '428, -100, b"/", 1',
            "chroot": '161, b"."',
            "pivot": '155, b".", b"."',
            "enter a namespace": "308, 0, 0",
            "io_uring": "425, 4, ctypes.create_string_buffer(120)",
            "bpf": "321, 0, None, 0",
            "performance events": "298, None, 0, -1, -1, 0",
            "page faults": "323, 1",
            "keyring": "250, 0, -3, 1",
            "execute": '59, b"/bin/true", None, None',
            "set user": "105, 0",
            "host name": '170, b"x", 1',
            "prctl": "157, 4, 1, 0, 0, 0",
            "another filter": "317, 0, 0, None",
            "handle of a file": '303, -100, b"/", None, None, 0',
            "inotify": "253",
            "fanotify": "300, 0, 0",
            "clock": "227, 0, None",
        }.items()
    },
}
