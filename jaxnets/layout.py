"""The names of what lies in the directory of a run, for those who write it and those who read it."""

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PROFILE = "profile"
