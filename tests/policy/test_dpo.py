"""DPO: the loss by hand, tables that are checked, and a policy that follows its preferences away from a reference."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import policy
from cohort import artifact
from cohort.config import parse
from cohort.errors import ConfigError, InputError
from policy import dpo, store
from tests import probes

OPTIONS = {"behaviour": probes.CLINICIANS, "updates": 200, "learning_rate": 1e-2, "holdout": 0.0}


def test_loss_of_no_opinion_is_log_two() -> None:
    assert dpo.loss(torch.zeros(3), torch.ones(3), 0.1).item() == pytest.approx(np.log(2))


def test_margin_by_hand() -> None:
    """The policy prefers by 2 nats, its reference by 0.5: the margin is 1.5."""
    logits = torch.tensor([[3.0, 1.0, 0.0]])
    found = dpo.margin(logits, torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5]))
    assert found.item() == pytest.approx(1.5)
    assert dpo.loss(found, torch.ones(1), 2.0).item() == pytest.approx(np.log(1 + np.exp(-3.0)))


def test_gradient_equals_autograd() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    chosen, rejected = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 1, 2])
    weight, reference = torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([0.1, -0.2, 0.0, 1.0])
    margins = dpo.margin(logits, chosen, rejected, reference)
    dpo.loss(margins, weight, 0.3).backward()
    assert logits.grad is not None
    ours = dpo.gradient(logits.detach(), chosen, rejected, margins.detach(), weight, 0.3)
    assert torch.allclose(ours, logits.grad, atol=1e-6)


def _table(path: Path, **changes: object) -> Path:
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=60) for i in range(6)}
    pd.DataFrame(columns | {"chosen": 3, "rejected": 0, "weight": 1.0} | changes).to_parquet(path)
    return path


def test_policy_follows_a_preference_table_and_reports_its_divergence(tmp_path: Path) -> None:
    ward = probes.clinic()
    table = _table(tmp_path / "overrides.parquet")
    fitted = policy.fit("dpo", ward, OPTIONS | {"preferences": table})
    before = policy.fit("dpo", ward, OPTIONS | {"preferences": table, "updates": 1, "learning_rate": 1e-9})
    assert before.notes["kl_reference"] < 1e-6
    assert fitted.notes["kl_reference"] > 0.01
    ratio = np.log(fitted.probs(ward.state) / before.probs(ward.state))
    assert (ratio[:, 3] - ratio[:, 0]).mean() > 1.0
    assert fitted.notes["source"] == "table"


def test_a_large_beta_stays_nearer_the_reference(tmp_path: Path) -> None:
    ward, table = probes.clinic(), _table(tmp_path / "overrides.parquet")
    free, held = (
        policy.fit("dpo", ward, OPTIONS | {"preferences": table, "beta": beta}).notes["kl_reference"]
        for beta in (0.1, 20.0)
    )
    assert held < free / 3


def test_a_csv_and_a_saved_greedy_reference_are_taken(tmp_path: Path) -> None:
    ward = probes.clinic()
    pd.read_parquet(_table(tmp_path / "t.parquet")).to_csv(tmp_path / "t.csv", index=False)
    reference = policy.fit("conservative_iql", ward, probes.small("conservative_iql") | {"updates": 50})
    store.save(reference, tmp_path / "reference")
    fitted = policy.fit(
        "dpo", ward, OPTIONS | {"preferences": tmp_path / "t.csv", "reference": tmp_path / "reference", "hidden": (32,)}
    )
    assert fitted.notes["reference"] == "conservative_iql"
    assert fitted.probs(ward.state).sum(1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chosen": 4}, "chosen: 60 of 60"),
        ({"rejected": 3}, "rejected equals chosen"),
        ({"x2": np.nan}, "features: 60 of 60"),
        ({"weight": 0.0}, "weight: 60 of 60"),
        ({"chosen": 0.5}, "chosen"),
    ],
)
def test_rows_that_cannot_be_used_are_named_and_counted(tmp_path: Path, changes: dict, named: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=named):
        dpo.read(_table(tmp_path / "t.parquet", **changes), tuple(f"x{i}" for i in range(6)), 4)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'x6' is missing"):
        dpo.read(_table(tmp_path / "t.parquet"), tuple(f"x{i}" for i in range(7)), 4)


def test_outcomes_prefer_what_was_followed_by_a_better_return() -> None:
    episodes, state = probes.action_choice()
    fitted = policy.fit("dpo", episodes, OPTIONS)
    assert fitted.probs(state["s"][None])[0, 1] > 0.9


def test_a_table_is_known_by_its_content_and_refused_where_it_changed_meanwhile(tmp_path: Path) -> None:
    ward = probes.clinic()
    table = _table(tmp_path / "t.parquet")
    config = parse(OPTIONS | {"preferences": str(table)}, dpo.Config, "dpo")
    assert config.preferences is not None
    assert config.preferences.sha256 == artifact.hash_file(table)
    assert parse(config.model_dump(mode="json"), dpo.Config, "dpo") == config
    table.write_bytes(table.read_bytes() + b" ")
    with pytest.raises(InputError, match="not what it was"):
        policy.fit("dpo", ward, config)
    with pytest.raises(ConfigError, match=r"preferences: .*cannot be read"):
        parse(OPTIONS | {"preferences": str(tmp_path / "none.csv")}, dpo.Config, "dpo")
