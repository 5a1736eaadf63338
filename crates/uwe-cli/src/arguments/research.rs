//! Arguments of benchmark, graphs and training.

use super::{ModelArguments, ScoringArguments, positive};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where the raw files of the benchmark lie.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct BenchData {
    /// Folder with the raw files; `uwe bench list` says which
    #[arg(long, short, value_name = "DIR", env = "UWE_BENCH_DATA")]
    pub(crate) data: PathBuf,
    /// A set of your own: {queries, targets, relevance} as JSON, or a BEIR folder; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) set: Vec<PathBuf>,
    /// Language of ESCO's labels
    #[arg(long, value_name = "CODE", default_value = "en")]
    pub(crate) language: String,
    /// ESCO release of Job2Skill, Skill2Job and skill normalisation; without it, the newest that has what they need
    #[arg(long, value_name = "VERSION")]
    pub(crate) esco: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// List the sets that a data folder can give, and what the others need
    List {
        #[command(flatten)]
        data: BenchData,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Compare the sets with ready-made ones, element by element
    Verify {
        #[command(flatten)]
        data: BenchData,
        /// Folder of JSON files {task, split, language, queries, targets, relevance}
        #[arg(long, value_name = "DIR")]
        against: PathBuf,
    },
    /// Measure a model or a baseline; goes on where an earlier run was interrupted
    Run(Box<BenchRunArguments>),
    /// Write a report on one or several runs, as a web page and as Markdown
    Report(BenchReportArguments),
    /// Compare two runs query by query, with significance
    Compare(BenchCompareArguments),
    /// Write a run in the form of another tool
    Export(BenchExportArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe bench run --data data --output runs/soft
  uwe bench run --data data --output runs/cosine --scorer cosine --split both
  uwe bench run --data data --output runs/bm25 --system bm25
  uwe bench run --data data --output runs/quick --only \"skillextract-*.val\" --only jobnorm.val")]
pub(crate) struct BenchRunArguments {
    #[command(flatten)]
    pub(crate) data: BenchData,
    /// Folder of the run; an interrupted one is resumed
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What is measured
    #[arg(long, value_enum, default_value_t = BenchSystem::Encoder)]
    pub(crate) system: BenchSystem,
    /// Folder with KEY.npy or KEY.run for each set, for --system given
    #[arg(long, value_name = "DIR")]
    pub(crate) scores: Option<PathBuf>,
    /// Which split of each set [default: test, with --only any]
    #[arg(long, value_enum)]
    pub(crate) split: Option<SplitArgument>,
    /// Measure only sets whose key fits; `*` stands for anything; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,
    /// Measure the sets of other ESCO releases too
    #[arg(long, conflicts_with = "only")]
    pub(crate) all: bool,
    /// Take a seeded sample of N queries of each larger set; the set's name then says so
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) sample: Option<usize>,
    /// Let targets be the scorer's queries, and queries its targets
    #[arg(long)]
    pub(crate) reverse: bool,
    /// How many hits of each query are kept
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = positive)]
    pub(crate) depth: usize,
    /// Seed of the bootstrap, of samples and of random scores
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder in which encoded targets are kept; without it, one in the user's cache
    #[arg(long, value_name = "DIR")]
    pub(crate) spaces: Option<PathBuf>,
    /// Keep encoded queries in a folder, so that other scorers of the same encoder need not encode them again; they take much room
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_queries: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  uwe bench report runs/stock runs/trained --output report")]
pub(crate) struct BenchReportArguments {
    /// Folders of runs; the first is what the others are compared with
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Folder to write report.html and report.md into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCompareArguments {
    /// Folder of the first run
    pub(crate) first: PathBuf,
    /// Folder of the second run
    pub(crate) second: PathBuf,
    /// The metric
    #[arg(long, value_name = "METRIC", default_value = "map")]
    pub(crate) metric: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchExportArguments {
    /// Folder of the run
    pub(crate) run: PathBuf,
    /// The form
    #[arg(long, short, value_enum)]
    pub(crate) format: BenchExportFormat,
    /// Folder to write into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  uwe graph tag vacancies.parquet --space esco.space --output tags --description-column description
  and in a recipe: kind = \"vacancies\", file = \"tags/vacancies\"; kind = \"table\", file = \"tags/sentences\"")]
pub(crate) struct TagArguments {
    /// Vacancies: CSV, JSON lines or Parquet
    pub(crate) input: PathBuf,
    /// Target space of the skills
    #[arg(long, short, value_name = "FILE")]
    pub(crate) space: PathBuf,
    /// Folder to write into; a tagging that was interrupted is resumed
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Column of the title
    #[arg(long, value_name = "NAME", default_value = "title")]
    pub(crate) title_column: String,
    /// Column of the description, which is cut into sentences; without it, titles alone are tagged
    #[arg(long, value_name = "NAME")]
    pub(crate) description_column: Option<String>,
    /// Least score of a skill
    #[arg(long, value_name = "SCORE", default_value_t = 0.6, allow_negative_numbers = true)]
    pub(crate) threshold: f32,
    /// Most skills of a title or sentence
    #[arg(long, short = 'k', value_name = "K", default_value_t = 10, value_parser = positive)]
    pub(crate) top: usize,
    /// Vacancies of a shard: what is done again at most after an interruption
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = positive)]
    pub(crate) shard: usize,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe graph enrich graphs/full --data data --cache answers --output graphs/enriched --llm gpt-4o-mini --dry-run
  uwe graph enrich graphs/full --data data --cache answers --output graphs/enriched \\
      --llm smollm2 --base-url http://127.0.0.1:8000/v1 --skills 200

The key comes from the environment alone (--key-variable) and is written nowhere. Answers are kept in --cache: a run that
was killed goes on without asking twice, and the cache alone repeats it without a network.")]
pub(crate) struct EnrichArguments {
    /// Folder of the graph
    pub(crate) graph: PathBuf,
    /// Folder with the raw files: skills to enrich, and the tests that nothing may repeat
    #[arg(long, short, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Folder of the answers
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// Folder to write the enriched graph into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Name of the language model, as its server knows it
    #[arg(long, value_name = "NAME")]
    pub(crate) llm: String,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArguments,
    /// The graph whose thin skills get texts
    #[arg(long, value_enum, default_value_t = GraphArgument::Job)]
    pub(crate) kind: GraphArgument,
    /// Fewest texts that a skill should have
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive)]
    pub(crate) minimum: usize,
    /// ESCO release of the skills
    #[arg(long, value_name = "VERSION", default_value = "1.2.0")]
    pub(crate) esco: String,
    /// Texts asked for at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    pub(crate) texts: usize,
    /// How the shape of an answer is asked for; servers differ in what they know
    #[arg(long, value_enum, default_value_t = FormArgument::Schema)]
    pub(crate) form: FormArgument,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) answer_tokens: u32,
    /// Most skills, the thinnest first
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) skills: Option<usize>,
    /// Most requests of this run
    #[arg(long, value_name = "N")]
    pub(crate) max_requests: Option<usize>,
    /// Most tokens of this run, as the server counts them
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens_spent: Option<u64>,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub(crate) workers: usize,
    /// Texts of one skill that are at least so similar become one
    #[arg(long, value_name = "COSINE", default_value_t = 0.7)]
    pub(crate) similarity: f32,
    /// Say what would be asked and what it would cost, and ask nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

/// How a language model's server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Language model's server")]
pub(crate) struct EndpointArguments {
    /// Base address of a server that speaks OpenAI's protocol
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/v1", env = "UWE_LLM_URL")]
    pub(crate) base_url: String,
    /// Environment variable that holds the key
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY")]
    pub(crate) key_variable: String,
    /// Most requests a minute
    #[arg(long, value_name = "N")]
    pub(crate) requests_a_minute: Option<u32>,
    /// Seconds until a request is given up
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct GraphBuildArguments {
    /// Recipe (TOML)
    pub(crate) recipe: PathBuf,
    /// Folder with the raw files
    #[arg(long, short, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Folder to write the graph into
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Folder of what long steps leave, to be gone on with: tags of raw vacancies, answers of a language model; without
    /// it, OUTPUT with `.work` behind
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FormArgument {
    /// `json_schema`, as OpenAI and most servers have it
    Schema,
    /// `json_object` with a schema, as llama.cpp's Python server has it
    Object,
    /// In the prompt alone
    Prompt,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GraphArgument {
    /// Job titles
    Job,
    /// Sentences of vacancies
    Sentence,
    /// Other names of the skill
    Alternative,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  uwe train recipes/uwe-mini.toml --model models/all-MiniLM-L6-v2 --graph graphs/full --data data --output runs/mini
  uwe train resume runs/mini
  uwe train report runs/mini

Ctrl-C writes a checkpoint; `resume` goes on from it, and ends with the weights of an unbroken training."
)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) start: TrainStart,
    #[command(subcommand)]
    pub(crate) command: Option<TrainCommand>,
}

/// What begins a training. A subcommand takes the place of what is required here.
#[derive(Debug, Args)]
pub(crate) struct TrainStart {
    /// Recipe (TOML)
    #[arg(required = true)]
    pub(crate) recipe: Option<PathBuf>,
    /// Folder of the graph; it must have passed `uwe graph check`
    #[arg(long, short, value_name = "DIR", required = true)]
    pub(crate) graph: Option<PathBuf>,
    /// Folder to train in
    #[arg(long, short, value_name = "DIR", required = true)]
    pub(crate) output: Option<PathBuf>,
    /// Model folder to start from; without one, the default model
    #[arg(long, short, value_name = "DIR", env = "UWE_MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Folder with the raw files, to validate on ESCO's lists and the benchmark's validation sets; without one, held-out
    /// texts are ranked against the graph's own skills
    #[arg(long, short, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// ESCO release of the lists
    #[arg(long, value_name = "VERSION", default_value = "1.2.0")]
    pub(crate) esco: String,
    /// Train on a graph that has passed no leak check
    #[arg(long)]
    pub(crate) allow_unchecked: bool,
    #[command(flatten)]
    pub(crate) machine: TrainMachine,
}

/// Where a training runs.
#[derive(Debug, Args)]
pub(crate) struct TrainMachine {
    /// Number of threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, env = "UWE_THREADS")]
    pub(crate) threads: usize,
    /// Device for the passes through encoder and scores, such as `cuda` or `cuda:1`; without one, the processor
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Round the factors of a device's matrix products to bfloat16
    #[arg(long, requires = "device")]
    pub(crate) mixed_precision: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Go on with a training from its last checkpoint
    Resume {
        /// Folder of the training
        run: PathBuf,
        #[command(flatten)]
        machine: TrainMachine,
    },
    /// Draw a training's curves as a web page
    Report {
        /// Folder of the training
        run: PathBuf,
        /// File to write; without it, report.html in the folder
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe model export runs/mini/best --output models/mini
  uwe model export runs/seed-1/best runs/seed-2/best --output models/mini
  uwe model export runs/seed-1/best runs/seed-2/best --axis both --temperature 8 --output models/mini")]
pub(crate) struct ExportArguments {
    /// Model folder; of several, which differ in their training alone, the mean of the weights. Their scorers may differ where one is
    /// named below
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Number type of the weights
    #[arg(long, value_enum, default_value_t = NumberTypeArgument::F16)]
    pub(crate) numbers: NumberTypeArgument,
    /// The scorer that the folder names as its own; without any of these, what the models name.
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NumberTypeArgument {
    F32,
    F16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GraphCommand {
    /// Build a graph from a recipe: all its sources and steps
    Build(Box<GraphBuildArguments>),
    /// Tag raw vacancies with skills, in bounded memory: the makings of a graph
    Tag(Box<TagArguments>),
    /// Let a language model write texts for skills that have few
    Enrich(Box<EnrichArguments>),
    /// Put graphs together; of equal edges the first stays
    Merge {
        /// Folders of the graphs
        #[arg(required = true)]
        graphs: Vec<PathBuf>,
        /// Folder to write the merged graph into
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
        /// Name of the merged graph
        #[arg(long, value_name = "NAME", default_value = "merged")]
        name: String,
    },
    /// Write a web page: counts, degrees, coverage of ESCO's groups, edges to read, costs
    Report {
        /// Folder of the graph
        graph: PathBuf,
        /// The graph as it was before an enrichment, to compare with
        #[arg(long, value_name = "DIR")]
        before: Option<PathBuf>,
        /// Folder with an ESCO release, for the coverage of its groups of skills
        #[arg(long, short, value_name = "DIR")]
        data: Option<PathBuf>,
        /// ESCO release of the groups
        #[arg(long, value_name = "VERSION", default_value = "1.2.0")]
        esco: String,
        /// File to write
        #[arg(long, short, value_name = "FILE", default_value = "graph.html")]
        output: PathBuf,
    },
    /// Compare every edge with every test set; ends with 1 and names the edges when one leaks
    Check {
        /// Folder of the graph; a passed check is noted in its manifest
        graph: PathBuf,
        /// Folder with the benchmark's raw files
        #[arg(long, value_name = "DIR")]
        against: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print counts by source
    Stats {
        /// Folder of the graph
        graph: PathBuf,
        /// Print the whole manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print some edges, evenly over the graph
    Sample {
        /// Folder of the graph
        graph: PathBuf,
        /// How many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = positive)]
        count: usize,
        /// Of one source alone
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchSystem {
    /// An encoder folder with a scorer
    Encoder,
    /// Uniform random scores
    Random,
    /// BM25 Okapi
    Bm25,
    /// Cosine of TF-IDF vectors over words
    TfidfWords,
    /// Cosine of TF-IDF vectors over 1 to 3 characters
    TfidfCharacters,
    /// Edit-distance ratio
    EditDistance,
    /// Scores from elsewhere
    Given,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SplitArgument {
    Test,
    Val,
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BenchExportFormat {
    /// Run and qrels files
    Trec,
    /// JSON of the shape of MTEB's task results
    Mteb,
    /// One table of all metrics
    Csv,
}
