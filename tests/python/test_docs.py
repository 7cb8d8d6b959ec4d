"""The Python examples of docs/python.md run, one after another, in a scratch folder."""
import os
import pathlib
import re
import tempfile
import unittest

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "python.md"


class Examples(unittest.TestCase):
    def test_examples(self):
        blocks = re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.S | re.M)
        self.assertGreater(len(blocks), 3)
        here, names = os.getcwd(), {"os": os, "examples": str(DOC.parents[1] / "examples")}
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            try:
                for i, block in enumerate(blocks):
                    with self.subTest(block=i):
                        exec(compile(block, f"{DOC.name}, example {i}", "exec"), names)
            finally:
                os.chdir(here)


if __name__ == "__main__":
    unittest.main()
