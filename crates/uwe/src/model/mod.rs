//! Encoders: a model folder becomes token states.

mod folder;
mod network;
mod verify;
mod weights;

pub use folder::{Architecture, Config, Folder, Pooling};
pub use network::distance_bucket;
pub use verify::Verification;

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::kernel::{Precision, inverse_norm, mean_of_rows};
use crate::score::Scoring;
use crate::team::Team;
use crate::text::{DEFAULT_MAX_TOKENS, Tokenizer, Tokens};
use network::{Network, Workspace};
use std::path::{Path, PathBuf};

/// Largest magnitude of a state's entry: far beyond what layer normalisation gives, and small enough that no
/// product of two states overflows.
const LARGEST_STATE: f32 = 1e6;

/// How an encoder is opened.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// Precision of the matrix products.
    pub precision: Precision,
    /// Most tokens of a text, special tokens included.
    pub max_tokens: usize,
    /// Tokens of a batch. One thread works on one of several batches, all on a single one; a text's states do not depend on it.
    pub batch_tokens: usize,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, max_tokens: DEFAULT_MAX_TOKENS, batch_tokens: 512 }
    }
}

/// Facts about an open model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The folder.
    pub path: PathBuf,
    /// The architecture.
    pub architecture: Architecture,
    /// The pooling that makes one vector of a text.
    pub pooling: Pooling,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of a token state.
    pub dimension: usize,
    /// Number of parameters that serving uses.
    pub parameters: usize,
    /// Rows of the word table.
    pub vocabulary: usize,
    /// Most tokens that the position table allows.
    pub positions: usize,
    /// Number type of the weight file: `f32`, `f16` or `bf16`.
    pub stored_as: &'static str,
    /// Fingerprint of the weights and of what the configuration adds to them.
    pub fingerprint: String,
    /// The scorer that the model is trained for, where its folder says so.
    pub scoring: Option<Scoring>,
}

/// A text encoder, ready to serve.
///
/// It is `Sync`: one encoder serves any number of threads.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    network: Network,
    info: ModelInfo,
    options: EncoderOptions,
    compute: Compute,
}

impl Encoder {
    /// Opens a model folder as sentence-transformers writes it.
    ///
    /// # Errors
    /// [`Error::Model`] and [`Error::Weights`] name the file and the field or tensor at fault;
    /// [`Error::Argument`] when the processor lacks the precision or an option makes no sense.
    pub fn open(path: &Path, options: EncoderOptions, compute: Compute) -> Result<Self> {
        if !options.precision.is_available() {
            let available: Vec<&str> =
                Precision::all().iter().filter(|p| p.is_available()).map(|p| p.name()).collect();
            return Err(Error::Argument {
                name: "precision",
                problem: format!(
                    "this processor does not multiply {}; it can do {}",
                    options.precision,
                    available.join(", ")
                ),
            });
        }
        let Folder { config, weights, tokenizer: tokenizer_file, pooling, scoring } = Folder::open(path)?;
        let positions = config.positions - config.first_position;
        if options.max_tokens > positions {
            return Err(Error::Argument {
                name: "max tokens",
                problem: format!("{} is more than the model's {positions} positions", options.max_tokens),
            });
        }
        if options.batch_tokens == 0 {
            return Err(Error::Argument { name: "batch tokens", problem: "0 tokens make no batch".into() });
        }
        // The tokenizer and the weights are independent; each takes a good part of the start-up time.
        let (tokenizer, loaded) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::open(&tokenizer_file, options.max_tokens));
            let loaded = weights::WeightFile::open(&weights)
                .and_then(|file| Network::load(&config, &file.tensors()?, options.precision, &compute));
            (tokenizer.join(), loaded)
        });
        let loaded = loaded?;
        let tokenizer = tokenizer
            .unwrap_or_else(|_| Err(Error::Tokenizer("the tokenizer file stops its reader".into())))?;
        if tokenizer.vocabulary_size() > config.vocabulary {
            return Err(Error::model(
                &tokenizer_file,
                format!(
                    "has token ids up to {}; the word table has {} rows",
                    tokenizer.vocabulary_size() - 1,
                    config.vocabulary
                ),
                "tokenizer and weights belong to different models",
            ));
        }
        let info = ModelInfo {
            path: path.to_path_buf(),
            architecture: config.architecture,
            pooling,
            layers: config.layers,
            heads: config.heads,
            dimension: config.hidden,
            parameters: loaded.parameters,
            vocabulary: config.vocabulary,
            positions,
            stored_as: loaded.stored_as,
            fingerprint: loaded.fingerprint,
            scoring,
        };
        Ok(Self { tokenizer, network: loaded.network, info, options, compute })
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The scorer to rank with: the one that the model is trained for, else the default.
    pub fn scoring(&self) -> Scoring {
        self.info.scoring.unwrap_or_default()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The options it was opened with.
    pub fn options(&self) -> &EncoderOptions {
        &self.options
    }

    /// The threads and instruction set that it uses.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Tokenises and encodes texts; the result is in their order.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], or [`Error::NotFinite`] with the index of the text.
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Encoded> {
        let tokens = self.tokenize(texts)?;
        let states = self.encode_tokens(&tokens)?;
        Ok(Encoded { tokens, states })
    }

    /// Tokenises texts, in their order.
    pub fn tokenize<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Tokens>> {
        let parts = self.compute.map(texts.chunks(256).collect(), |_: &mut (), part| {
            part.iter().map(|text| self.tokenizer.tokenize(text.as_ref())).collect::<Result<Vec<_>>>()
        })?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Encodes texts that are already tokenised by this encoder's tokenizer; the result is in their order.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the index of the text; [`Error::Argument`] for ids that are not in the
    /// vocabulary and texts that are too long.
    pub fn encode_tokens(&self, tokens: &[Tokens]) -> Result<TokenStates> {
        let dimension = self.network.hidden();
        let mut offsets = Vec::with_capacity(tokens.len() + 1);
        offsets.push(0);
        for (index, text) in tokens.iter().enumerate() {
            if text.ids.len() > self.info.positions
                || text.ids.iter().any(|id| *id as usize >= self.info.vocabulary)
            {
                return Err(Error::Argument {
                    name: "tokens",
                    problem: format!("text {index} (from 0) has tokens that the model does not have"),
                });
            }
            offsets.push(offsets[index] + text.ids.len());
        }
        let mut values = vec![0.0f32; offsets[tokens.len()] * dimension];
        // One job a batch of whole texts; each writes its own part of the result.
        let mut jobs = Vec::new();
        let (mut first, mut rest) = (0, &mut values[..]);
        while first < tokens.len() {
            let mut last = first + 1;
            while last < tokens.len() && offsets[last + 1] - offsets[first] <= self.options.batch_tokens {
                last += 1;
            }
            let (states, after) = rest.split_at_mut((offsets[last] - offsets[first]) * dimension);
            jobs.push((first..last, states));
            (first, rest) = (last, after);
        }
        // A batch alone has all threads at each of its products, several have one each.
        let team = if jobs.len() == 1 { self.compute.team() } else { Team::default() };
        self.compute.map(jobs, |work: &mut Workspace, (texts, states)| {
            let batch: Vec<&[u32]> = tokens[texts.clone()].iter().map(|text| &text.ids[..]).collect();
            self.network.forward((self.compute.instruction_set(), &team), &batch, states, work);
            match states.iter().position(|value| value.abs() > LARGEST_STATE || value.is_nan()) {
                None => Ok(()),
                Some(entry) => {
                    let token = offsets[texts.start] + entry / dimension;
                    Err(Error::NotFinite { index: offsets.partition_point(|offset| *offset <= token) - 1 })
                }
            }
        })?;
        Ok(TokenStates { values, offsets, dimension })
    }

    /// One vector for the token states of a text, by the model's pooling, not normalised.
    pub fn pool(&self, states: &[f32]) -> Vec<f32> {
        match self.info.pooling {
            Pooling::Mean => mean_of_rows(states, self.info.dimension),
            Pooling::FirstToken => states.iter().copied().take(self.info.dimension).collect(),
        }
    }

    /// [`Encoder::pool`], scaled to length 1: what `SentenceTransformer.encode` gives for a model that ends
    /// in Normalize.
    pub fn pool_to_unit(&self, states: &[f32]) -> Vec<f32> {
        let mut pooled = self.pool(states);
        let inverse = inverse_norm(&pooled);
        pooled.iter_mut().for_each(|value| *value *= inverse);
        pooled
    }
}

/// Texts with their tokens and token states.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Tokens of each text.
    pub tokens: Vec<Tokens>,
    /// Token states of each text.
    pub states: TokenStates,
}

/// Token states of several texts, ragged: no padding anywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenStates {
    values: Vec<f32>,
    offsets: Vec<usize>,
    dimension: usize,
}

impl TokenStates {
    /// Takes states from elsewhere: `values` is `tokens x dimension`, `offsets` the texts' boundaries.
    ///
    /// # Errors
    /// [`Error::Argument`] when the three do not fit together, or a value is not finite or beyond a million.
    pub fn new(values: Vec<f32>, offsets: Vec<usize>, dimension: usize) -> Result<Self> {
        let sound = dimension > 0
            && offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last().is_some_and(|tokens| tokens.checked_mul(dimension) == Some(values.len()))
            && values.iter().all(|value| value.abs() <= LARGEST_STATE);
        if sound {
            Ok(Self { values, offsets, dimension })
        } else {
            Err(Error::Argument {
                name: "token states",
                problem: "values, offsets and dimension do not fit together, or a value is not finite or beyond a million".into(),
            })
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a state.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// States of text `index`, `tokens x dimension`.
    ///
    /// # Panics
    /// When `index` is not below [`TokenStates::len`].
    pub fn text(&self, index: usize) -> &[f32] {
        &self.values[self.offsets[index] * self.dimension..self.offsets[index + 1] * self.dimension]
    }

    /// Boundaries of the texts, in tokens.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// All states, `tokens x dimension`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
