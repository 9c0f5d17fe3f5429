"""Plans a training run from what the data and the machine are like, and says why."""
