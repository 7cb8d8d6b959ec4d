"""npuc/_lib.py says what include/npuc/*.h say: the same fields in the same order, functions that exist."""
import ctypes
import pathlib
import re
import unittest

from npuc import _dtypes, _lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {"int": ctypes.c_int, "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64, "double": ctypes.c_double}


def header(name):
    text = (ROOT / "include" / "npuc" / name).read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def fields(text, struct):
    """[(name, type, array or pointer?)] of a struct, in order."""
    body = re.search(r"struct %s \{(.*?)\n\};" % struct, text, re.S).group(1)
    found = []
    for line in filter(str.strip, body.split(";")):
        kind, names = re.fullmatch(r"\s*((?:const )?(?:struct )?\w+) (.*)", line.strip(), re.S).groups()
        for name in names.split(","):
            found.append((re.sub(r"\[.*|\*|const|\s", "", name), kind.split()[-1], "*" in name or "[" in name))
    return found


class Declarations(unittest.TestCase):
    def check(self, struct, declared):
        wanted = fields(header("npurt.h"), struct)
        self.assertEqual([n for n, _, _ in wanted], [n for n, *_ in declared._fields_], struct)
        for (name, kind, plain), (_, found) in zip(wanted, declared._fields_):
            if not plain and kind in KINDS:
                self.assertIs(KINDS[kind], found, f"{struct}.{name}")

    def test_structs(self):
        for struct, declared in (("npurt_dim", _lib.Dim), ("npurt_value", _lib.Value), ("npurt_tensor", _lib.Tensor),
                                 ("npurt_options", _lib.Options), ("npurt_step", _lib.Step), ("npurt_report", _lib.Report),
                                 ("npurt_tokens", _lib.Tokens), ("npurt_sampling", _lib.Sampling)):
            self.check(struct, declared)

    def test_constants(self):
        text = header("npurt.h")
        for name, value in (("MAX_RANK", _lib.MAX_RANK), ("UNITS", _lib.UNITS), ("SPACES", _lib.SPACES), ("CORES", _lib.CORES)):
            self.assertEqual(int(re.search(rf"NPURT_{name}\s+(\d+)", text).group(1)), value)

    def test_functions(self):
        declared = header("npuc.h") + header("npurt.h")
        for name, (_, arguments) in _lib._FUNCTIONS.items():
            text = re.search(rf"\b{name}\(([^;]*)\);", declared, re.S).group(1)
            self.assertEqual(0 if text.strip() == "void" else text.count(",") + 1, len(arguments), name)

    def test_element_types(self):
        rows = re.findall(r'^DTYPE\(\w+,\s*"[^"]+",\s*(\d+),\s*(\d+),', (ROOT / "base/dtype.def").read_text(encoding="utf-8"), re.M)
        rows = [(bits, n) for bits, n in rows if int(n) < 200] # from 200 on: types of our own, which no model and no array has
        self.assertEqual({int(n): int(bits) for bits, n in rows}, {n: bits for n, (_, _, bits) in _dtypes.TYPES.items()})


if __name__ == "__main__":
    unittest.main()
