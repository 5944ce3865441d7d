"""The cell in which one process of a check lives: namespaces where they can be had, limits always.

Started by the program as `python3 -I -B -c TEXT SETTINGS`; `role` comes from the text after this.
What it could not do is not an error: `held` tells what the cell holds back.
"""
import ctypes, json, os, resource, sys

SETTINGS = json.loads(sys.argv[1])
NOBODY = 65534
NEW_MOUNTS, NEW_UTS, NEW_IPC = 0x20000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18)
DIE_WITH_PARENT, DUMPABLE, DROP_FROM_BOUNDS, NO_NEW_PRIVILEGES = 1, 4, 24, 38
held = {"network": False, "processes": False, "files": False}


def system(name, *args):
    """A function of the C library; raises OSError as Python's own do."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags, data=None):
    text = lambda value: None if value is None else os.fsencode(value)
    system("mount", text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data))


def bind(source, root):
    """Shows a file or folder below `root`, where nobody can write it."""
    target = root + source
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    is_device = source.startswith("/dev/")
    mount(source, target, None, BIND | RECURSIVE)
    if is_device:
        return
    # mount_setattr(2) reaches what is mounted below too; its number is the same everywhere.
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SUID, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(442, -100, os.fsencode(target), 0x8000, ctypes.byref(attributes), 32) != 0:
        mount(None, target, None, REMOUNT | BIND | READ_ONLY | NO_SUID)


def own_files(root):
    """A file system of what Python needs, and a small /tmp."""
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", root, "tmpfs", NO_SUID, "size=1m,nr_inodes=4096,mode=755")
    shown = []
    for path in ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            bind(path, root)
            shown.append(path)
    python = [sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable))]
    for path in map(os.path.realpath, python + [p for p in sys.path if os.path.isdir(p)]):
        if path != "/" and not any(path == s or path.startswith(s + "/") for s in shown):
            bind(path, root)
            shown.append(path)
    for path in ["/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"]:
        if os.path.exists(path):
            bind(path, root)
    for name in ["null", "zero", "full", "random", "urandom"]:
        bind("/dev/" + name, root)
    os.symlink("/tmp", root + "/dev/shm")
    os.makedirs(root + "/tmp", exist_ok=True)
    size = f"size={SETTINGS['disk']},nr_inodes=4096,mode=1777"
    mount("tmpfs", root + "/tmp", "tmpfs", NO_SUID | NO_DEVICES, size)
    os.makedirs(root + "/proc", exist_ok=True)
    try:
        mount("proc", root + "/proc", "proc", NO_SUID | NO_DEVICES | NO_EXEC)
    except OSError:
        pass  # Within some containers; an empty folder tells nothing either.
    mount(None, root, None, REMOUNT | BIND | READ_ONLY | NO_SUID)
    os.chdir(root)
    system("pivot_root", b".", b".")
    system("umount2", b".", 2)
    os.chdir("/tmp")
    held["files"] = True


def alone():
    """Leaves the namespaces of the machine; the caller goes on as the child of an init."""
    flags = NEW_MOUNTS | NEW_UTS | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        flags |= NEW_USER
    try:
        system("unshare", flags)
    except OSError:
        # Root of a container has seldom the right, but often that to a name space of users.
        if user != 0:
            raise
        flags |= NEW_USER
        system("unshare", flags)
    if flags & NEW_USER:
        for name, text in [
            ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")
        ]:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    held["network"] = held["processes"] = True
    inherit_and_wait()
    system("prctl", DIE_WITH_PARENT, 9)
    try:
        own_files(SETTINGS["folder"])
    except (OSError, AttributeError):
        pass  # `held` tells.
    inherit_and_wait()


def inherit_and_wait():
    """The child returns; the parent lets go of all channels and ends with it."""
    child = os.fork()
    if child == 0:
        return
    for number in range(3):
        os.close(number)
    while True:
        try:
            if os.wait()[0] == child:
                os._exit(0)
        except ChildProcessError:
            os._exit(0)


def open_to_nobody(path):
    """Whether the modules of this Python can be read by others than root."""
    folders = path.split("/")[1:-1]
    return all(os.stat("/" + "/".join(folders[:n])).st_mode & 1 for n in range(len(folders) + 1))


def without_rights():
    """Root becomes nobody; in a namespace of its own it loses what it could do there."""
    if SETTINGS["root"] and (held["files"] or open_to_nobody(os.__file__)):
        if not held["files"]:
            try:
                os.chown(SETTINGS["folder"], NOBODY, NOBODY)
            except OSError:
                pass
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            pass  # Within a name space that knows root only.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for capability in range(64):
            libc.prctl(DROP_FROM_BOUNDS, capability)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
        system("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        refuse_calls(libc)
        # A judge that is not dumpable cannot be traced or read by a program of the same user.
        system("prctl", DUMPABLE, 0 if SETTINGS["role"] == "judge" else 1)


class Instruction(ctypes.Structure):
    """One of a filter of system calls, as seccomp(2) reads them."""
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8),
                ("value", ctypes.c_uint32)]


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("first", ctypes.POINTER(Instruction))]


# By machine: its number, then unshare, setns, mount, memfd_create, shmget, the new mount calls,
# memfd_secret; clone; clone3.
CALLS = {
    "x86_64": (0xC000003E, [272, 308, 165, 319, 29, 428, 429, 430, 432, 442, 447], 56, 435),
    "aarch64": (0xC00000B7, [97, 268, 40, 279, 194, 428, 429, 430, 432, 442, 447], 220, 435),
}


def refuse_calls(libc):
    """No more namespaces and file systems, and no memory that belongs to no process.

    Where the kernel knows no filters, the rest of the cell holds all the same.
    """
    LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
    ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x50001, 0x50026
    if os.uname().machine not in CALLS or sys.maxsize < 2 ** 32:
        return
    machine, refused, clone, clone3 = CALLS[os.uname().machine]
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, machine), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0),
             (ABOVE, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE)]
    for call in refused:
        steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSE)]
    # The C library takes the older call instead, whose flags can be read.
    steps += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, UNKNOWN)]
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, NEW_USER),
              (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    program = (Instruction * len(steps))(*[Instruction(*step) for step in steps])
    libc.prctl(22, 2, ctypes.byref(Filter(len(steps), program)), 0, 0)


def limit():
    for name, value in [
        ("AS", SETTINGS["memory"]), ("CPU", SETTINGS["cpu"]), ("FSIZE", SETTINGS["file"]),
        ("NPROC", SETTINGS["tasks"]), ("NOFILE", 64), ("CORE", 0),
    ]:
        try:
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        except (OSError, ValueError, AttributeError):
            pass


def enter():
    """Goes into the cell; the number of the channel that was standard input."""
    if sys.platform == "linux":
        system("prctl", DIE_WITH_PARENT, 9)
    if not SETTINGS["open"]:
        try:
            alone()
        except (OSError, AttributeError):
            pass  # `held` tells.
    without_rights()
    if not held["files"]:
        os.chdir(SETTINGS["folder"])
    os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd())
    channel = os.dup(0)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 2)
    os.close(nothing)
    limit()
    return channel
