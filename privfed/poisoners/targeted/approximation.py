"""What an adversary puts in the place of the users' vectors, which it never sees.

Rong et al., FedRecAttack, ICDE 2022: vectors are fitted to the public share of the
users' interactions by BPR, against the item table as it was received, one pass of Adam
for each table. Vectors and Adam's memory live as long as the attack.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.world import Ragged
from privfed.interfaces import State
from privfed.seeds import Stream

_BETAS, _EPS = (0.9, 0.999), 1e-8  # these are PyTorch's


@dataclass(frozen=True, eq=False)
class Known:
    """Public interactions of some users, each pair once, by user and item."""

    users: int
    items: int
    owner: Tensor  # (pairs,) ascending
    item: Tensor  # (pairs,)

    @classmethod
    def of(cls, public: Ragged, users: int, items: int) -> "Known":
        """Those of the first ``users`` clients."""
        mine = public.owner < users
        key = torch.unique(public.owner[mine] * items + public.item[mine])
        return cls(users, items, key // items, key % items)

    def has(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether each pair is among them."""
        key = self.owner * self.items + self.item
        return torch.isin(user * self.items + item, key)


@dataclass(frozen=True, eq=False)
class Pool:
    """Known pairs whose user has further items, ready for drawing them."""

    owner: Tensor  # (pairs,) ascending
    item: Tensor  # (pairs,)
    free: Tensor  # (pairs,) items that the pair's user is not known for
    first: Tensor  # (pairs,) place of the first pair of its user
    gap: Tensor  # (pairs,) free items of lower number, after ``lane``: ascending
    lane: Tensor  # (pairs,)

    @classmethod
    def of(cls, known: Known) -> "Pool":
        every = torch.bincount(known.owner, minlength=known.users)
        some = every[known.owner] < known.items
        owner, item = known.owner[some], known.item[some]
        counts = torch.bincount(owner, minlength=known.users)
        first = (counts.cumsum(0) - counts)[owner]
        lane = owner * (known.items + 1)
        gap = lane + item - (torch.arange(len(owner)) - first)
        return cls(owner, item, known.items - counts[owner], first, gap, lane)

    def others(self, stream: Stream) -> Tensor:
        """For each pair a uniform item that its user is not known for, (pairs,)."""
        drawn = stream.bits(self.owner, self.item) % self.free
        below = torch.searchsorted(self.gap, self.lane + drawn, right=True)
        return drawn + below - self.first


@dataclass(frozen=True)
class Fit:
    """One pass of Adam over users in batches of ``batch``, on BPR's summed loss."""

    learning_rate: float
    batch: int

    def after(
        self, memory: State, pool: Pool, table: Tensor, stream: Stream
    ) -> dict[str, Tensor]:
        """Vectors ``users`` and Adam's memory after a pass; both are kept as given.

        ``table`` is (items, width).
        """
        names, step = ("users", "first", "second"), memory["steps"].clone()
        vectors, first, second = (memory[name].clone() for name in names)
        slope = torch.zeros_like(vectors)
        for who, toward in self._batches(len(vectors), pool, table, stream):
            margin = (vectors.index_select(0, who) * toward).sum(1, keepdim=True)
            slope.zero_().index_add_(0, who, toward * -torch.sigmoid(-margin))
            step += 1
            self._step(vectors, slope, first, second, step)
        return {"users": vectors, "first": first, "second": second, "steps": step}

    def _step(
        self,
        vectors: Tensor,
        slope: Tensor,
        first: Tensor,
        second: Tensor,
        step: Tensor,
    ) -> None:
        """Adam's step, in place; users of no gradient move as well."""
        torch._fused_adamw_(  # without decay it is Adam's
            [vectors],
            [slope],
            [first],
            [second],
            [],
            [step],
            amsgrad=False,
            lr=self.learning_rate,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=0.0,
            eps=_EPS,
            maximize=False,
        )

    def _batches(
        self, users: int, pool: Pool, table: Tensor, stream: Stream
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of shuffled users the pairs' users, and positive - other."""
        everyone = torch.arange(users)
        key = stream.of("batches").bits(everyone, torch.zeros_like(everyone))
        batch = torch.empty_like(everyone)
        batch[key.argsort(stable=True)] = everyone // self.batch
        of_pair, at = batch.index_select(0, pool.owner).sort(stable=True)
        others = pool.others(stream.of("others"))
        apart = table.index_select(0, pool.item) - table.index_select(0, others)
        count = torch.bincount(of_pair, minlength=-(-users // self.batch)).tolist()
        owner, apart = pool.owner.index_select(0, at), apart.index_select(0, at)
        return zip(torch.split(owner, count), torch.split(apart, count), strict=True)


def first_guess(users: int, width: int, size: float, stream: Stream) -> State:
    """Vectors from N(0, size^2), and an Adam that has taken no step."""
    vectors = drawn(users, width, size, stream)
    return {
        "users": vectors,
        "first": torch.zeros_like(vectors),
        "second": torch.zeros_like(vectors),
        "steps": torch.tensor(0.0),
    }


def drawn(users: int, width: int, size: float, stream: Stream) -> Tensor:
    """Vectors from N(0, size^2), (users, width), drawn on the CPU."""
    out = torch.randn(users, width, generator=stream.generator(), device="cpu")
    return out.to(torch.get_default_device()) * size
