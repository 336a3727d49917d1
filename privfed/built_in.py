"""privfed's own parts: their names, where their classes are, what they come with.

A new part is one row here. Nothing here imports a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["method", "defense", "channel", "attack", "poisoner", "encoder"]
KINDS: Sequence[Kind] = get_args(Kind)


@dataclass(frozen=True)
class Entry:
    """A catalog row: "module:Class", one line of help, settings that come with it."""

    target: str
    help: str
    preset: Mapping[str, Any] = field(default_factory=dict)


# A class's defaults are its paper's settings. These learn in tens of rounds on worlds
# of very different size: averaging over all clients dilutes what few of them touch.
_QUICK = {"epochs": 1, "batch": 256, "item_rate": 80.0, "item_std": 1.0}
_FEDAVG = {**_QUICK, "item_rate": 30_000.0}  # its rate is not times the catalog
_FEDNCF = {**_QUICK, "learning_rate": 0.5, "item_rate": 10.0, "item_std": 0.3}
_FEDRAP = {**_QUICK, "own_rate": 0.002, "apart": 1e-4, "sparse": 1e-4, "decay": 1.0}
_DL_FRS = {"item_rate": 1000.0, "user_rate": 3000.0, "start_size": 0.3}
_FEDMR = "privfed.methods.fedmr:FedMR"
_PAPER = {"learning_rate": 0.1, "epochs": 10}
_RELEASED = {
    **_PAPER,
    "epochs": 5,
    "negatives": 1,
    "negatives_pool": "items_in_train",
}

_FEDAVG_META = {"local_rate": 0.01, "batch": 50}  # where the algorithm is FedAvg
_FEDMETA = {"inner_rate": 0.5, "adapt_steps": 20, "outer_rate": 0.02, **_FEDAVG_META}

_NEURAL = {"learning_rate": 0.05}
_NEURAL_MEAN = {**_NEURAL, "user_rows": "own"}  # the mean of one row would stand still

_METAMF_AT = "privfed.methods.metamf.method:MetaMF"
_METAMF = {  # the smallest scale of its paper's Table 4; two hidden units may both die
    "width": 8,
    "layer": 4,
    "low": 4,
    "collaborative": 32,
    "hidden": 128,
    "learning_rate": 0.015,
    "batch": 8,
}

_METHODS: Mapping[str, Entry] = {
    "fedmr": Entry(
        _FEDMR, "item ids mixed with text and images, over one of five backbones"
    ),
    "fedmr_paper": Entry(_FEDMR, "FedMR with the settings of its paper", _PAPER),
    "fedmr_release": Entry(
        _FEDMR, "FedMR: epochs and negatives of its released code", _RELEASED
    ),
    "fedavg": Entry(
        "privfed.methods.fedavg:FedAvg",
        "shared item table, weighted averaging, private score heads",
        _FEDAVG,
    ),
    "fcf": Entry(
        "privfed.methods.fcf:FCF",
        "federated collaborative filtering, linear form, uniform averaging",
        _QUICK,
    ),
    "fcf_original": Entry(
        "privfed.methods.fcf_original:FCFOriginal",
        "collaborative filtering with users solved for in closed form",
    ),
    "bpr": Entry(
        "privfed.methods.bpr:BPR",
        "pairwise ranking: the item rows' clipped gradients added up",
        {"learning_rate": 0.03},
    ),
    "mf_frs": Entry(
        "privfed.methods.mf_frs:MFFRS",
        "matrix factorization by cross-entropy: item gradients added up, uncut",
    ),
    "fedncf": Entry(
        "privfed.methods.fedncf:FedNCF",
        "neural collaborative filtering with a shared network",
        _FEDNCF,
    ),
    "fedncf_federeco": Entry(
        "privfed.methods.federeco:Federeco",
        "NeuMF by local AdamW, everything averaged, users' rows included",
    ),
    "fedavg_neumf": Entry(
        "privfed.methods.neural_avg:NeuralAvg",
        "NeuMF averaged by interactions, users' rows included",
        _NEURAL_MEAN,
    ),
    "fedfast": Entry(
        "privfed.methods.fedfast:FedFast",
        "clusters of alike users; delegates train for all of their cluster",
        _NEURAL,
    ),
    "cali3f": Entry(
        "privfed.methods.cali3f:Cali3F",
        "clusters of alike users, each with a calibrated head; delegates train",
        _NEURAL,
    ),
    "ditto": Entry(
        "privfed.methods.ditto:Ditto",
        "NeuMF averaged, and a personal one on each device, drawn to it",
        _NEURAL_MEAN,
    ),
    "dl_frs": Entry(
        "privfed.methods.dl_frs:DLFRS",
        "a small MLP on user and item vectors: the clients' gradients added up",
        _DL_FRS,
    ),
    "dl_frs_paper": Entry(
        "privfed.methods.dl_frs:DLFRS",
        "the same with the settings of A-hum's paper, which learns slowly",
    ),
    "pfedrec": Entry(
        "privfed.methods.pfedrec:PFedRec",
        "dual personalization: head and item steps take turns",
    ),
    "fedrap": Entry(
        "privfed.methods.fedrap:FedRAP",
        "a shared item table plus a private one on each device",
        _FEDRAP,
    ),
    "fedmf": Entry(
        "privfed.methods.fedmf:FedMF",
        "ratings: private user vectors, item gradients added up",
        {"width": 20, "learning_rate": 3e-4, "start": 0.4, "start_spread": 0.1},
    ),
    "fedrec": Entry(
        "privfed.methods.fedrec:FedRec",
        "ratings: item gradients hidden among those of virtual ratings",
    ),
    "fedrec_pp": Entry(
        "privfed.methods.fedrec:FedRec",
        "FedRec whose virtual ratings a denoising client takes out again",
        {"denoise": True},
    ),
    "metamf": Entry(
        _METAMF_AT,
        "ratings: a model made for each client (take --sampling interactions)",
        _METAMF,
    ),
    "metamf_si": Entry(
        _METAMF_AT,
        "MetaMF with one item table shared by all clients",
        {**_METAMF, "variant": "si"},
    ),
    "metamf_sm": Entry(
        _METAMF_AT,
        "MetaMF with one prediction network shared by all clients",
        {**_METAMF, "variant": "sm", "learning_rate": 0.03},
    ),
    "fedrec_maml": Entry(
        "privfed.methods.fedrec_maml:FedRecMAML",
        "ratings by MAML on an MLP over embeddings",
        {"outer_rate": 0.02},
    ),
    "fedmeta": Entry(
        "privfed.methods.fedmeta:FedMeta",
        "meta-learning of what is chosen next: MAML, Meta-SGD; and FedAvg",
        _FEDMETA,
    ),
}

_DEFENSES: Mapping[str, Entry] = {
    "gaussian": Entry(
        "privfed.defenses.gaussian:Gaussian",
        "noise on uploaded gradients, clipped if asked: no guarantee",
    ),
    "imia_ldp": Entry(
        "privfed.defenses.gaussian:Gaussian",
        "IMIA's LDP: rows clipped and noised, item ids in the clear: not DP",
        {
            "variance": 0.001,
            "rows": "touched",
            "clip": 1.0,
            "units": "upload",
        },
    ),
    "pseudo_items": Entry(
        "privfed.defenses.pseudo_items:PseudoItems",
        "ratings: made-up ones of unrated items among the real ones",
    ),
    "fedgnn": Entry(
        "privfed.defenses.fedgnn:FedGNN",
        "pseudo item rows, clipping, Laplace noise: no guarantee",
    ),
    "top_k": Entry(
        "privfed.defenses.top_k:TopK",
        "only the largest rows or numbers are sent: compression",
    ),
    "quantize": Entry(
        "privfed.defenses.quantize:Quantize",
        "numbers of few bits, rounded at random: compression",
    ),
    "row_dropout": Entry(
        "privfed.defenses.row_dropout:RowDropout",
        "some touched rows are left out at random",
    ),
    "imia_regularizer": Entry(
        "privfed.defenses.imia_regularizer:ImiaRegularizer",
        "holds item rows near what was received while training",
    ),
    "regula": Entry(
        "privfed.defenses.regula:Regula",
        "PIECK's loss terms against poisoned item rows",
    ),
    "dp": Entry(
        "privfed.defenses.dp:DP",
        "DP-SGD on each device: (epsilon, delta) for each interaction",
    ),
    "user_dp": Entry(
        "privfed.defenses.user_dp:UserDP",
        "DP-FedAvg: (epsilon, delta) for each user, by whoever holds the sum",
    ),
    "ldp": Entry(
        "privfed.defenses.ldp:LDP",
        "uploads noised on the device: (epsilon, delta) for each user",
    ),
}

_CHANNELS: Mapping[str, Entry] = {
    "plain": Entry(
        "privfed.channels.plain:Plain",
        "uploads in the clear: the server reads every one",
    ),
    "denoiser": Entry(
        "privfed.channels.denoiser:Denoiser",
        "in the clear; FedRec++'s virtual ratings go to a client that sums them",
    ),
    "median": Entry(
        "privfed.channels.robust.rules:Median",
        "in the clear; the server takes the median of every number",
    ),
    "trimmed_mean": Entry(
        "privfed.channels.robust.rules:TrimmedMean",
        "in the clear; the server averages every number without its outliers",
    ),
    "krum": Entry(
        "privfed.channels.robust.rules:Krum",
        "in the clear; the server takes the one upload or row nearest to others",
    ),
    "multi_krum": Entry(
        "privfed.channels.robust.rules:MultiKrum",
        "in the clear; the server averages those that Krum trusts most",
    ),
    "bulyan": Entry(
        "privfed.channels.robust.rules:Bulyan",
        "in the clear; Krum picks, then outliers among those picked are dropped",
    ),
    "norm_bound": Entry(
        "privfed.channels.robust.rules:NormBound",
        "in the clear; the server cuts every upload or row to a norm",
    ),
    "he": Entry(
        "privfed.channels.encrypted.channel:Encrypted",
        "homomorphic encryption: the server adds uploads that it cannot read",
    ),
    "secagg": Entry(
        "privfed.channels.masked.channel:Masked",
        "secure aggregation: masks that cancel; the server learns the sum alone",
    ),
}

_ATTACKS: Mapping[str, Entry] = {
    "support": Entry(
        "privfed.attacks.items.support:Support",
        "reads the interactions off the item ids alone",
    ),
    "sign_pc": Entry(
        "privfed.attacks.items.sign_pc:SignPC",
        "tells positives from sampled negatives by the sign of their rows",
    ),
    "sign_pc_rounds": Entry(
        "privfed.attacks.items.sign_pc:SignPC",
        "sign_pc on all uploads of a client, with how often items come back",
        {"uploads": "all"},
    ),
    "recurrence": Entry(
        "privfed.attacks.items.recurrence:Recurrence",
        "tells interactions, which come back, from items drawn anew",
    ),
    "fcf_dense": Entry(
        "privfed.attacks.items.fcf_dense:FCFDense",
        "solves FCF's upload of every row for the items taken",
    ),
    "feature_span": Entry(
        "privfed.attacks.items.feature_span:FeatureSpan",
        "finds items in the change of a layer that reads their public features",
    ),
    "rating_two_rounds": Entry(
        "privfed.attacks.ratings.two_rounds:RatingTwoRounds",
        "ratings in closed form, from two uploads of a client",
    ),
    "rating_grid": Entry(
        "privfed.attacks.ratings.one_round:RatingGrid",
        "ratings from one upload, by the grid that they lie on",
    ),
    "sum_ratings": Entry(
        "privfed.attacks.ratings.sum_ratings:SumRatings",
        "ratings from sums over cohorts, where ratings are inner products",
    ),
    "sum_items": Entry(
        "privfed.attacks.items.sum_items:SumItems",
        "what sums over cohorts tell of each client's items",
    ),
    "user_membership": Entry(
        "privfed.attacks.users.user_membership:UserMembership",
        "tells who took part in training, from the models that are sent out",
    ),
    "linkage": Entry(
        "privfed.attacks.users.linkage:Linkage",
        "finds a client's upload of another round among those that bear no name",
    ),
    "user_vector": Entry(
        "privfed.attacks.users.user_vector:UserVector",
        "reads private user vectors off the layer or rows that they scale",
    ),
    "attribute": Entry(
        "privfed.attacks.users.attribute:Attribute",
        "infers gender, age and occupation from what uploads give away",
    ),
    "imia": Entry(
        "privfed.attacks.items.imia:Imia",
        "guesses labels, trains shadow copies on them and keeps those that fit",
    ),
    "inversion": Entry(
        "privfed.attacks.ratings.inversion:Inversion",
        "ratings: repeats local training until it gives what was uploaded",
    ),
    "raifle": Entry(
        "privfed.attacks.items.raifle:Raifle",
        "items: repeats local training until it gives what was uploaded",
    ),
    "generated": Entry(
        "privfed.attacks.ratings.generated:Division",
        "exact ratings, where the server makes each client's model",
    ),
    "likelihood_ratio": Entry(
        "privfed.attacks.items.likelihood_ratio:LikelihoodRatio",
        "membership of single interactions, calibrated on shadow users",
    ),
}

_POISONERS: Mapping[str, Entry] = {
    "fedrecattack": Entry(
        "privfed.poisoners.targeted.fedrecattack:FedRecAttack",
        "a gradient over users approximated from few public interactions",
    ),
    "pieck_ipe": Entry(
        "privfed.poisoners.targeted.pieck:PIECKIPE",
        "rows of the targets turned toward those of popular items",
    ),
    "pieck_uea": Entry(
        "privfed.poisoners.targeted.pieck:PIECKUEA",
        "scores lifted for users whose vectors are popular items' rows",
    ),
    "a_ra": Entry(
        "privfed.poisoners.targeted.synthetic:ARa",
        "a gradient by which made-up users want the targets; no prior knowledge",
    ),
    "a_hum": Entry(
        "privfed.poisoners.targeted.synthetic:AHum",
        "the same of hard users, who first learn not to want them",
    ),
    "explicit_boosting": Entry(
        "privfed.poisoners.targeted.boosting:ExplicitBoosting",
        "own users trained to want the targets; no prior knowledge",
    ),
    "pipattack": Entry(
        "privfed.poisoners.targeted.pipattack:PipAttack",
        "the same, toward rows that look popular, near an ordinary upload",
    ),
    "random_attack": Entry(
        "privfed.poisoners.shilling.average:RandomAttack",
        "profiles of the targets and items drawn at random",
    ),
    "average_attack": Entry(
        "privfed.poisoners.shilling.average:AverageAttack",
        "profiles of the targets and of items rated as they are on average",
    ),
    "popular_attack": Entry(
        "privfed.poisoners.shilling.popular:PopularAttack",
        "profiles of the targets and the most popular items",
    ),
    "bandwagon": Entry(
        "privfed.poisoners.shilling.popular:Bandwagon",
        "profiles of the targets, a few popular items and random ones",
    ),
    "segment": Entry(
        "privfed.poisoners.shilling.segment:Segment",
        "profiles of the targets and items like them",
    ),
    "cluster_attack": Entry(
        "privfed.poisoners.untargeted.cluster_attack:ClusterAttack",
        "rows that draw all items together into a few clusters",
    ),
    "fedattack": Entry(
        "privfed.poisoners.untargeted.fedattack:FedAttack",
        "training on the hardest samples, positives and negatives exchanged",
    ),
    "spattack_od": Entry(
        "privfed.poisoners.untargeted.spattack:SpattackOD",
        "what cancels the sum of all honest uploads, every row",
    ),
    "spattack_os": Entry(
        "privfed.poisoners.untargeted.spattack:SpattackOS",
        "the same on popular rows, as many as honest clients send",
    ),
    "spattack_ld": Entry(
        "privfed.poisoners.untargeted.spattack:SpattackLD",
        "one table of noise, the same on every client and round, every row",
    ),
    "spattack_ls": Entry(
        "privfed.poisoners.untargeted.spattack:SpattackLS",
        "the same on popular rows",
    ),
    "little_is_enough": Entry(
        "privfed.poisoners.untargeted.little_is_enough:LittleIsEnough",
        "the honest mean, shifted within the honest spread",
    ),
    "inner_product": Entry(
        "privfed.poisoners.untargeted.inner_product:InnerProductManipulation",
        "minus so many times the mean of all honest uploads",
    ),
    "label_flip": Entry(
        "privfed.poisoners.untargeted.label_flip:LabelFlip",
        "training on made-up interactions with their labels flipped",
    ),
    "sign_flip": Entry(
        "privfed.poisoners.untargeted.sign_flip:SignFlip",
        "minus so many times an ordinary upload on made-up interactions",
    ),
    "gaussian_upload": Entry(
        "privfed.poisoners.untargeted.gaussian_upload:GaussianUpload",
        "normal noise in place of every number",
    ),
}

_ENCODERS: Mapping[str, Entry] = {
    "tfidf": Entry(
        "privfed.data.encoders.tfidf:Tfidf", "word weights of titles and genres"
    ),
    "minilm": Entry(
        "privfed.data.encoders.minilm:MiniLM", "sentence vectors of item texts"
    ),
    "clip": Entry(
        "privfed.data.encoders.clip:Clip", "CLIP vectors of texts and images"
    ),
    "efficientnet": Entry(
        "privfed.data.encoders.efficientnet:EfficientNetLite0",
        "ImageNet features of item images",
    ),
}

BUILT_IN: Mapping[Kind, Mapping[str, Entry]] = {
    "method": _METHODS,
    "defense": _DEFENSES,
    "channel": _CHANNELS,
    "attack": _ATTACKS,
    "poisoner": _POISONERS,
    "encoder": _ENCODERS,
}
