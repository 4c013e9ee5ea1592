"""The nightly backstop."""

import dagster as dg

from automation.jobs import maintenance, reselect
from automation.partitions import loaded_project
from automation.sensors import automation_is_off

nightly = dg.ScheduleDefinition(
    name="nightly_reselection",
    job=reselect,
    default_status=dg.DefaultScheduleStatus.STOPPED if automation_is_off() else dg.DefaultScheduleStatus.RUNNING,
    cron_schedule=loaded_project().automation.nightly_cron,
    description="Brings every selection up to date once a night, whatever the sensors did. It never trains.",
)

weekly = dg.ScheduleDefinition(
    name="weekly_maintenance",
    job=maintenance,
    default_status=dg.DefaultScheduleStatus.STOPPED if automation_is_off() else dg.DefaultScheduleStatus.RUNNING,
    cron_schedule="0 4 * * 0",
    description="Keeps the tables of embeddings fast to read: merges their small files.",
)

ALL = [nightly, weekly]
