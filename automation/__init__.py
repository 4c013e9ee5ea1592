"""When things run: partitions, jobs, schedules, sensors."""
