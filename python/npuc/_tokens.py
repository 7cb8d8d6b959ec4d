"""Language models by token ids: calls on the KV caches of a plan, choosing tokens. What llm.py puts text around."""
import ctypes as C
import dataclasses
import time

import numpy as np

from . import _lib
from ._errors import NpucError
from ._lib import text


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
        roles = [self._api.npurt_input_role(session._plan, i) for i in range(len(session._inputs))]
        self.has_mask = 2 in roles # enum npurt_role
        self.has_batch = self._takes_batch(session, roles)

    @staticmethod
    def _takes_batch(session, roles):
        tokens = [a for a, role in zip(session._inputs.values(), roles) if role == 1]
        return all(a.shape and len(a.shape) == 2 and not isinstance(a.shape[0], int) for a in tokens)

    def keep(self, length):
        """Forgets what follows the first `length` tokens of the caches."""
        if self._api.npurt_cache_length(self._run) > length:
            self._session._checked(self._api.npurt_cache_truncate(self._run, length))
        self.length = length

    def feed(self, ids, filling=None):
        """Runs ids [batch, rows] after what the caches hold. filling: list of int, leading tokens of each sequence that
        only fill it up. Raises NpucError and leaves the caches as they were. Returns the target's microseconds."""
        ids = np.ascontiguousarray(ids, np.int64)
        batch, rows = ids.shape
        pads = (C.c_int64 * batch)(*filling) if filling and any(filling) else None
        call = _lib.Tokens(ids=ids.ctypes.data_as(C.POINTER(C.c_int64)), batch=batch, rows=rows, past=self.length, filling=pads)
        self._session._checked(self._api.npurt_run_tokens(self._run, C.byref(call)))
        self.length += rows
        return self._api.npurt_report(self._run).contents.us if self.timed else 0.0

    def pick(self, sampling, draw, before, sequence=0, batch=1):
        """The next token of a sequence by the last call's logits, int. draw: which of the seed's numbers; before: list of
        int, the tokens that the penalty is for."""
        how = _lib.Sampling(**{**dataclasses.asdict(sampling), "seed": (sampling.seed + sequence) % 2**64}, draw=draw)
        seen, token = (C.c_int64 * len(before))(*before), C.c_int64()
        row = self._row(sequence, batch) if batch > 1 else -1
        self._session._checked(self._api.npurt_sample(self._run, row, C.byref(how), seen, len(before), C.byref(token)))
        return token.value

    def _row(self, sequence, batch):
        t = _lib.Tensor()
        self._session._checked(self._api.npurt_output(self._run, self._logits.encode(), C.byref(t)))
        rows = int(np.prod(t.dims[: t.rank - 1])) // batch
        return sequence * rows + rows - 1

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


def _prefill(model, ids, filling, chunk, times, progress):
    total = ids.shape[1]
    for first in range(0, total, chunk or total):
        part = ids[:, first:first + (chunk or total)]
        begin = time.monotonic()
        us = model.feed(part, filling)
        times.add(time.monotonic() - begin, us, part.shape[1], True)
        if progress:
            progress(first + part.shape[1], total)


def generate(model, prompts, new_tokens, sampling, stop, *, chunk=None, progress=None, kept=0, times=None):
    """Continues prompts, lists of int, in one batch. Yields after each step a list with a (token, finish) per sequence:
    token None for those that ended before; finish "stop", "length", "capacity" or None. The consumer may send a set of
    sequences that it wants to end.

    stop: set of ids after which a sequence ends; kept: tokens of the prompt that the caches hold already.
    """
    _check(model, prompts)
    times = times if times is not None else Times()
    longest, batch = max(map(len, prompts)), len(prompts)
    filling = [longest - len(p) for p in prompts]
    ids = np.array([[p[0]] * n + list(p) for p, n in zip(prompts, filling)], np.int64)
    model.keep(kept)
    _prefill(model, ids[:, kept:], filling, chunk, times, progress)
    rows, done = [list(p) for p in prompts], [False] * batch
    for step in range(new_tokens):
        made, last = [], step + 1 == new_tokens
        for b in range(batch):
            if done[b]:
                made.append((None, None))
                continue
            token = model.pick(sampling, step, rows[b], b, batch)
            rows[b].append(token)
            full = model.capacity is not None and model.length >= model.capacity
            finish = "stop" if token in stop else "length" if last else "capacity" if full else None
            done[b] = finish is not None
            made.append((token, finish))
        for b in (yield made) or ():
            done[b] = True
        if all(done):
            return
        begin = time.monotonic()
        us = model.feed([[r[-1]] for r in rows], filling)
        times.add(time.monotonic() - begin, us, 1, False)
