"""Language models by token ids: calls on the KV caches of a plan, choosing tokens. What llm.py puts text around."""
import ctypes as C
import dataclasses
import enum
import time

import numpy as np

from . import _lib
from ._errors import NpucError
from ._lib import text


class Batch(enum.IntEnum):
    """How sequences of a batch may differ in length: enum npurt_batch."""

    ONE = 0
    EQUAL = 1
    FILLED = 2
    OWN = 3


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is chosen, as npurt.h's struct npurt_sampling says; by default the likeliest one.

    A seed gives the same tokens on every machine. Sequence b of a batch draws with seed + b.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 0.0
    min_p: float = 0.0
    repeat_penalty: float = 0.0
    seed: int = 0


@dataclasses.dataclass
class Times:
    """Seconds of this host, and microseconds of the target in mode "both" (0 in mode "data")."""

    prefill_tokens: int = 0
    decode_steps: int = 0
    host_prefill_s: float = 0.0
    host_decode_s: float = 0.0
    prefill_us: float = 0.0
    decode_us: float = 0.0

    def add(self, seconds, us, rows, prefill):
        """Counts a call."""
        if prefill:
            self.prefill_tokens += rows
            self.host_prefill_s += seconds
            self.prefill_us += us
        else:
            self.decode_steps += 1
            self.host_decode_s += seconds
            self.decode_us += us


class Model:
    """The plan of a session as a function from token ids to logits, with the caches' state.

    length: tokens of each sequence in the caches.
    """

    def __init__(self, session):
        self._session, self._api, self._run = session, session._api, session._session
        self.length = 0
        self.timed = session._mode == "both"
        if session._mode == "clock":
            raise NpucError(2, "generating text needs the model's values: mode 'data' or 'both'")
        number = self._api.npurt_logits_output(session._plan)
        if number < 0:
            raise NpucError(4, f"{session._file}: no language model with a KV cache: caches and a logits output are needed")
        logits = session.get_outputs()[number]
        self._logits = logits.name
        last = logits.shape[-1] if logits.shape else None
        self.vocabulary = last if isinstance(last, int) else None
        self.capacity = self._api.npurt_cache_capacity(self._run) or None
        self.room = self._api.npurt_cache_room(self._run) # new tokens of a call
        self.form = Batch(self._api.npurt_batch_form(session._plan))
        rows = logits.shape[-2] if logits.shape and len(logits.shape) > 1 else None
        self.gives_all_rows = not isinstance(rows, int)

    def keep(self, length):
        """Forgets what follows the first `length` tokens of the caches."""
        if self._api.npurt_cache_length(self._run) > length:
            self._session._checked(self._api.npurt_cache_truncate(self._run, length))
        self.length = length

    def takes(self, lengths):
        """Can sequences of these lengths, list of int, be a batch?"""
        if len(lengths) == 1 or self.form == Batch.ONE:
            return len(lengths) == 1
        return min(lengths) == max(lengths) or self.form == Batch.FILLED or (self.form == Batch.OWN and self.gives_all_rows)

    def feed(self, ids, filling=None, own=None):
        """Runs ids [batch, rows] after what the caches hold. filling: list of int, leading tokens of each sequence that
        only fill it up; own: list of int, tokens of each in the caches where they differ. Raises NpucError and leaves the
        caches as they were. Returns the target's microseconds."""
        ids = np.ascontiguousarray(ids, np.int64)
        batch, rows = ids.shape
        pads = (C.c_int64 * batch)(*filling) if filling and any(filling) else None
        rest = (C.c_int64 * batch)(*own) if own else None
        call = _lib.Tokens(ids=ids.ctypes.data_as(C.POINTER(C.c_int64)), batch=batch, rows=rows, past=self.length, filling=pads, own=rest)
        self._session._checked(self._api.npurt_run_tokens(self._run, C.byref(call)))
        self.length += rows
        return self._api.npurt_report(self._run).contents.us if self.timed else 0.0

    def pick(self, sampling, draw, before, sequence=0, batch=1, row=-1):
        """The next token of a sequence by the last call's logits, int. draw: which of the seed's numbers; before: list of
        int, the tokens that the penalty is for; row: of the sequence's in that call, from its end when negative."""
        how = _lib.Sampling(**{**dataclasses.asdict(sampling), "seed": (sampling.seed + sequence) % 2**64}, draw=draw)
        seen, token = (C.c_int64 * len(before))(*before), C.c_int64()
        if batch > 1 or row >= 0:
            row = self._row(sequence, batch, row)
        self._session._checked(self._api.npurt_sample(self._run, row, C.byref(how), seen, len(before), C.byref(token)))
        return token.value

    def _row(self, sequence, batch, row):
        t = _lib.Tensor()
        self._session._checked(self._api.npurt_output(self._run, self._logits.encode(), C.byref(t)))
        rows = int(np.prod(t.dims[: t.rank - 1])) // batch
        return sequence * rows + (row if row >= 0 else rows + row)

    def target(self):
        """Name of the target, str."""
        return text(self._api.npurt_plan_target(self._session._plan))


def _check(model, prompts):
    for prompt in prompts:
        if not prompt:
            raise NpucError(3, "the prompt holds no token")
        if model.capacity and len(prompt) > model.capacity:
            raise NpucError(5, f"the prompt has {len(prompt)} tokens, the caches have room for {model.capacity}; "
                               "compile with a larger kv_capacity")


class _Batch:
    """Prompts that run together. Those that are shorter are filled up in front, or behind where each has rows of its own."""

    def __init__(self, model, prompts):
        self.model, self.rows, self.n = model, [list(p) for p in prompts], len(prompts)
        self.lengths, self.longest = [len(p) for p in prompts], max(map(len, prompts))
        self.apart = model.form == Batch.OWN and min(self.lengths) < self.longest
        gaps = [self.longest - n for n in self.lengths]
        self.filling = None if self.apart else gaps
        self.ids = np.array([list(p) + [p[0]] * n if self.apart else [p[0]] * n + list(p) for p, n in zip(prompts, gaps)], np.int64)
        self.first, self.done = [None] * self.n, [False] * self.n # tokens after the prompts; has the sequence ended?

    def prefill(self, sampling, kept, chunk, times, progress):
        """Runs the prompts; afterwards first has the token that follows each. The first call has a token of every prompt."""
        end = kept
        while end < self.longest:
            start, least = end, max(self.filling or [0]) + 1
            end = min(self.longest, max(start + min(chunk or self.longest, self.model.room), least))
            part = self.ids[:, start:end]
            self._feed(part, [min(start, n) for n in self.lengths], times, True)
            for b, n in enumerate(self.lengths):
                if start < n <= end if self.apart else end == self.longest:
                    row = n - 1 - start if self.apart else -1
                    self.first[b] = self.model.pick(sampling, 0, self.rows[b], b, self.n, row)
            if progress:
                progress(end - kept, self.longest - kept)

    def step(self, times):
        """Runs the last token of each. Sequences that have ended take part, on rows that nobody reads."""
        own = [0 if done else len(r) - 1 for r, done in zip(self.rows, self.done)]
        if self.apart:
            self.model.keep(max(own))
        self._feed([[r[-1]] for r in self.rows], own, times, False)

    def is_full(self, b):
        """Is there no room for another token of sequence b?"""
        held = len(self.rows[b]) - 1 if self.apart else self.model.length
        return self.model.capacity is not None and held >= self.model.capacity

    def _feed(self, ids, own, times, prefill):
        begin = time.monotonic()
        us = self.model.feed(ids, self.filling, own if self.apart else None)
        times.add(time.monotonic() - begin, us, len(ids[0]), prefill)


def generate(model, prompts, new_tokens, sampling, stop, *, chunk=None, progress=None, kept=0, times=None):
    """Continues prompts, lists of int, in one batch. Yields after each step a list with a (token, finish) per sequence:
    token None for those that ended before; finish "stop", "length", "capacity" or None. The consumer may send a set of
    sequences that it wants to end.

    stop: set of ids after which a sequence ends; kept: tokens of the prompt that the caches hold already.
    """
    _check(model, prompts)
    times = times if times is not None else Times()
    batch = _Batch(model, prompts)
    model.keep(kept)
    batch.prefill(sampling, kept, chunk, times, progress)
    for step in range(new_tokens):
        made, last = [], step + 1 == new_tokens
        for b, rows in enumerate(batch.rows):
            if batch.done[b]:
                made.append((None, None))
                continue
            token = model.pick(sampling, step, rows, b, batch.n) if step else batch.first[b]
            rows.append(token)
            finish = "stop" if token in stop else "length" if last else "capacity" if batch.is_full(b) else None
            batch.done[b] = finish is not None
            made.append((token, finish))
        for b in (yield made) or ():
            batch.done[b] = True
        if all(batch.done):
            return
        batch.step(times)
