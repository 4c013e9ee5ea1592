"""Parts and methods of the platform: what papers choose as score, quota and diversity."""

from vsel_platform.methods import diversity_rules, free2ds_scores, geometry_scores, loss_scores, quotas, scalselect
from vsel_platform.methods.alignment import CLIP_SCORE
from vsel_platform.methods.api import Method

COMPOSE = "compose"
# Methods with a pipeline of their own.
OWN_PIPELINE = ("presel", "random")

SCORES = {
    score.name: score
    for score in (
        loss_scores.PERPLEXITY,
        loss_scores.EL2N,
        loss_scores.VISNEC,
        loss_scores.VIG,
        CLIP_SCORE,
        scalselect.SCORE,
        scalselect.RELEASED_SCORE,
        geometry_scores.UNIFORM,
        geometry_scores.PROTOTYPICALITY,
        geometry_scores.PRISM,
        geometry_scores.MAGIC,
        free2ds_scores.SCORE,
        free2ds_scores.RELEASED_SCORE,
    )
}
QUOTAS = {quota.name: quota for quota in quotas.QUOTAS}
RULES = {rule.name: rule for rule in (*diversity_rules.RULES, free2ds_scores.RELEASED_DRAW)}
METHODS = {
    method.name: method
    for method in (
        Method(
            "scalselect",
            "scalselect",
            paper="ScalSelect, arXiv 2602.11636",
            deviation="Instruction tokens are the user's words, by their place in the template; ties go by id.",
            released="scalselect_released",
        ),
        Method(
            "scalselect_released",
            "scalselect_released",
            paper="ScalSelect, arXiv 2602.11636",
            deviation="Vectors are the platform's; `signals.vision_representations_released` makes the released ones.",
        ),
        Method(
            "free2ds",
            "free2ds",
            paper="Free2DS, github.com/jematy/Free2DS",
            deviation="Missing parts stand at the median; scales by quantiles; the best rows instead of a draw.",
            released="free2ds_released",
        ),
        Method(
            "free2ds_released",
            "free2ds_released",
            diversity="softmax_draw",
            paper="Free2DS, github.com/jematy/Free2DS",
            deviation="Attention maps are the platform's: the released script for LLaVA saves none.",
        ),
        Method("perplexity", "perplexity", paper="Marion et al., arXiv 2309.04564"),
        Method("el2n", "el2n", paper="EL2N, Paul et al., arXiv 2107.07075", deviation="A mean over answer tokens."),
        Method(
            "visnec",
            "visnec",
            quota="task",
            paper="VisNec, arXiv 2603.01195",
            deviation="Rows compete inside tasks; the paper makes semantic clusters.",
        ),
        Method("vig", "vig", paper="VIG, arXiv 2602.17186"),
        Method(
            "clip_score",
            "clip_score",
            paper="CLIPScore, Hessel et al., arXiv 2104.08718",
            deviation="Questions instead of captions, a mean over them, and no factor.",
        ),
        Method(
            "ccs",
            "el2n",
            quota="strata",
            diversity="random",
            paper="CCS, Zheng et al., arXiv 2210.15809",
            deviation="Difficulty is EL2N of the base model; the paper has scores of a training run.",
        ),
        Method(
            "semdedup",
            "prototypicality",
            diversity="dedup",
            paper="SemDeDup, arXiv 2303.09540, with prototypicality, arXiv 2206.14486",
            deviation="Near duplicates are found by nearest neighbours, not only inside clusters.",
        ),
        Method(
            "coincide",
            "uniform",
            quota="coincide",
            diversity="mmd",
            paper="COINCIDE, arXiv 2406.10995",
            defaults={"space": "hidden_states"},
            deviation="Activations of the project's model at its middle layer, unless more are chosen; the paper has "
            "those of five layers of a small model.",
        ),
        Method("prism", "prism", paper="PRISM, arXiv 2502.12119", deviation="Squared correlations by default."),
        Method("d2", "el2n", diversity="d2", paper="D2 Pruning, arXiv 2310.07931"),
        Method("facility_location", "uniform", diversity="facility_location", paper="Lin & Bilmes, ACL 2011"),
        Method("k_center", "uniform", diversity="k_center", paper="Sener & Savarese, arXiv 1708.00489"),
        Method(
            "magic",
            "magic",
            quota="cluster",
            paper="after MAGIC, arXiv 2605.26004",
            deviation="Clusters of images stand for the paper's skill neurons.",
        ),
    )
}
