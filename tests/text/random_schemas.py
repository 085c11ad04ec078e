"""Random bounded JSON schemas, and values that they allow, for tests: every answer under one of them comes to an end."""
import random

WORDS = ["name", "age", "city", "tags", "size", "x", "y-z", "é", "a b", "color", "ok", "note", "quote\"d", "on/off"]
TEXTS = ["red", "green", "blue", "", "ünï", "a\"b", "tab\t", "no", "10"]
PATTERNS = ["^[a-c]{1,4}$", "^\\d{3}-\\d{4}$", "^(foo|bar|ba[zx])$", "^[A-Z][a-z]{0,5}$", "^x?y{2,3}$", "^[^a-z]{1,3}$", "^\\w{2,4}$", "^#[0-9a-f]{6}$"]
FORMATS = ["date", "time", "date-time", "uuid", "email", "ipv4"]


class Maker:
    def __init__(self, seed, counts=None):
        self.r = random.Random(seed)
        self.counts = {} if counts is None else counts
        self.defs = {}

    def note(self, *words):
        for w in words:
            self.counts[w] = self.counts.get(w, 0) + 1

    def string(self):
        s = {"type": "string"}
        kind = self.r.randrange(5)
        if kind == 0:
            s["pattern"] = self.r.choice(PATTERNS)
            self.note("pattern")
            if self.r.random() < 0.3:  # beside a pattern that allows it
                s["maxLength"] = 12
                self.note("maxLength")
        elif kind == 1:
            s["format"] = self.r.choice(FORMATS)
            self.note("format")
        else:
            low = self.r.randrange(0, 4)
            s["maxLength"] = low + self.r.randrange(0, 8)
            self.note("maxLength")
            if self.r.random() < 0.6:
                s["minLength"] = low
                self.note("minLength")
        return s

    def integer(self):
        s = {"type": "integer"}
        low = self.r.choice([0, 1, -3, -150, 7, 10, 99, 1000])
        high = low + self.r.choice([0, 1, 9, 40, 12345])
        if self.r.random() < 0.5:
            s["minimum"] = low
            self.note("minimum")
        else:
            s["exclusiveMinimum"] = low - 1
            self.note("exclusiveMinimum")
        if self.r.random() < 0.5:
            s["maximum"] = high
            self.note("maximum")
        else:
            s["exclusiveMaximum"] = high + 1
            self.note("exclusiveMaximum")
        if high - low > 20 and self.r.random() < 0.6:
            s["multipleOf"] = self.r.choice([2, 3, 5, 7, 10])
            self.note("multipleOf")
        return s

    def number(self):
        low = self.r.choice([0, -1.5, 0.25, -100, 3.14159, 1e-3])
        s = {"type": "number"}
        high = low + self.r.choice([0.5, 1, 20.75, 1000])
        key = self.r.choice(["minimum", "exclusiveMinimum"])
        s[key] = low
        self.note(key)
        key = self.r.choice(["maximum", "exclusiveMaximum"])
        s[key] = high
        self.note(key)
        return s

    def enum(self, depth):
        values = self.r.sample(TEXTS, 3) + [self.r.randrange(-5, 99), None, True, 2.5]
        if depth > 0:
            values += [{"a": 1, "b": [True]}, [1, "x"]]
        self.note("enum")
        return {"enum": self.r.sample(values, self.r.randrange(1, 5))}

    def const(self):
        self.note("const")
        return {"const": self.r.choice(TEXTS + [0, -7, 1.5, None, False, [1, 2], {"k": "v"}])}

    def array(self, depth):
        s = {"type": "array"}
        if self.r.random() < 0.3:
            s["prefixItems"] = [self.schema(depth - 1) for _ in range(self.r.randrange(1, 3))]
            self.note("prefixItems")
            if self.r.random() < 0.5:
                s["items"] = False
                return s
        s["items"] = self.schema(depth - 1)
        low = self.r.randrange(0, 3)
        s["maxItems"] = low + self.r.randrange(0, 3)
        self.note("items", "maxItems")
        if low or self.r.random() < 0.5:
            s["minItems"] = low
            self.note("minItems")
        return s

    def object(self, depth):
        names = self.r.sample(WORDS, self.r.randrange(1, 5))
        s = {"type": "object", "properties": {n: self.schema(depth - 1) for n in names}}
        self.note("properties")
        if self.r.random() < 0.7:
            s["required"] = self.r.sample(names, self.r.randrange(0, len(names) + 1))
            self.note("required")
        kind = self.r.randrange(4)
        if kind < 2:
            s["additionalProperties"] = False
            self.note("additionalProperties")
        elif kind == 2:
            s["additionalProperties"] = self.schema(0)
            s["maxProperties"] = len(names) + 1
            self.note("additionalProperties", "maxProperties")
        if self.r.random() < 0.2:
            s["minProperties"] = self.r.randrange(0, len(names) + 1)
            self.note("minProperties")
        return s

    def choice(self, depth):
        word = self.r.choice(["anyOf", "anyOf", "oneOf"])
        if word == "oneOf":  # of different types: exactly one holds
            self.note("oneOf")
            return {"oneOf": [self.integer(), self.string(), {"type": "null"}]}
        self.note("anyOf")
        return {"anyOf": [self.schema(depth - 1) for _ in range(self.r.randrange(2, 4))]}

    def all(self, depth):
        self.note("allOf")
        a, b = self.integer(), {"type": "number", "maximum": 100000}
        if self.r.random() < 0.5:
            a = {"type": "object", "properties": {"p": self.schema(depth - 1)}, "required": ["p"]}
            b = {"properties": {"q": self.schema(depth - 1)}, "required": ["q"]}
        return {"allOf": [a, b]}

    def ref(self, depth):
        self.note("$ref")
        name = "d%d" % len(self.defs)
        self.defs[name] = {}
        self.defs[name] = self.schema(depth - 1)
        return {"$ref": "#/$defs/" + name}

    def schema(self, depth):
        leaves = [self.string, self.integer, self.number, lambda: self.enum(depth), self.const, lambda: {"type": "boolean"}, lambda: {"type": "null"},
                  lambda: {"type": ["integer", "null"], "minimum": 0, "maximum": 9}]
        inner = [lambda: self.array(depth), lambda: self.object(depth), lambda: self.object(depth), lambda: self.choice(depth), lambda: self.ref(depth),
                 lambda: self.all(depth)]
        return self.r.choice(inner if depth > 1 else leaves + inner if depth > 0 else leaves)()

    def root(self, depth=3):
        s = self.object(depth)
        if self.defs:
            s["$defs"] = self.defs
            self.note("$defs")
        return s
