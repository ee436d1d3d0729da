"""Guidance: each token away from what another prompt would get.

Classifier-free guidance for language models (Sanchez et al. 2023, arXiv
2306.17806). transformers' own knows no beams; these change places at every
step, and the second reading has to follow them. With one beam the text is
that of transformers (a test).
"""

from __future__ import annotations

from typing import Any


class Guidance:
    """A logits processor for ``model.generate``.

    A token's log-probability becomes ``l(against) + s (l(prompt) -
    l(against))``. Give ``renormalize_logits=True`` too, for beams add up
    log-probabilities.

    Parameters
    ----------
    model
        That of ``generate``.
    against : Tensor, shape (length,), int64
        Tokens of the other prompt.
    scale : float
        s; 1 changes nothing.
    beams : int
        ``num_beams`` of ``generate``.
    """

    def __init__(self, model: Any, against: Any, scale: float, beams: int):
        self.model, self.against = model, against
        self.scale, self.beams = scale, beams
        self.cache: Any = None  #: keys and values of the second reading
        self.before: Any = None  #: rows of the step before, (rows, tokens)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        away = self._logits(input_ids).log_softmax(-1)
        return away + self.scale * (scores.log_softmax(-1) - away)

    def _logits(self, rows: Any) -> Any:
        """Of the next token after the other prompt and what was written."""
        if self.cache is None:
            read = self.against.expand(len(rows), -1)
        else:
            self.cache.reorder_cache(self._parents(rows))
            read = rows[:, -1:]
        answer = self.model(read, past_key_values=self.cache, use_cache=True)
        self.cache, self.before = answer.past_key_values, rows
        return answer.logits[:, -1].float()

    def _parents(self, rows: Any) -> Any:
        """The row of the step before that each row goes on from."""
        import torch

        shape = (len(rows) // self.beams, self.beams, -1)
        now, before = rows[:, :-1].view(shape), self.before.view(shape)
        same = (now[:, :, None] == before[:, None]).all(-1)
        first = torch.arange(0, len(rows), self.beams, device=rows.device)
        return (first[:, None] + same.int().argmax(-1)).flatten()
