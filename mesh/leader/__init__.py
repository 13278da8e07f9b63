"""The elected leader and its services: the lease, reclaiming work of dead nodes, metrics, alarms, the journal."""
