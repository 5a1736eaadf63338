//! The command line: what can be said, and what it resolves to.

#[cfg(feature = "train")]
mod research;
#[cfg(feature = "serve")]
mod serve;

#[cfg(feature = "train")]
pub(crate) use research::*;
#[cfg(feature = "serve")]
pub(crate) use serve::*;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use uwe::{Axis, Logits, Precision, Reduction, Scorer, Scoring};

/// Connects the texts of work: job titles, skills and sentences of vacancies.
///
/// A text is encoded and ranked by token-level soft late interaction against a target space: a list of
/// texts that is encoded once and kept in a file. Data goes to standard output, all else to standard error.
#[derive(Debug, Parser)]
#[command(name = "uwe", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  uwe rank \"pastry chef\" \"weld pipes on ships\"
  uwe space build \"ESCO dataset - v1.1.1 - classification - en - csv.zip\" --output esco.space
  uwe rank --space esco.space --top 5 --format json < titles.txt > hits.jsonl
  uwe rank --space esco.space --evidence \"registered nurse in intensive care\"
  uwe score --query \"pastry chef\" --target \"bake cakes\"

Exit codes: 0 done, 1 something failed, 2 the command line makes no sense.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Rank texts against a target space
    Rank(RankArguments),
    /// Print the vectors of texts
    Embed(EmbedArguments),
    /// Score one text against another
    Score(ScoreArguments),
    /// Build, describe and verify target spaces
    Space {
        #[command(subcommand)]
        command: SpaceCommand,
    },
    /// Describe and verify models
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Answer over HTTP, with a page for people
    #[cfg(feature = "serve")]
    Serve(Box<ServeArguments>),
    /// Measure models on the tasks of WorkBench
    #[cfg(feature = "train")]
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Build and check training graphs
    #[cfg(feature = "train")]
    Graph {
        #[command(subcommand)]
        command: GraphCommand,
    },
    /// Train a model on graphs
    #[cfg(feature = "train")]
    Train(Box<TrainArguments>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Manual,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe rank \"pastry chef\"
  uwe rank --space esco.space --top 20 --format csv --input titles.txt > hits.csv
  uwe rank --space esco.space --evidence --format json \"night nurse\"

Each line of JSON is {\"query\", \"truncated\", \"hits\": [{\"rank\", \"target\", \"id\", \"score\", \"evidence\"?}]}.")]
pub(crate) struct RankArguments {
    #[command(flatten)]
    pub(crate) texts: TextArguments,
    /// Target space; without one, the skills of the built-in starter taxonomy
    #[arg(long, short, value_name = "FILE", env = "UWE_SPACE")]
    pub(crate) space: Option<PathBuf>,
    /// Number of hits for each text
    #[arg(long, short = 'k', value_name = "K", default_value_t = 10, value_parser = positive)]
    pub(crate) top: usize,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) format: OutputFormat,
    /// Show which words of text and hit met, and how much each pair added
    #[arg(long, short)]
    pub(crate) evidence: bool,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe embed \"pastry chef\"
  uwe embed --tokens --input skills.txt > states.jsonl")]
pub(crate) struct EmbedArguments {
    #[command(flatten)]
    pub(crate) texts: TextArguments,
    /// Print every token's state instead of one vector for each text
    #[arg(long)]
    pub(crate) tokens: bool,
    /// Leave pooled vectors at their own length instead of length 1
    #[arg(long, conflicts_with = "tokens")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  uwe score --query \"pastry chef\" --target \"bake cakes\" --evidence")]
pub(crate) struct ScoreArguments {
    /// The query
    #[arg(long, short)]
    pub(crate) query: String,
    /// The target
    #[arg(long, short)]
    pub(crate) target: String,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) format: OutputFormat,
    /// Show which words met, and how much each pair added
    #[arg(long, short)]
    pub(crate) evidence: bool,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Encode a list of targets into a space file
    Build(BuildArguments),
    /// Describe a space
    Info {
        /// The space file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare every checksum of a space
    Verify {
        /// The space file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe space build skills.csv --text-column label --output skills.space
  uwe space build \"ESCO dataset - v1.1.1 - classification - en - csv.zip\" --output skills.space
  uwe space build --pillar occupations esco-folder --output occupations.space
  uwe space build starter --output starter.space")]
pub(crate) struct BuildArguments {
    /// CSV, TSV, JSON lines, plain lines, an ESCO archive or its folder, or `starter` for the built-in taxonomy
    pub(crate) source: PathBuf,
    /// The space file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Form of the source; without it, told by the name
    #[arg(long, value_enum)]
    pub(crate) source_format: Option<SourceFormat>,
    /// Which concepts of ESCO
    #[arg(long, value_enum, default_value_t = PillarArgument::Skills)]
    pub(crate) pillar: PillarArgument,
    /// Column or field of the text (default: text, label, preferredLabel, title or name)
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Column or field of the identifier (default: id, uri or conceptUri)
    #[arg(long, value_name = "NAME")]
    pub(crate) id_column: Option<String>,
    /// Number type of the stored token states
    #[arg(long, value_enum, default_value_t = States::F16)]
    pub(crate) states: States,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    #[cfg(feature = "train")]
    /// Write a model folder in another number type, or the mean of several, for this program and Python's sentence-transformers
    Export(ExportArguments),
    /// Describe a model, and the kernels that would run it here
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        model: ModelArguments,
    },
    /// Compare a model's numbers with those of the reference implementation
    Verify {
        /// Reference file; without one, `uwe-reference.safetensors` in the model folder
        #[arg(long, value_name = "FILE")]
        reference: Option<PathBuf>,
        #[command(flatten)]
        model: ModelArguments,
    },
}

/// Where texts come from.
#[derive(Debug, Args)]
pub(crate) struct TextArguments {
    /// Texts; without any, lines of --input or of standard input
    #[arg(value_name = "TEXT", conflicts_with = "input")]
    pub(crate) texts: Vec<String>,
    /// File with one text a line; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArguments {
    /// Model folder as sentence-transformers writes it
    #[arg(long, short, value_name = "DIR", env = "UWE_MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Precision of the encoder's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArgument::F32)]
    pub(crate) precision: PrecisionArgument,
    /// Most tokens of a text, special tokens included; what is longer is cut and reported
    #[arg(long, value_name = "N", default_value_t = uwe::DEFAULT_MAX_TOKENS, value_parser = positive)]
    pub(crate) max_tokens: usize,
    /// Number of threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, env = "UWE_THREADS")]
    pub(crate) threads: usize,
    /// Instruction set of the kernels; without it, the fastest of this processor
    #[arg(long, value_enum, env = "UWE_KERNELS")]
    pub(crate) kernels: Option<Kernels>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scoring")]
pub(crate) struct ScoringArguments {
    /// How two texts become one score [default: what the model is trained for, else soft]
    #[arg(long, value_enum)]
    pub(crate) scorer: Option<ScorerName>,
    /// Divides the logits of a soft scorer [default: what the model is trained for, else 0.1, soft-pooled: 1]
    #[arg(long, value_name = "TAU")]
    pub(crate) temperature: Option<f32>,
    /// What the softmax of a soft scorer is taken of [default: raw]
    #[arg(long, value_enum)]
    pub(crate) logits: Option<LogitsArgument>,
    /// Over whose tokens the softmax of `soft` runs [default: the model's own]
    #[arg(long, value_enum)]
    pub(crate) axis: Option<AxisArgument>,
    /// Add token scores up instead of averaging them
    #[arg(long)]
    pub(crate) sum: bool,
    /// Leave out the special tokens around a text
    #[arg(long)]
    pub(crate) no_special_tokens: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Table,
    /// One JSON object a line
    Json,
    /// With a header line
    Csv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SourceFormat {
    Lines,
    Csv,
    Tsv,
    Jsonl,
    Esco,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PillarArgument {
    Skills,
    Occupations,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum States {
    /// Half the size; averaged scores within about 0.0002 of f32
    F16,
    F32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PrecisionArgument {
    /// The reference: the same bits on every processor
    F32,
    /// bfloat16 factors (AVX-512 BF16)
    Bf16,
    /// 16-bit fixed-point factors (AVX-512 VNNI or AVX2)
    Int16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kernels {
    Avx512,
    Avx2,
    Neon,
    Scalar,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScorerName {
    /// Soft late interaction, the method's own
    Soft,
    /// Soft late interaction with the target pooled into one vector (ConTeXT-match)
    SoftPooled,
    /// Largest cosine for each query token (ColBERT)
    Maxsim,
    /// Cosine of the pooled texts
    Cosine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogitsArgument {
    /// Dot products
    Raw,
    /// Dot products with the target's state at length 1
    UnitTarget,
    /// Cosines
    Cosine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AxisArgument {
    /// For each query token, over the target's
    Target,
    /// For each target token, over the query's
    Query,
    /// The mean of the two
    Both,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number of at least 1".into()),
    }
}

impl ScoringArguments {
    /// Whether any of them is given.
    #[cfg(feature = "train")]
    pub(crate) fn is_given(&self) -> bool {
        let Self { scorer, temperature, logits, axis, sum, no_special_tokens } = self;
        scorer.is_some()
            || temperature.is_some()
            || logits.is_some()
            || axis.is_some()
            || *sum
            || *no_special_tokens
    }

    /// The scorer that the arguments name; what they leave open is the model's own.
    ///
    /// # Errors
    /// An option that the scorer does not have, or a value that makes no sense.
    pub(crate) fn resolve(&self, own: Scoring) -> Result<Scoring> {
        let named = self.scorer.and_then(|name| Scoring::named(name.name(), own));
        let mut scorer = named.unwrap_or(own).scorer;
        let mut given_temperature = self.temperature;
        let mut given_logits = self.logits.map(|logits| match logits {
            LogitsArgument::Raw => Logits::Raw,
            LogitsArgument::UnitTarget => Logits::UnitTarget,
            LogitsArgument::Cosine => Logits::Cosine,
        });
        let mut given_axis = self.axis.map(|axis| match axis {
            AxisArgument::Target => Axis::Target,
            AxisArgument::Query => Axis::Query,
            AxisArgument::Both => Axis::Both,
        });
        let mut given_reduction = self.sum.then_some(Reduction::Sum);
        // Each scorer takes what it has.
        match &mut scorer {
            Scorer::SoftLateInteraction { temperature, logits, axis, reduction } => {
                *temperature = given_temperature.take().unwrap_or(*temperature);
                *logits = given_logits.take().unwrap_or(*logits);
                *axis = given_axis.take().unwrap_or(*axis);
                *reduction = given_reduction.take().unwrap_or(*reduction);
            }
            Scorer::SoftPooled { temperature, logits } => {
                *temperature = given_temperature.take().unwrap_or(*temperature);
                *logits = given_logits.take().unwrap_or(*logits);
            }
            Scorer::MaxSim { reduction } => *reduction = given_reduction.take().unwrap_or(*reduction),
            Scorer::Cosine => {}
        }
        let left = [
            ("--temperature", given_temperature.is_some()),
            ("--logits", given_logits.is_some()),
            ("--axis", given_axis.is_some()),
            ("--sum", given_reduction.is_some()),
        ];
        if let Some((name, _)) = left.into_iter().find(|(_, left)| *left) {
            let problem = "means nothing to this scorer; name one that has it, such as --scorer soft".into();
            return Err(uwe::Error::Argument { name, problem }.into());
        }
        let scoring = Scoring { scorer, special_tokens: own.special_tokens && !self.no_special_tokens };
        scoring.check()?;
        Ok(scoring)
    }
}

impl ScorerName {
    /// The scorer's name in the library.
    fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::SoftPooled => "soft-pooled",
            Self::Maxsim => "maxsim",
            Self::Cosine => "cosine",
        }
    }
}

impl From<PrecisionArgument> for Precision {
    fn from(argument: PrecisionArgument) -> Self {
        match argument {
            PrecisionArgument::F32 => Self::F32,
            PrecisionArgument::Bf16 => Self::Bf16,
            PrecisionArgument::Int16 => Self::Int16,
        }
    }
}
