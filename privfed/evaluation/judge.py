"""The task that a method has in a world."""

from privfed.catalog import name_of
from privfed.data.world import World
from privfed.errors import SettingsError
from privfed.evaluation.choice import Choice
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import Ranking
from privfed.evaluation.rating import Rating
from privfed.evaluation.task import Task
from privfed.interfaces import Chooser, Method, Ranker, Rater
from privfed.seeds import Seeds


def task_of(
    method: Method,
    world: World,
    protocol: Protocol,
    seeds: Seeds,
    exposure: Exposure | None = None,
) -> Task:
    """How a method's predictions are measured; SettingsError where they cannot be."""
    if world.task != method.task:
        raise SettingsError(
            f"{world.name} is split for {world.task}, and this method's task is "
            f"{method.task}; load it for that task"
        )
    if isinstance(method, Ranker):
        candidates = protocol.candidates(world, seeds)
        return Ranking(world, method, protocol, candidates, exposure)
    if isinstance(method, Rater):
        return Rating(world, method, exposure)
    assert isinstance(method, Chooser)
    if exposure:
        raise SettingsError(
            f"{name_of(method)} chooses among a client's own items: there is nothing "
            "to promote an item in; take a method that ranks or rates"
        )
    return Choice(world, method)
