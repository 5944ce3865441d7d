"""The side of the program: runs it, and does with its objects what the judge asks for."""


class Far:
    """A function or an iterator of the tests."""

    def __init__(self, wire, number, _):
        self.wire, self.number = wire, number

    def __call__(self, *args, **named):
        return self.wire.ask("call", self, list(args), named)

    def __iter__(self):
        return self

    def __next__(self):
        found = self.wire.ask("next", self)
        if not found:
            raise StopIteration
        return found[0]


def export(wire, x):
    """How the judge is told of an object that stays here."""
    about = {"mine": wire.number(x)}
    for base in (bool, int, float, str, list, tuple, set, frozenset, dict, bytes):
        if isinstance(x, base):
            values = {dict: lambda: dict(dict.items(x)), str: lambda: str.__str__(x),
                      int: lambda: int.__int__(x), float: lambda: float.__float__(x)}
            plain = values.get(base, lambda: base(x))()
            # What tells more than its plain value only to those who know the class.
            is_own = type(x).__module__ == "__main__" and not hasattr(x, "_fields")
            if isinstance(x, enum.Enum) or not is_own:
                return wire.encode(plain)
            about["plain"] = wire.encode(plain)
            break
    return about


def names(wire, module):
    """What the program defines, for the tests."""
    found = []
    for name, value in list(vars(module).items()):
        if name.startswith("__"):
            continue
        if isinstance(value, types.ModuleType):
            found.append([name, "module", value.__name__, {"mine": wire.number(value)}])
            continue
        origin = getattr(value, "__module__", None)
        if callable(value) and isinstance(origin, str) and origin != "__main__":
            found.append([name, "known", origin, {"mine": wire.number(value)}])
            continue
        try:
            found.append([name, "value", None, wire.encode(value)])
        except Exception:
            found.append([name, "value", None, {"mine": wire.number(value)}])
    return json.dumps(found)


def advance(iterator):
    for item in iterator:
        return [item]
    return []


DO = {
    "next": advance, "iter": iter, "len": len, "bool": bool, "str": str, "repr": repr,
    "int": int, "float": float, "index": lambda x: x.__index__(), "abs": abs,
    "getattr": getattr, "setattr": setattr, "delattr": delattr,
    "getitem": lambda x, key: x[key], "setitem": lambda x, key, value: x.__setitem__(key, value),
    "delitem": lambda x, key: x.__delitem__(key),
    "eq": lambda a, b: bool(a == b), "lt": lambda a, b: bool(a < b),
    "le": lambda a, b: bool(a <= b),
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b, "isinstance": isinstance, "issubclass": issubclass,
    "same": lambda x: x, "call": lambda f, args, named: f(*args, **named),
}


def main():
    channel = enter()
    os.dup2(0, 1)
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __file__="program.py")
    sys.modules["__main__"], sys.argv = module, ["program.py"]

    def serve(name, args):
        if name == "run":
            exec(compile(args[0], "program.py", "exec"), module.__dict__)
            return names(wire, module)
        return DO[name](*args)

    wire = Wire(channel, Far, serve, export)
    wire.send(held)
    try:
        while True:
            wire.answer(wire.receive())
    finally:
        os._exit(0)


main()
