"""What the processes of a cluster inherit from its main process."""

from durable_agents.task_queue import qcluster_hardening


def test_the_main_process_closes_its_connections_before_it_forks(monkeypatch):
    """With Django 6.1, system checks have opened some by then. Processes cannot share them."""
    steps = []

    class MainProcess:
        def start(self):
            steps.append("fork")
            return 7

    monkeypatch.setattr(qcluster_hardening, "close_pools", lambda: steps.append("close"))
    qcluster_hardening.close_pools_first(MainProcess)
    assert MainProcess().start() == 7
    assert steps == ["close", "fork"]
