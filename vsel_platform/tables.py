"""Every table's schema, once: storage, checks, SQL comments and docs are made from it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Arrow type name, meaning, unit; `nullable` columns hold NULL where a value is missing."""

    name: str
    type: str
    description: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: its columns, what one partition is, and the columns that identify a row in it."""

    name: str
    description: str
    partition_by: tuple[str, ...]
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def arrow_schema(self) -> "pa.Schema":
        """Arrow schema of the table, nullability included."""
        import pyarrow as pa

        return pa.schema([pa.field(c.name, arrow_type(c.type), nullable=c.nullable) for c in self.columns])

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]


def arrow_type(name: str) -> Any:
    """Arrow type of a type name: string, bool, int32, int64, float32, float64, list<...>."""
    import pyarrow as pa

    if name.startswith("list<"):
        return pa.list_(arrow_type(name[5:-1]))
    return {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
    }[name]


SAMPLE_ID = Column(
    "sample_id",
    "string",
    "Identity of the row's content: sha256 of turns and image identities.",
    "sha256 hex",
)
IMAGE_ID = Column("image_id", "string", "Identity of the image: sha256 of the file's bytes.", "sha256 hex")
TASK = Column("task", "string", "Task of the row.")

_SPECS = (
    TableSpec(
        "manifest",
        "A dataset at a point in time: one row per accepted source row, in source order.",
        ("dataset",),
        ("position",),
        (
            Column("position", "int64", "Position in the source, counted over all files in order.", "0-based"),
            SAMPLE_ID,
            Column("shard", "string", "Shard that holds the content."),
            TASK,
            Column("source_id", "string", "The row's own id, as JSON; an attribute, never a key.", nullable=True),
            Column("is_duplicate", "bool", "The same content stands at an earlier position, under another id."),
            Column(
                "row_json",
                "string",
                "The source row, if it differs from the one kept with the content.",
                "JSON",
                True,
            ),
        ),
    ),
    TableSpec(
        "quarantine",
        "Source rows that were refused, each with its reason.",
        ("dataset",),
        ("position",),
        (
            Column("position", "int64", "Position in the source.", "0-based"),
            Column("reason", "string", "Reason code."),
            Column("detail", "string", "What exactly is wrong, and where in the row."),
            Column("row_json", "string", "The first 2,000 characters of the row.", "JSON", True),
        ),
    ),
    TableSpec(
        "samples",
        "Content of rows, once per distinct content.",
        ("shard",),
        ("sample_id",),
        (
            SAMPLE_ID,
            Column(
                "conversation",
                "string",
                "Turns as [[role, text], ...]; roles are system, user, assistant.",
                "JSON",
            ),
            Column("image_ids", "list<string>", "Identities of the row's images, in order."),
            Column("n_turns", "int32", "Number of turns.", "turns"),
            Column("n_characters", "int64", "Length of all texts.", "characters"),
            Column("row_json", "string", "The source row as it was first seen, without its turns.", "JSON"),
            Column(
                "turns_key",
                "string",
                "Key in row_json under which the turns of `conversation` stood; NULL if row_json still holds them.",
                nullable=True,
            ),
        ),
    ),
    TableSpec(
        "images",
        "Images, once per distinct content that the shard brought in.",
        ("shard",),
        ("image_id",),
        (
            IMAGE_ID,
            Column("path", "string", "Where the bytes lie (path or URL)."),
            Column("source_path", "string", "The path as the source row gives it."),
            Column("n_bytes", "int64", "Size of the file.", "bytes", True),
            Column("width", "int32", "Width.", "pixels", True),
            Column("height", "int32", "Height.", "pixels", True),
            Column("format", "string", "Container format.", nullable=True),
        ),
    ),
    TableSpec(
        "signal_failures",
        "Content for which a signal could not be computed, with the reason; its value is NULL.",
        ("signal", "fingerprint", "shard"),
        ("content_id",),
        (
            Column("content_id", "string", "sample_id or image_id.", "sha256 hex"),
            Column("reason", "string", "Reason code."),
            Column("detail", "string", "What happened."),
        ),
    ),
    TableSpec(
        "reference_subset",
        "Rows of the images that were drawn for the reference set of a dataset.",
        ("dataset",),
        ("sample_id",),
        (SAMPLE_ID, TASK, Column("image_id", "string", "First image of the row.", "sha256 hex")),
    ),
    TableSpec(
        "losses",
        "Answer loss of rows under conditions (with and without the question, without the image) and a model: the "
        "reference rows under their reference model, or all rows under the base model.",
        ("fingerprint", "shard"),
        ("sample_id", "condition"),
        (
            SAMPLE_ID,
            Column("condition", "string", "full, no_question or no_image."),
            Column("loss_sum", "float64", "Sum of the negative log-likelihood of the answer tokens.", "nat", True),
            Column("loss_mean", "float64", "loss_sum / n_tokens.", "nat/token", True),
            Column("n_tokens", "int32", "Answer tokens that count.", "tokens"),
            Column("entropy_mean", "float64", "Mean entropy of the model's predictions.", "nat", True),
            Column("el2n_mean", "float64", "Mean length of prediction minus target (EL2N).", "1", True),
        ),
    ),
    TableSpec(
        "attention_maps",
        "Where a model looks while it answers a row's first question in a word (Free2DS).",
        ("fingerprint", "shard"),
        ("sample_id",),
        (
            SAMPLE_ID,
            Column("n_steps", "int32", "Generated tokens, the end token included.", "tokens"),
            Column("n_tokens", "int32", "Image tokens, or cells of the common grid.", "tokens"),
            Column("top_tokens", "list<int32>", "The 30 % of them with the largest relative attention.", "0-based"),
            Column("entropy", "float64", "Entropy of the relative attention.", "nat"),
            Column("sharpness", "float64", "1 - entropy / log(n_tokens): 1 looks at one place, 0 everywhere.", "1"),
            Column("mass", "float64", "Mean share of the attention that the image gets.", "1"),
        ),
    ),
    TableSpec(
        "presel_tasks",
        "PreSel: difficulty of the tasks of a dataset.",
        ("dataset", "mode"),
        ("task",),
        (
            TASK,
            Column("n_rows", "int64", "Rows of the task (distinct content).", "rows"),
            Column("n_reference", "int64", "Reference rows.", "rows"),
            Column("n_relevance", "int64", "Reference rows with a finite instruction relevance.", "rows"),
            Column(
                "difficulty",
                "float64",
                "Mean instruction relevance (loss with / loss without question) of the reference rows; with too few of "
                "them the mean of the other tasks.",
                "1",
                True,
            ),
        ),
    ),
    TableSpec(
        "presel_scores",
        "PreSel: relevance, cluster and typicality of every row of a dataset.",
        ("dataset", "mode"),
        ("sample_id",),
        (
            SAMPLE_ID,
            TASK,
            Column("image_id", "string", "First image of the row; NULL for text-only rows.", "sha256 hex", True),
            Column("is_reference", "bool", "The row belongs to the reference subset."),
            Column("relevance", "float64", "Instruction relevance; known for reference rows only.", "1", True),
            Column(
                "cluster",
                "int32",
                "Cluster inside the task; NULL for rows without an image embedding.",
                "",
                True,
            ),
            Column(
                "typicality",
                "float64",
                "Mean cosine to the nearest neighbours inside the cluster.",
                "cosine",
                True,
            ),
        ),
    ),
    TableSpec(
        "clusters",
        "Clusters of a dataset's rows in a space of vectors, shared by the methods that ask for the same.",
        ("dataset", "clustering"),
        ("sample_id",),
        (
            SAMPLE_ID,
            Column("cluster", "int32", "Cluster; NULL without a vector.", "", True),
            Column("cosine", "float64", "Cosine to the cluster's centroid; NULL without a vector.", "cosine", True),
        ),
    ),
    TableSpec(
        "method_scores",
        "Scores of every row of a dataset under a score and its options; the score's own values are in `details`, and "
        "as columns in a view for each score: `visnec_scores`, `perplexity_scores` and so on.",
        ("dataset", "score", "variant"),
        ("sample_id",),
        (
            SAMPLE_ID,
            TASK,
            Column("image_id", "string", "First image of the row; NULL for text-only rows.", "sha256 hex", True),
            Column("value", "float64", "The score, higher is more valuable; NULL where there is none.", "", True),
            Column("details", "string", "The score's own values, as a JSON object.", "JSON", True),
        ),
    ),
    TableSpec(
        "selected_subset",
        "Rows that a recipe selected, in rank order.",
        ("recipe",),
        ("rank",),
        (
            Column(
                "rank",
                "int64",
                "Order of value: a smaller budget keeps about the first rows (quotas are rounded anew).",
                "1-based",
            ),
            Column("round", "int32", "Round of the recipe in which the row is added; rounds are nested.", "1-based"),
            SAMPLE_ID,
            Column("position", "int64", "First position of the content in the source.", "0-based"),
            TASK,
            Column("stratum", "string", "image or text."),
            Column("reason", "string", "Why the row is in: reference, typical, text, random ..."),
            Column("score", "float64", "Score that the rank is made from.", "", True),
            Column("cluster", "int32", "Cluster inside the task.", "", True),
        ),
    ),
    TableSpec(
        "selected_tasks",
        "Budget of every task in a selection.",
        ("recipe",),
        ("task",),
        (
            TASK,
            Column("n_available", "int64", "Rows that could be selected, reference excluded.", "rows"),
            Column("n_reference", "int64", "Reference rows, which are part of the selection.", "rows"),
            Column("difficulty", "float64", "Task difficulty that the weight comes from.", "1", True),
            Column("weight", "float64", "Share of the budget (PreSel: of the image rows left after reference).", "1"),
            Column("budget", "int64", "Rows to select, reference excluded.", "rows"),
            Column("n_selected", "int64", "Rows selected, reference excluded.", "rows"),
        ),
    ),
    TableSpec(
        "compared_recipes",
        "Selections of a dataset side by side, with the range of 7 random selections of the same size.",
        ("dataset",),
        ("recipe",),
        (
            Column("recipe", "string", "Recipe of the project file."),
            Column("method", "string", "Its method."),
            Column("rows", "int64", "Rows selected.", "rows"),
            Column("task_coverage", "float64", "Share of the tasks that have a selected row.", "1"),
            Column(
                "cluster_coverage", "float64", "Share of the clusters of images that have a selected row.", "1", True
            ),
            Column("image_coverage", "float64", "Share of the distinct images that a selected row shows.", "1", True),
            Column("repeated_images", "int64", "Rows that show an image of a selected row before them.", "rows"),
            Column("tokens", "float64", "Text tokens of the selected rows.", "tokens"),
            Column("overlap_with_random", "float64", "Mean Jaccard with 7 random selections of the same size.", "1"),
            Column("random_overlap_high", "float64", "Largest Jaccard of two of those random selections.", "1"),
            Column("task_coverage_random_low", "float64", "Smallest of the random selections.", "1"),
            Column("task_coverage_random_high", "float64", "Largest of the random selections.", "1"),
            Column("cluster_coverage_random_low", "float64", "Smallest of the random selections.", "1", True),
            Column("cluster_coverage_random_high", "float64", "Largest of the random selections.", "1", True),
            Column("image_coverage_random_low", "float64", "Smallest of the random selections.", "1", True),
            Column("image_coverage_random_high", "float64", "Largest of the random selections.", "1", True),
            Column(
                "repeated_images_random_low",
                "float64",
                "Smallest of the random selections.",
                "rows",
            ),
            Column(
                "repeated_images_random_high",
                "float64",
                "Largest of the random selections.",
                "rows",
            ),
            Column("tokens_random_low", "float64", "Smallest of the random selections.", "tokens"),
            Column("tokens_random_high", "float64", "Largest of the random selections.", "tokens"),
            Column("training_tokens", "float64", "Text tokens of the selected rows in all epochs.", "tokens"),
        ),
    ),
    TableSpec(
        "compared_pairs",
        "Pairs of selections of a dataset.",
        ("dataset",),
        ("recipe", "other"),
        (
            Column("recipe", "string", "Recipe of the project file."),
            Column("other", "string", "Another recipe."),
            Column("jaccard", "float64", "Shared rows over all rows of both.", "1"),
            Column("shared_rows", "int64", "Rows that both select.", "rows"),
            Column("rank_correlation", "float64", "Spearman's correlation of their scores over all rows.", "1", True),
        ),
    ),
    TableSpec(
        "answers",
        "What a model answered to every question of a benchmark; recipe `base` is the base model.",
        ("recipe", "benchmark"),
        ("question_id",),
        (
            Column("question_id", "string", "Identity of the question in its benchmark."),
            Column("category", "string", "Task or type of the question; empty if there is none."),
            Column("cluster", "string", "Questions with the same cluster (image) are not independent of each other."),
            Column("prompt", "string", "Last turn of the user."),
            Column("right_answers", "list<string>", "Right answers; none where only a server knows them."),
            Column("answer", "string", "What the model answered; NULL if it could not be asked.", "", True),
            Column(
                "parsed", "string", "What the answer was taken for; NULL if nothing can be read out of it.", "", True
            ),
            Column("score", "float64", "Score of the answer; NULL if the right one is not known.", "0 to 1", True),
            Column(
                "n_tokens", "int32", "Generated tokens, the end token and those of own questions included.", "tokens"
            ),
            Column("loss_sum", "float64", "Loss of the right answer; NULL unless there is exactly one.", "nat", True),
            Column("n_target_tokens", "int32", "Tokens of the right answer that the loss is over.", "tokens"),
            Column("failure", "string", "Why the model could not be asked.", "", True),
            Column(
                "trace",
                "string",
                "Self-questioning: own questions and answers, and plain answers for as many tokens.",
                "JSON",
                True,
            ),
            Column(
                "image_state",
                "string",
                "Names and sizes of the images that it was answered about; NULL if it was answered elsewhere.",
                "digest",
                True,
            ),
        ),
    ),
    TableSpec(
        "evaluation",
        "Metrics of a model on a benchmark with intervals over resampled images; recipe `base` is the base model.",
        ("recipe", "benchmark"),
        ("measure", "category"),
        (
            Column("measure", "string", "Metric."),
            Column("category", "string", "Task or type that it is of; empty: all questions."),
            Column("position", "int32", "Order of the metrics; the headline is 0.", "0-based"),
            Column("value", "float64", "The metric; NULL where it is not defined.", "unit", True),
            Column("low", "float64", "Lower end of its 95 % interval.", "unit", True),
            Column("high", "float64", "Upper end of its 95 % interval.", "unit", True),
            Column("unit", "string", "percent, points or nat/token."),
            Column("lower_is_better", "bool", "Whether less is better."),
            Column("n_questions", "int64", "Questions that count in it.", "questions"),
            Column("n_unparsed", "int64", "Of them: answers out of which nothing can be read.", "questions"),
        ),
    ),
    TableSpec(
        "leaderboard",
        "Methods at budgets on a benchmark: means over seeds, against random selections and full data.",
        ("benchmark",),
        ("dataset", "measure", "label", "budget"),
        (
            Column("dataset", "string", "Dataset that the rows were selected from; each is compared by itself."),
            Column("measure", "string", "Metric."),
            Column("label", "string", "Method with its mode and options; `random`, `full`."),
            Column("budget", "float64", "Share of the dataset's distinct rows.", "percent"),
            Column("recipes", "list<string>", "Recipes that differ in their seeds only."),
            Column("n_rows", "int64", "Rows trained on, mean over the seeds.", "rows"),
            Column("n_seeds", "int32", "Number of seeds.", "seeds"),
            Column("value", "float64", "Mean over the seeds.", "unit", True),
            Column("low", "float64", "Lower end of the 95 % interval.", "unit", True),
            Column("high", "float64", "Upper end of the 95 % interval.", "unit", True),
            Column("unit", "string", "Of the metric."),
            Column("seed_sd", "float64", "Standard deviation between the seeds.", "unit", True),
            Column("relative", "float64", "Value over that of full data.", "percent", True),
            Column("difference", "float64", "Value minus the mean of random selections of the budget.", "unit", True),
            Column("difference_low", "float64", "Lower end of its 95 % interval.", "unit", True),
            Column("difference_high", "float64", "Upper end of its 95 % interval.", "unit", True),
            Column("p_adjusted", "float64", "p value for all comparisons together.", "1", True),
            Column("verdict", "string", "Better or worse than random, or not distinguishable."),
            Column("rank", "int32", "Rank at the budget; 1 is best.", "rank", True),
            Column("rank_low", "int32", "Best rank of its 95 % interval.", "rank", True),
            Column("rank_high", "int32", "Worst rank of its 95 % interval.", "rank", True),
            Column("selection_seconds", "float64", "Cost of signals and selection from nothing.", "s", True),
            Column("training_seconds", "float64", "Cost of the training.", "s", True),
        ),
    ),
    TableSpec(
        "leakage",
        "Questions of benchmarks that stand in the rows a recipe selected.",
        ("recipe",),
        ("benchmark", "question_id", "kind", "found_in"),
        (
            Column("benchmark", "string", "Benchmark."),
            Column("question_id", "string", "Its question."),
            Column("kind", "string", "image, near_image, ngram or question: docs/evaluation.md."),
            Column(
                "found_in", "string", "Identity of the row or, of images, the image that it was found in.", "sha256 hex"
            ),
            Column("sample_id", "string", "A row that it stands in.", "sha256 hex", True),
            Column("value", "float64", "How often, how near, or how many words."),
        ),
    ),
    TableSpec(
        "promotion",
        "Whether a recipe takes the place of its champion.",
        ("recipe",),
        ("champion", "benchmark"),
        (
            Column("champion", "string", "Recipe that it is compared with."),
            Column("benchmark", "string", "Where they are compared."),
            Column("ruling", "string", "promote or keep."),
            Column("reason", "string", "Why."),
            Column("measure", "string", "Metric."),
            Column("unit", "string", "Of the metric."),
            Column("champion_value", "float64", "The champion's value.", "unit", True),
            Column("candidate_value", "float64", "The recipe's value.", "unit", True),
            Column("difference", "float64", "Recipe minus champion, positive is better.", "unit", True),
            Column("low", "float64", "Lower end of its 95 % interval.", "unit", True),
            Column("high", "float64", "Upper end of its 95 % interval.", "unit", True),
            Column("margin", "float64", "How much worse counts as not worse.", "unit"),
            Column("max_loss", "float64", "A loss that has to be ruled out.", "unit"),
            Column("n_questions", "int64", "Questions.", "questions"),
        ),
    ),
)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in _SPECS}
