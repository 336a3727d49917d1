"""How a run draws its cohorts, in the words of user-level accounting."""

from privfed.accounting.loss import Relation
from privfed.accounting.user import Cohorts, Fixed, Poisson, Scheduled
from privfed.errors import SettingsError
from privfed.interfaces import Invites, Plan


def cohorts_of(plan: Plan) -> tuple[Cohorts, int]:
    """How the rounds of a run hide who takes part, and the clients of a round.

    Raises SettingsError where no accountant is proven for it.
    """
    if isinstance(plan.method, Invites):
        raise SettingsError(
            "user_dp: this method's server chooses a round's clients by what it has "
            "learned, so there is no fixed cohort to divide by; take another method"
        )
    kind, clients = plan.sampling.kind, plan.clients
    if kind == "interactions":
        raise SettingsError(
            "user_dp: --sampling interactions lets one user's history decide what the "
            "others train on in a round, so nothing bounds its part; take --sampling "
            "all, poisson or uniform"
        )
    size = min(plan.sampling.clients_per_round, clients)
    if size == clients or kind == "all":
        return Scheduled(plan.rounds), clients
    if kind == "poisson":
        return Poisson(size / clients, plan.rounds), size
    if kind == "uniform" and not plan.sampling.rest:
        return Fixed(size, clients, plan.rounds), size
    return Scheduled(plan.participations), size


def relation_of(asked: str, cohorts: Cohorts) -> Relation:
    """The neighbors asked for, or by ``auto`` those that spend least.

    Raises SettingsError where cohorts have no proof for them.
    """
    if isinstance(cohorts, Fixed):
        if asked == "add_or_remove":
            raise SettingsError(
                "user_dp: relation=add_or_remove is proven to gain from sampling only "
                "with --sampling poisson; take that, or relation=replace_one"
            )
        return "replace_one"
    return "replace_one" if asked == "replace_one" else "add_or_remove"
