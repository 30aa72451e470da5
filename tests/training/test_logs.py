"""What a run writes can be read again, by us and by TensorBoard."""

import json
import math
import struct
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxnets.training.logs import METRICS_FILE, History, Recorder, read_history

STEPS = [
    {"step": 5, "epoch": 1, "loss": 2.25, "top1": 0.1},
    {"step": 10, "epoch": 1, "loss": 1.1, "top1": 0.55},
    {"step": 15, "epoch": 2, "loss": 0.7, "top1": 0.8},
]
EPOCHS = [{"epoch": 1, "step": 10, "train_loss": 1.675, "test_top1": 0.5}]


def write_run(directory):
    recorder = Recorder(directory)
    recorder.add_steps(STEPS[0])
    recorder.add_steps(STEPS[1])
    recorder.add_epoch(EPOCHS[0])
    recorder.add_steps(STEPS[2])
    recorder.close()
    return recorder


def read_events(directory):
    """The events of all files, by the TFRecord format: length, its checksum, data, its checksum.

    A record that is still being written ends the file.
    """
    events = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            end = at + 12 + length + 4
            if end > len(data):
                break
            events.append(Event.FromString(data[at + 12 : end - 4]))
            at = end
    return events


def scalars(events):
    return {
        (event.step, value.tag): value.simple_value for event in events for value in event.summary.value
    }


def test_a_history_is_read_as_it_was_written(tmp_path):
    recorder = write_run(tmp_path)
    assert recorder.history == History(STEPS, EPOCHS)
    assert read_history(tmp_path) == recorder.history


def test_the_file_holds_one_json_object_a_line_in_the_order_of_the_run(tmp_path):
    write_run(tmp_path)
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["steps", "steps", "epochs", "steps"]
    assert json.loads(lines[1]) == {"kind": "steps", **STEPS[1]}


def test_a_record_is_on_disk_before_the_run_ends(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.add_steps(STEPS[0])
    assert read_history(tmp_path).steps == STEPS[:1]
    recorder.close()


def test_numbers_that_are_none_survive_the_round_trip(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.add_steps({"step": 1, "epoch": 1, "loss": math.nan, "grad_norm": math.inf})
    recorder.close()
    (record,) = read_history(tmp_path).steps
    assert math.isnan(record["loss"])
    assert record["grad_norm"] == math.inf


def test_resuming_drops_the_records_of_steps_that_will_be_taken_again(tmp_path):
    write_run(tmp_path)
    recorder = Recorder(tmp_path, resume_at=10)
    assert recorder.history == History(STEPS[:2], EPOCHS)
    again = {**STEPS[2], "loss": 0.6}
    recorder.add_steps(again)
    recorder.close()
    assert read_history(tmp_path) == History([*STEPS[:2], again], EPOCHS)
    lines = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert len(lines) == 4


def test_resuming_between_two_records_drops_the_later_one_and_its_epoch(tmp_path):
    write_run(tmp_path)
    Recorder(tmp_path, resume_at=9).close()
    assert read_history(tmp_path) == History(STEPS[:1])


@pytest.mark.parametrize("left", [1, 12, -1])
def test_a_half_written_last_line_is_dropped_and_its_step_recorded_again(tmp_path, left):
    write_run(tmp_path)
    path = tmp_path / METRICS_FILE
    *whole, last = path.read_text().splitlines()
    path.write_text("\n".join([*whole, last[:left]]))  # as a kill leaves it: no end of line
    assert read_history(tmp_path) == History(STEPS[:2], EPOCHS)
    recorder = Recorder(tmp_path, resume_at=10)
    recorder.add_steps(STEPS[2])
    recorder.close()
    assert read_history(tmp_path) == History(STEPS, EPOCHS)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    write_run(tmp_path)
    Recorder(tmp_path).close()
    assert (tmp_path / METRICS_FILE).read_text() == ""


def test_resuming_where_the_file_is_missing_starts_an_empty_one(tmp_path):
    recorder = Recorder(tmp_path, resume_at=10)
    recorder.add_steps(STEPS[2])
    recorder.close()
    assert read_history(tmp_path) == History(STEPS[2:])


def test_nothing_is_left_beside_the_file(tmp_path):
    write_run(tmp_path)
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert names == {"metrics", "events"}
    assert [p.name for p in tmp_path.glob("metrics*")] == [METRICS_FILE]


def test_a_directory_without_a_run_has_an_empty_history(tmp_path):
    assert read_history(tmp_path) == History()


def test_without_a_directory_the_history_is_kept_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(None)
    recorder.add_steps(STEPS[0])
    recorder.add_epoch(EPOCHS[0])
    recorder.close()
    assert recorder.history == History(STEPS[:1], EPOCHS)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_finds_every_number_at_its_step(tmp_path):
    write_run(tmp_path)
    found = scalars(read_events(tmp_path))
    wanted = {
        (record["step"], f"{kind}/{name}"): value
        for kind, records in (("steps", STEPS), ("epochs", EPOCHS))
        for record in records
        for name, value in record.items()
        if name not in ("step", "epoch")
    }
    assert found == pytest.approx(wanted, rel=1e-6)


def test_tensorboard_can_follow_a_run_while_it_lasts(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.add_steps(STEPS[0])
    # The writer's thread takes what it is given when it comes to it; a later epoch flushes that. So
    # few epochs do not fill the file's buffer.
    for epoch in range(1, 20):
        recorder.add_epoch({**EPOCHS[0], "epoch": epoch, "step": 10 * epoch})
        if (10, "epochs/test_top1") in scalars(read_events(tmp_path)):
            break
        time.sleep(0.2)
    else:
        pytest.fail("19 epochs on nothing can be seen of the first")
    recorder.close()


@pytest.mark.parametrize("resume_at", [0, 10])
def test_tensorboard_is_told_from_which_step_on_older_events_are_void(tmp_path, resume_at):
    recorder = Recorder(tmp_path, resume_at=resume_at)
    recorder.add_steps(STEPS[2])
    recorder.close()
    starts = [e.step for e in read_events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [resume_at + 1]


def test_damaged_lines_are_passed_over(tmp_path):
    """As a power failure leaves them."""
    good = json.dumps({"kind": "steps", "step": 1, "loss": 2.0})
    bad = [
        "",
        "{",
        "[]",
        "3",
        '{"kind": "steps"}',
        '{"kind": "other", "step": 1}',
        "\0\0",
        '"kind"',
        "{}",
    ]
    text = "\n".join([good, *bad]).encode() + b"\n\xff\xfe\n"
    (tmp_path / "metrics.jsonl").write_bytes(text)
    assert read_history(tmp_path).steps == [{"step": 1, "loss": 2.0}]
