"""Uploads put together by hand."""

import pytest
import torch
from torch import Tensor

from privfed.messages import Rows, Uploads
from privfed.poisoners.crafting.rows import Crafted, clipped, replaced, scale_of


def sent() -> Uploads:
    rows = Rows(torch.tensor([0, 0, 1]), torch.tensor([1, 3, 0]), torch.ones(3, 2))
    dense = {"w": torch.ones(2, 4), "b": torch.ones(2, 1)}
    return Uploads(
        torch.tensor([5, 8]), {"a": rows, "z": rows}, dense, scale={"a": 0.5}
    )


def dense(upload: Uploads, table: str, items: int) -> Tensor:
    rows, out = upload.rows[table], torch.zeros(len(upload.clients), items, 2)
    for sender, item, value in zip(rows.sender, rows.item, rows.value, strict=True):
        assert not out[sender, item].any()
        out[sender, item] = value
    return out


def test_the_same_rows_for_all_and_nothing_else() -> None:
    item, value = torch.tensor([4, 2]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    made = replaced(sent(), {"a": Crafted(item, value)}, {"b": torch.tensor([7.0])}, 6)

    expected = torch.zeros(2, 6, 2)
    expected[:, 4], expected[:, 2] = value[0], value[1]
    assert torch.equal(dense(made, "a", 6), expected)
    assert made.rows["a"].item.tolist() == [2, 4, 2, 4]
    assert len(made.rows["z"].item) == 0
    assert made.dense["b"].tolist() == [[7.0], [7.0]]
    assert not made.dense["w"].any()
    assert made.dense["w"].shape == (2, 4)


def test_each_client_its_own_rows_and_repeats_add_up() -> None:
    item = torch.tensor([[4, 4], [1, 0]])
    value = torch.arange(8.0).view(2, 2, 2)

    made = replaced(sent(), {"a": Crafted(item, value)}, {}, 6)

    rows = made.rows["a"]
    assert rows.sender.tolist() == [0, 1, 1]
    assert rows.item.tolist() == [4, 0, 1]
    assert torch.equal(rows.value[0], value[0].sum(0))
    assert torch.equal(rows.value[1:], value[1].flip(0))


def test_what_was_given_does_not_change() -> None:
    given, item = sent(), torch.tensor([0])

    replaced(given, {"a": Crafted(item, torch.zeros(1, 2))}, {"w": torch.zeros(4)}, 6)

    assert given.rows["a"].value.min() == 1.0
    assert given.dense["w"].min() == 1.0


@pytest.mark.parametrize(("rows", "names"), [({"q"}, "q"), ({"q", "u"}, "q, u")])
def test_an_unknown_tensor_is_refused(rows: set[str], names: str) -> None:
    made = {n: Crafted(torch.tensor([0]), torch.zeros(1, 2)) for n in rows}

    with pytest.raises(KeyError, match=names):
        replaced(sent(), made, {}, 6)


def test_a_method_that_tells_no_scale_counts_one() -> None:
    assert scale_of(sent(), "a") == 0.5
    assert scale_of(sent(), "w") == 1.0


def test_only_long_rows_are_cut() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])

    assert torch.allclose(clipped(rows, 1.0), rows * torch.tensor([[0.2], [1], [1]]))
