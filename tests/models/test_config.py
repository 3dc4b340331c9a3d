"""The configuration: both rope formats, the window rule, and what is refused."""

import json
import logging

import pytest

from solomonic.models import HybridConfig

BASE = {
    "hybrid_override_pattern": "*-BMF-M2-SWA",
    "num_hidden_layers": 4,
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "swa_config": {"window_size": 7},
}


def test_round_trip():
    config = HybridConfig.from_dict({**BASE, "bos_token_id": 3})
    assert HybridConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.to_dict()["bos_token_id"] == 3


def test_rope_formats():
    new = HybridConfig.from_dict({**BASE, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6}})
    old = HybridConfig.from_dict({**BASE, "rope_theta": 5e6, "rope_scaling": None})
    assert new.rope_theta == old.rope_theta == 5e6
    linear = HybridConfig.from_dict({**BASE, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}})
    assert linear.rope_scaling == 4
    assert HybridConfig.from_dict(linear.to_dict()) == linear
    with pytest.raises(ValueError, match=r"rope_type.*yarn"):
        HybridConfig.from_dict({**BASE, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})


@pytest.mark.parametrize(
    ("stored", "read"), [(2047, 2048), (31, 32), (15, 15), (7, 7), (2048, 2048), (63, 64), (100, 100)]
)
def test_window_rule_of_older_files(stored, read, caplog):
    with caplog.at_level(logging.INFO, logger="solomonic"):
        config = HybridConfig.from_dict({**BASE, "bmojo_config": {"window_size": stored}})
    assert config.bmojo_window == read
    assert (stored != read) == bool(caplog.records)


def test_window_rule_is_for_bmojo_alone():
    assert HybridConfig.from_dict({**BASE, "swa_config": {"window_size": 63}}).swa_window == 63


def test_empty_tail_of_a_pattern():
    assert HybridConfig.from_dict({**BASE, "hybrid_override_pattern": "*-*-", "num_hidden_layers": 2}).pattern == (
        "*",
        "*",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hybrid_override_pattern": None}, "hybrid_override_pattern"),
        ({"hybrid_override_pattern": ""}, "at least one symbol"),
        ({"hybrid_override_pattern": 3}, "expected a string"),
        ({"hybrid_override_pattern": "*-Q-M2-SWA"}, "layer 1.*'Q'"),
        ({"hybrid_override_pattern": "*--M2-SWA"}, "layer 1"),
        ({"hybrid_override_pattern": "*-GDN>GKA-M2-SWA"}, "layer 1.*during training"),
        ({"hybrid_override_pattern": "*-M2*-M2-SWA"}, "layer 1.*during training"),
        ({"gka_config": {"solver_type": "cg"}}, "gka_config: solver_type: only 'chebyshev'"),
        ({"gdn_config": {"kv_proj_rank": 8}}, "gdn_config: kv_proj_rank: only None"),
        ({"gka_config": {"num_iter": -1}}, "gka_num_iter: expected an integer of at least 0, got -1"),
        ({"gka_config": {"ridge_strength": 0.0}}, "gka_ridge_strength: expected a positive number"),
        ({"hybrid_override_pattern": "*-M2"}, "2 layers, but num_hidden_layers is 4"),
        ({"num_key_value_heads": 3}, "num_key_value_heads.*divisor"),
        ({"head_dim": 0}, "head_dim"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"swa_config": None}, "swa_window"),
        ({"swa_config": {"window_size": -1}}, "swa_window"),
        ({"swa_config": 4}, "swa_config"),
        ({"bmojo_config": {"window_size": 0}}, "bmojo_window"),
        ({"bmojo_config": {"ssm_mixer": "s4"}}, "ssm_mixer"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"dtype": "int8"}, "dtype"),
        ({"partial_rotary_factor": 0.0}, "partial_rotary_factor"),
        ({"rope_theta": -1.0}, "rope_theta"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        HybridConfig.from_dict({**BASE, **change}, source="config.json")


def test_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        HybridConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(ValueError, match="JSON"):
        HybridConfig.from_file(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="JSON object"):
        HybridConfig.from_file(tmp_path)
