"""Text and token ids: tokenizer files, chat templates, text that grows token by token."""
import datetime
import json
import pathlib

from ._errors import NpucError

BROKEN = "\ufffd" # what a decoder shows for an unfinished UTF-8 sequence


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise NpucError(6, f"{path}: {e.strerror}") from None
    except ValueError as e:
        raise NpucError(3, f"{path}: no JSON: {e}") from None


def _load(path):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise NpucError(4, "text needs the package tokenizers (pip install tokenizers); token ids do without") from None
    if not path.is_file():
        raise NpucError(6, f"{path}: no such file")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as e: # the package raises Exception itself
        raise NpucError(3, f"{path}: {e}") from None


def _content(token):
    """A special token of tokenizer_config.json: text, or an object that holds it."""
    return token.get("content") if isinstance(token, dict) else token


class Text:
    """A tokenizer with what its folder says about special tokens and chats.

    tokenizer: a tokenizer.json, the folder that holds it (with tokenizer_config.json, generation_config.json and
    chat_template.jinja where they exist), or an object of the package tokenizers.
    """

    def __init__(self, tokenizer):
        self.config, self._generation, self.folder = {}, {}, None
        self.tokenizer = tokenizer
        if isinstance(tokenizer, (str, pathlib.PurePath)):
            path = pathlib.Path(tokenizer)
            path = path / "tokenizer.json" if path.is_dir() else path
            self.tokenizer, self.folder = _load(path), path.parent
            self.config = self._beside("tokenizer_config.json")
            self._generation = self._beside("generation_config.json")

    def _beside(self, name):
        path = self.folder / name
        return _read_json(path) if path.is_file() else {}

    def size(self):
        """One more than the largest id, int."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def special(self, name):
        """Id of "bos_token", "eos_token", ...; None when there is none."""
        token = _content(self.config.get(name))
        return self.tokenizer.token_to_id(token) if token else None

    def ends(self):
        """Ids that end a text, set of int."""
        listed = self._generation.get("eos_token_id", [])
        own = self.special("eos_token")
        return set(listed if isinstance(listed, list) else [listed]) | ({own} if own is not None else set())

    def encode(self, text, special=True):
        """Ids of a text, list of int; special: with what the tokenizer puts around a text."""
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, ids):
        """Text of ids without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _template(self):
        file = self.folder / "chat_template.jinja" if self.folder else None
        if file and file.is_file():
            return file.read_text(encoding="utf-8")
        found = self.config.get("chat_template")
        if isinstance(found, list): # named ones
            found = next((t["template"] for t in found if t.get("name") == "default"), None)
        return found

    def chat(self, messages, **variables):
        """The prompt of a conversation by the model's chat template.

        messages: list of {"role": ..., "content": ...}; variables: further names for the template, such as tools.
        """
        template = self._template()
        if not template:
            raise NpucError(4, "the tokenizer has no chat template: tokenizer_config.json or chat_template.jinja beside tokenizer.json")
        try:
            import jinja2
            import jinja2.sandbox
        except ImportError:
            raise NpucError(4, "chat templates need the package jinja2 (pip install jinja2)") from None

        def refuse(why):
            raise jinja2.TemplateError(why)

        env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                           extensions=["jinja2.ext.loopcontrols"])
        env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        env.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.datetime.now().strftime(form))
        tokens = {name: _content(value) for name, value in self.config.items() if name.endswith("_token")}
        try:
            return env.from_string(template).render(messages=messages, **{"add_generation_prompt": True, **tokens, **variables})
        except jinja2.TemplateError as e:
            raise NpucError(3, f"the chat template refuses the messages: {e}") from None


class Growing:
    """Text of a sequence that grows: push gives what is certain, hold-back what may still change or be part of a stop text.

    stop: list of str; the text ends before the first of them that appears, `stopped` is True then.
    """

    def __init__(self, text, stop=()):
        self._text, self._stop = text, [s for s in stop if s]
        self._ids, self._from, self._to, self._held = [], 0, 0, ""
        self.stopped = False

    def push(self, token):
        """Adds a token, returns the text that it completes, often ""; nothing behind a stop text."""
        if self.stopped:
            return ""
        self._ids.append(token)
        before, now = self._text.decode(self._ids[self._from:self._to]), self._text.decode(self._ids[self._from:])
        if now.endswith(BROKEN) or len(now) <= len(before):
            return ""
        self._from, self._to = self._to, len(self._ids)
        return self._release(now[len(before):])

    def finish(self):
        """The rest, when no token follows."""
        if self.stopped:
            return ""
        rest = self._text.decode(self._ids[self._from:])[len(self._text.decode(self._ids[self._from:self._to])):]
        self._from = self._to = len(self._ids)
        out = self._release(rest)
        if not self.stopped:
            out, self._held = out + self._held, ""
        return out

    def _release(self, more):
        text = self._held + more
        found = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[:min(found)]
        keep = max((n for s in self._stop for n in range(min(len(s) - 1, len(text)), 0, -1) if text.endswith(s[:n])), default=0)
        self._held = text[len(text) - keep:]
        return text[:len(text) - keep]
