"""The side of the tests: runs them, and has what they call done by the program in its own cell.

A test sees the objects of the program as `Far`. Values that tests compare are compared here, as
plain values: an object that says of itself that it equals everything is asked only where it is
compared with another object of the program.
"""
import ast, traceback

# Modules that a test may use because the program has imported them.
PURE = {"math", "cmath", "statistics", "heapq", "bisect", "itertools", "functools", "operator",
        "random", "re", "string", "copy", "decimal", "fractions", "datetime", "collections", "json",
        "typing"}
FUNCTIONS = {"math", "cmath", "statistics", "heapq", "_heapq", "bisect", "_bisect", "itertools",
             "decimal", "fractions", "datetime"}


class Far:
    """An object of the program."""

    __slots__ = ("wire", "number", "plain")

    def __init__(self, wire, number, about):
        object.__setattr__(self, "wire", wire)
        object.__setattr__(self, "number", number)
        plain = (wire.decode(about["plain"]),) if "plain" in about else ()
        object.__setattr__(self, "plain", plain)

    def __call__(self, *args, **named):
        return ask(self, "call", list(args), named)

    def __getattr__(self, name):
        return ask(self, "getattr", name)

    def __setattr__(self, name, value):
        ask(self, "setattr", name, value)

    def __delattr__(self, name):
        ask(self, "delattr", name)

    def __getitem__(self, key):
        return ask(self, "getitem", key)

    def __setitem__(self, key, value):
        ask(self, "setitem", key, value)

    def __delitem__(self, key):
        ask(self, "delitem", key)

    def __iter__(self):
        iterator = ask(self, "iter")
        if type(iterator) is not Far:
            yield from iterator
            return
        while found := ask(iterator, "next"):
            yield found[0]

    def __next__(self):
        found = ask(self, "next")
        if not found:
            raise StopIteration
        return found[0]

    def __contains__(self, item):
        return any(item is found or item == found for found in self)

    def __eq__(self, other):
        if self is other:
            return True
        if type(other) is Far:
            return ask(self, "eq", other)
        plain = object.__getattribute__(self, "plain")
        return bool(plain) and plain[0] == other

    def __hash__(self):
        return object.__getattribute__(self, "number")

    def __lt__(self, other):
        return among(self, "lt", other)

    def __le__(self, other):
        return among(self, "le", other)

    def __gt__(self, other):
        return among(other, "lt", self) if type(other) is Far else NotImplemented

    def __ge__(self, other):
        return among(other, "le", self) if type(other) is Far else NotImplemented

    def __add__(self, other):
        return among(self, "add", other)

    def __sub__(self, other):
        return among(self, "sub", other)

    def __mul__(self, other):
        return among(self, "mul", other)

    def __truediv__(self, other):
        return among(self, "truediv", other)

    def __len__(self):
        return ask(self, "len")

    def __bool__(self):
        return ask(self, "bool")

    def __str__(self):
        return str(ask(self, "str"))

    def __repr__(self):
        return str(ask(self, "repr"))

    def __int__(self):
        return ask(self, "int")

    def __float__(self):
        return ask(self, "float")

    def __index__(self):
        return ask(self, "index")

    def __abs__(self):
        return ask(self, "abs")

    def __enter__(self):
        return ask(self, "getattr", "__enter__")()

    def __exit__(self, *_):
        return ask(self, "getattr", "__exit__")(None, None, None)

    def __instancecheck__(self, other):
        return type(other) is Far and ask(other, "isinstance", self)

    def __subclasscheck__(self, other):
        return type(other) is Far and ask(other, "issubclass", self)


def ask(far, name, *args):
    return object.__getattribute__(far, "wire").ask(name, far, *args)


def among(far, name, other):
    """What the program says of two of its own objects; it is asked nothing about ours."""
    return ask(far, name, other) if type(other) is Far else NotImplemented


def export(wire, x):
    """The program may call functions and iterators of the tests; others are not handed over."""
    if callable(x) or hasattr(x, "__next__"):
        return {"mine": wire.number(x)}
    raise TypeError(f"a test cannot hand an object of type {type(x).__name__} to the program")


def serve(name, args):
    if name == "next":
        for item in args[0]:
            return [item]
        return []
    if name == "call" and callable(args[0]):
        return args[0](*args[1], **args[2])
    raise TypeError(name)


def namespace(wire, found, tests):
    """The names of the program, as the tests see them.

    A name of Python's that the program has taken is Python's in tests that use another name of the
    program too: there it is not what is tested. Names with two underscores are never the program's.
    """
    names = {"__name__": "__main__", "__builtins__": builtins}
    found = [entry for entry in found if not str(entry[0]).startswith("__")]
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    is_taken = lambda name: hasattr(builtins, name) or name in PURE
    is_own = lambda name, sort, origin: name in used and not is_taken(name) and not (
        sort == "known" and origin in FUNCTIONS and hasattr(__import__(origin), name))
    has_own = any(is_own(*entry[:3]) for entry in found)
    for name, sort, origin, value in found:
        known = sort == "known" and origin in FUNCTIONS and not hasattr(builtins, name)
        if sort == "module" and name == origin and name in PURE:
            names[name] = __import__(name)
        elif has_own and is_taken(name):
            continue
        elif known and hasattr(__import__(origin), name):
            names[name] = getattr(__import__(origin), name)
        else:
            names[name] = wire.decode(value)
    return names


def reason(error):
    if isinstance(error, SystemExit):
        return "a test has ended the judge"
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith("SystemExit"):
        code = text.removeprefix("SystemExit").removeprefix(": ")
        return f"exit status: {code}" if code else "ended before its tests"
    if isinstance(error, Ended):
        return text
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]


def main():
    channel = enter()
    control = os.fdopen(os.dup(1), "r+b", buffering=0)
    os.dup2(0, 1)
    wire = Wire(channel, Far, serve, export)
    tell = lambda value: control.write(json.dumps(value).encode() + b"\n")
    try:
        tell({"judge": held, "program": wire.receive()})
        lines = os.fdopen(os.dup(control.fileno()), "rb")
        task = json.loads(lines.readline())
        found = json.loads(wire.ask("run", task["program"]))
        names = namespace(wire, found, task["tests"])
        exec(compile(task["tests"], "tests.py", "exec"), names)
        # A program that left after its last call has not come to its end.
        secret = os.urandom(16).hex()
        if wire.ask("same", secret) != secret:
            raise Ended("ended before its tests")
        verdict = {"passed": True, "reason": "passed"}
    except BaseException as error:
        verdict = {"passed": False, "reason": reason(error)}
    tell(verdict)
    os._exit(0)


main()
