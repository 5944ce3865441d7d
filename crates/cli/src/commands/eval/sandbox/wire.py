"""What the judge and the program say to each other: one JSON value on each line.

Plain values travel as copies. What is none stays where it is and is known by its number; the other
side holds a `Far` for it. The judge makes no object of a kind that is not listed here, and lets the
program call nothing but the functions that a test hands over.
"""
import builtins, collections, datetime, decimal, enum, fractions, types

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
PLAIN = (bool, int, float, str, list, tuple, set, frozenset, dict, bytes, bytearray, complex,
         object, type(None))
# Kinds of values that are made anew on the other side, from what stands for them.
KINDS = {
    list: (list, list), tuple: (list, tuple), set: (list, set), frozenset: (list, frozenset),
    range: (lambda r: [r.start, r.stop, r.step], lambda a: range(*a)),
    slice: (lambda s: [s.start, s.stop, s.step], lambda a: slice(*a)),
    complex: (lambda c: [c.real, c.imag], lambda a: complex(*a)),
    bytes: (lambda b: [b.hex()], lambda a: bytes.fromhex(a[0])),
    bytearray: (lambda b: [b.hex()], lambda a: bytearray.fromhex(a[0])),
    dict: (lambda d: [list(d), list(d.values())], lambda a: dict(zip(*a))),
    collections.OrderedDict: (lambda d: [list(d), list(d.values())],
                              lambda a: collections.OrderedDict(zip(*a))),
    collections.Counter: (lambda d: [list(d), list(d.values())],
                          lambda a: collections.Counter(dict(zip(*a)))),
    collections.defaultdict: (lambda d: [list(d), list(d.values())], lambda a: dict(zip(*a))),
    collections.deque: (lambda d: [list(d), d.maxlen], lambda a: collections.deque(*a)),
    decimal.Decimal: (lambda d: [str(d)], lambda a: decimal.Decimal(a[0])),
    fractions.Fraction: (lambda f: [f.numerator, f.denominator],
                         lambda a: fractions.Fraction(*a)),
    datetime.date: (lambda d: [d.isoformat()], lambda a: datetime.date.fromisoformat(a[0])),
    datetime.time: (lambda d: [d.isoformat()], lambda a: datetime.time.fromisoformat(a[0])),
    datetime.datetime: (lambda d: [d.isoformat()],
                        lambda a: datetime.datetime.fromisoformat(a[0])),
    datetime.timedelta: (lambda d: [d.days, d.seconds, d.microseconds],
                         lambda a: datetime.timedelta(*a)),
    type(...): (lambda _: [], lambda _: ...),
    type(NotImplemented): (lambda _: [], lambda _: NotImplemented),
}
BY_NAME = {kind.__name__: kind for kind in KINDS}
# Containers that a call may change; what became of them travels back.
MUTABLE = (list, dict, set, bytearray, collections.deque)
BUILTIN = {n: v for n, v in vars(builtins).items()
           if isinstance(v, type) and (v in PLAIN or issubclass(v, Exception))}


class Ended(Exception):
    """The other side is gone."""


class Wire:
    def __init__(self, channel, far, serve, export):
        self.lines = os.fdopen(os.dup(channel), "rb")
        self.channel, self.write = channel, os.write
        self.far, self.serve, self.export = far, serve, export
        self.own, self.numbers, self.known = [], {}, {}

    def send(self, value):
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[self.write(self.channel, data):]

    def receive(self):
        line = self.lines.readline()
        if not line.endswith(b"\n"):
            raise Ended("ended before its tests")
        return json.loads(line)

    def ask(self, name, *args):
        """Has the other side do something; serves what it asks for meanwhile."""
        self.send({"do": name, "args": [self.encode(a) for a in args]})
        while True:
            message = self.receive()
            if "do" in message:
                self.answer(message)
            elif "error" in message:
                raise self.exception(*map(str, message["error"]))
            else:
                for at, value in message.get("changed", []):
                    replace(args[1][at], self.decode(value))
                return self.decode(message["value"])

    def answer(self, message):
        try:
            args = [self.decode(a) for a in message["args"]]
            value = self.serve(message["do"], args)
            reply = {"value": self.encode(value)}
            if message["do"] == "call":
                before = message["args"][1]["items"]
                after = [self.encode(a) if type(a) in MUTABLE else None for a in args[1]]
                changed = [[i, new] for i, new in enumerate(after) if new and new != before[i]]
                reply["changed"] = changed
        except Ended:
            raise
        except BaseException as error:
            reply = {"error": described(error)}
        self.send(reply)

    @staticmethod
    def exception(name, text):
        """An exception of the other side; of those that Python does not know only the name."""
        kind = BUILTIN.get(name)
        if kind is None or not issubclass(kind, Exception):
            return RuntimeError(f"{name}: {text}" if text else name)
        try:
            return kind(text) if text else kind()
        except TypeError:
            return RuntimeError(f"{name}: {text}")

    def encode(self, x):
        kind = type(x)
        if x is None or kind in (bool, int, float, str):
            return x
        if kind in KINDS:
            items = KINDS[kind][0](x)
            return {"kind": kind.__name__, "items": [self.encode(item) for item in items]}
        if kind is self.far:
            return {"yours": object.__getattribute__(x, "number")}
        if isinstance(x, type) and BUILTIN.get(x.__name__) is x:
            return {"builtin": x.__name__}
        if kind.__module__ == "numpy" and getattr(x, "shape", None) == () and hasattr(x, "item"):
            return self.encode(x.item())
        return self.export(self, x)

    def number(self, x):
        if id(x) not in self.numbers:
            self.numbers[id(x)] = len(self.own)
            self.own.append(x)
        return self.numbers[id(x)]

    def decode(self, x):
        if not isinstance(x, dict):
            if isinstance(x, list):
                raise ValueError("not a value")
            return x
        if "kind" in x:
            return KINDS[BY_NAME[x["kind"]]][1]([self.decode(item) for item in x["items"]])
        if "yours" in x:
            return self.own[x["yours"]]
        if "builtin" in x:
            return BUILTIN[x["builtin"]]
        number = x["mine"]
        if number not in self.known:
            self.known[number] = self.far(self, number, x)
        return self.known[number]


def described(error):
    try:
        text = str(error)
    except BaseException:
        text = ""
    if isinstance(error, SystemExit):
        return ["SystemExit", text if error.code not in (None, 0) else ""]
    return [type(error).__name__, text[:1000]]


def replace(container, new):
    """Gives a container the content of another."""
    if isinstance(container, (list, bytearray)):
        container[:] = new
    else:
        container.clear()
        getattr(container, "extend" if isinstance(new, collections.deque) else "update")(new)
