"""What every benchmark is built from: the node under test, the raw broker, load, statistics, conditions."""
