"""Configurations of Triton's models: their text, their fields, and names and numbers that are refused."""

from __future__ import annotations

import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.serving.config import ServeOptions, Word, clip_config, default_name, render, stream_config


def test_messages_repeated_fields_words_and_text() -> None:
    fields = {
        "name": 'a "quoted"\nname',
        "kind": Word("KIND_CPU"),
        "dims": [1, 2],
        "zero_data": True,
        "nothing": None,
        "input": [{"name": "a"}, {"name": "b"}],
    }
    assert render(fields) == (
        'name: "a \\"quoted\\"\\nname"\nkind: KIND_CPU\ndims: 1\ndims: 2\nzero_data: true\n'
        'input {\n  name: "a"\n}\ninput {\n  name: "b"\n}\n'
    )


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".hidden"])
def test_a_name_that_would_be_no_folder_of_the_repository_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match="is no name for a model"):
        ServeOptions(name)


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(BackendError, match="max-streams must be at least 1, not 0"):
        ServeOptions("a", max_streams=0)


def test_clips_are_batched_and_warmed_up_alone_and_all_together(tiny: Bundle) -> None:
    config = clip_config(tiny.graph("clip"), ServeOptions(default_name(tiny), max_batch=4, delay=0.5), {})
    assert (config["name"], config["max_batch_size"]) == ("tiny-clip", 4)
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 500_000}
    assert config["input"][0] == {"name": "frames", "data_type": "TYPE_UINT8", "dims": [5, 16, 24, 3]}
    assert [one["batch_size"] for one in config["model_warmup"]] == [1, 4]


def test_streams_have_controls_and_a_warm_up_that_is_a_stream(tiny_stream: Bundle) -> None:
    encode, decode = tiny_stream.graph("encode"), tiny_stream.graph("decode")
    config = stream_config(encode.inputs, decode.outputs, ServeOptions("s", max_streams=3, gpu=1), {})
    batching = config["sequence_batching"]
    assert batching["oldest"]["max_candidate_sequences"] == config["max_batch_size"] == 3
    assert [one["name"] for one in batching["control_input"]] == ["START", "END"]
    assert config["instance_group"] == {"count": 1, "kind": "KIND_GPU", "gpus": [1]}
    flags = [
        [entry["value"].get("input_data_file") for entry in one["inputs"] if entry["key"] in ("START", "END")]
        for one in config["model_warmup"]
    ]
    assert flags == [["true", "false"], ["false", "false"], ["false", "true"]]
